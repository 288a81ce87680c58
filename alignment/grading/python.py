"""Grades Python functions: compares returned values with expected values, or runs assertions in a separate process."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any, TypedDict

from alignment.grading import value_comparison
from alignment.grading.task import AssertTests, CallCase, CallTests
from alignment.grading.verdict import PASSED, TestResult, Verdict, error, failed, verdict_of
from alignment.sandbox.inside import wire
from alignment.sandbox.limits import WALL_GRACE, Limits
from alignment.sandbox.program_run import Program, ProgramRun, parsed_object
from alignment.sandbox.slot import SandboxError, Slot

MOST_BYTES = 1 << 16
BYTES_PER_EXPECTED = 32
"""A returned value may take `MOST_BYTES`, plus `BYTES_PER_EXPECTED` for each byte of the expected value. A larger value is
wrong, and is not parsed: this process would need much time and memory for a large value."""
MESSAGE_BYTES = 1 << 20
"""Largest message in which the process of a program reports its own failure."""
RULES = ("exact", "equal", "set", "not_none", "any", "root")
"""Allowed values of `CallTests.compare`."""
REPORTED_REASONS = ("syntax", "exception", "memory", "missing_entry_point", "exit", "output_limit", "timeout")
"""Reasons of a failure that the untrusted process of a program may report. Any other reason in its report is not
accepted."""
NO_MEMORY = (
    "MemoryError", "bad_alloc", "OutOfMemory", "out of memory", "Out of memory", "Allowed memory size", "not enough memory",
    "memory allocation of",
)  # fmt: skip
"""Texts that occur in the error messages of interpreters and runtimes that ran out of memory."""


class CallOutput(TypedDict, total=False):
    """The report of a program's process about one call. The process is untrusted, so the report may be wrong."""

    case: int
    """Index of the call. Missing if the program failed before the first call."""
    value: Any
    """The returned value, encoded by `wire.encode`. Missing if the call failed."""
    reason: str
    detail: str


def grade_calls(slot: Slot, tests: CallTests, entry_point: str, program: bytes, limits: Limits) -> Verdict:
    """Call a function for each case of `CallTests`, and compare the returned values with the expected values.

    The program's process receives the arguments of all calls at once, but never an expected value.

    Raises:
        KeyError, TypeError, ValueError: the tests are not in the format of `CallTests`.
        SandboxError: the program could not be started.
    """
    cases = tests["cases"]
    tagged = tests.get("encoding", "json") == "tagged"
    _check_rule(tests)
    arguments = [
        [case["args"], case.get("kwargs") or {"d": []}]
        if tagged
        else [wire.encode(case["args"]), wire.encode(case.get("kwargs") or {})]
        for case in cases
    ]
    expected = [case["expected"] for case in cases]
    run, outputs = call_outputs(slot, entry_point, program, arguments, limits, tests.get("call_seconds"), expected)
    failure = next((output for output in outputs if "case" not in output), None)
    if failure is not None:
        reported = reported_failure(failure)
        return failed(reported.reason, reported.detail, len(cases), run.cpu_seconds)
    if len(outputs) > len(cases):
        return failed("protocol", "the program sent more results than there were calls", len(cases), run.cpu_seconds)
    results = []
    timed_out = bool(outputs) and outputs[-1].get("reason") == "timeout"
    for number, case in enumerate(cases):
        output = outputs[number] if number < len(outputs) else None
        if output is None and timed_out:
            results.append(TestResult("not_run", "an earlier call took too long"))
            continue
        results.append(_case_result(case, tests, number, output, run))
    return verdict_of(results, run.cpu_seconds)


def call_outputs(
    slot: Slot,
    entry_point: str,
    program: bytes,
    arguments: Sequence[list[Any]],
    limits: Limits,
    call_seconds: float | None = None,
    expected: Sequence[Any] | None = None,
) -> tuple[ProgramRun, list[CallOutput]]:
    """Call a function in the sandbox, once for each item of `arguments`.

    Args:
        slot: the sandbox to use.
        entry_point: name of the function.
        program: source code that defines the function.
        arguments: positional and keyword arguments of each call, encoded by `wire.encode`.
        limits: limits of the program.
        call_seconds: limit of the CPU time of one call.
        expected: the expected value of each call, which limits the size of the returned value. If it is None, only
            `Limits.reply_bytes` limits the sizes.

    Returns:
        The run, and the outputs that the process reported. There is one output per call if all calls ended, otherwise
        fewer. If the program failed before the first call, there is one output without `case`. At most
        `len(arguments) + 1` outputs are read.
    """
    header = {"entry_point": entry_point, "cases": list(arguments), "call_seconds": call_seconds}
    (run,) = slot.run([Program("calls", header, program, limits=limits)])
    outputs: list[Any] = []
    for number, line in enumerate(check_began(run).lines()):
        is_large = expected is not None and _is_too_large(line, expected[number] if number < len(expected) else None)
        output = _large_output(line, number) if is_large else parsed_object(line)
        if output is None or number > len(arguments):
            break
        outputs.append(output)
    return run, outputs


def _is_too_large(line: bytes, expected: Any) -> bool:
    return len(line) > MOST_BYTES and len(line) > MOST_BYTES + BYTES_PER_EXPECTED * len(json.dumps(expected))


def _large_output(line: bytes, number: int) -> dict[str, Any]:
    """Return a message that stands for one with a very large value: the value equals no expected value."""
    if not line.startswith(b'{"case":%d,"value":' % number):
        return {"reason": "protocol", "detail": "the program sent something that is not a result"}
    return {"case": number, "value": {"o": f"a value of {len(line)} bytes"}}


def reported_failure(message: CallOutput | dict[str, Any]) -> TestResult:
    """Return the failure that the process of a program reports about itself.

    The process is untrusted. A reason that is not in `REPORTED_REASONS` is replaced by `protocol`.
    """
    reason = message.get("reason")
    known = type(reason) is str and reason in REPORTED_REASONS
    return TestResult(str(reason) if known else "protocol", short_text(message.get("detail")))


def short_text(value: Any) -> str:
    """Return the last 500 characters of a text from an untrusted process, or "" if the value is not a text."""
    return value[-500:] if type(value) is str else ""


def _check_rule(tests: CallTests) -> None:
    rule = tests.get("compare", "exact")
    if rule not in RULES:
        raise ValueError(f"compare: {rule!r} is not one of {', '.join(RULES)}")
    seconds = tests.get("call_seconds")
    if seconds is not None and not (type(seconds) in (int, float) and 0 < seconds < 1e6):
        raise ValueError(f"call_seconds: {seconds!r} must be a number above 0")


def _is_right(case: CallCase, expected: Any, value: Any, tests: CallTests) -> bool:
    rule, tolerance = tests.get("compare", "exact"), tests.get("tolerance")
    if rule == "any":
        return True
    if rule == "root":
        return value_comparison.is_root(case["args"], value, tolerance)
    if rule == "set":
        return value_comparison.sets_equal(expected, value)
    if rule == "not_none" and type(value) is not bool:
        return bool(expected == (value is not None))
    if tolerance is None and tests.get("floats") is not None and value_comparison.is_floats(expected):
        tolerance = tests["floats"]
    return value_comparison.values_equal(expected, value, exact=rule == "exact", tolerance=tolerance)


def _case_result(
    case: CallCase, tests: CallTests, number: int, output: CallOutput | None, run: ProgramRun
) -> TestResult:
    if output is None:
        return TestResult(*ending(run))
    if type(output.get("case")) is not int or output["case"] != number:
        return TestResult("protocol", "the program sent something that is not a result")
    if "value" not in output:
        return reported_failure(output)
    tagged = tests.get("encoding", "json") == "tagged"
    expected = case["expected"] if tagged else wire.encode(case["expected"])
    try:
        value = output["value"] if tagged else value_comparison.as_json(output["value"])
        right = _is_right(case, expected, value, tests)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError):
        return TestResult("protocol", "the program sent something that is not a value")
    if right:
        return TestResult(PASSED)
    return TestResult("wrong_answer", f"call {number}: expected {_shown(expected)}, got {_shown(value)}")


def _shown(value: Any) -> str:
    try:
        return json.dumps(value)[:150]
    except RecursionError:
        return "(a value nested too deeply to show)"


def grade_asserts(slot: Slot, tests: AssertTests, entry_point: str | None, program: bytes, limits: Limits) -> Verdict:
    """Run the assertions of `AssertTests` in one process, which calls the program in another process.

    Raises:
        KeyError, TypeError, ValueError: the tests are not in the format of `AssertTests`.
        SandboxError: a process could not be started.
    """
    nonce = secrets.token_hex(16)
    header = {"nonce": nonce, "entry_point": entry_point, "setup": tests.get("setup", "")}
    code = tests["code"].encode("utf-8", "surrogatepass")
    # The tester gets more time than the program, so that the program reaches its limit first.
    tester_limits = limits.at_least(wall_seconds=WALL_GRACE * limits.wall_seconds + 1)
    tester, candidate = slot.run(
        [Program("tester", header, code, limits=tester_limits), Program("candidate", {}, program, limits=limits)]
    )
    cpu = tester.cpu_seconds + candidate.cpu_seconds
    reports = [message for message in check_began(tester).messages() if message.get("nonce") == nonce]
    if len(reports) == 1 and "task_error" in reports[0]:  # the tester may end before the candidate has started
        return error("invalid_task", reports[0]["task_error"])
    check_began(candidate)
    if candidate.stop is not None:
        return failed(candidate.stop, "", cpu_seconds=cpu)
    failures = candidate.messages(1, MESSAGE_BYTES)
    if failures:
        failure = reported_failure(failures[0])
        return failed(failure.reason, failure.detail, cpu_seconds=cpu)
    if len(reports) != 1:
        return failed(*ending(tester), cpu_seconds=cpu)
    (report,) = reports
    results = [TestResult(reason, detail) for reason, detail in report["results"]]
    if report["gone"] and all(result.passed for result in results):
        results.append(TestResult(*ending(candidate)))
    return verdict_of(results, cpu)


def check_began(run: ProgramRun) -> ProgramRun:
    """Return the run unchanged, or raise SandboxError if the program of the run was not started."""
    if not run.began:
        text = (run.reply[:300] or run.stderr[-300:]).decode(errors="replace")
        raise SandboxError(f"a program could not be started: {text}")
    return run


def out_of_memory(text: str) -> bool:
    """Whether a text contains an error message of an interpreter or runtime that ran out of memory."""
    return any(words in text for words in NO_MEMORY)


def ending(run: ProgramRun) -> tuple[str, str]:
    """Return why a process ended without a result: a reason, and a detail such as the end of its standard error."""
    text = run.stderr.decode(errors="replace").strip()[-500:]
    if run.stop is not None:
        return run.stop, text
    if out_of_memory(text):
        return "memory", text
    if run.code == -9 and run.cpu_seconds > 0.9:
        return "timeout", "out of CPU time"
    if run.code < 0:
        return "died", f"ended by signal {-run.code}. {text}"
    return "died", text or "the program ended before it gave a result"
