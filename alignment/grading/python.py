"""Grading of Python: calls with expected values, and asserts with tester and program in two processes."""

from __future__ import annotations

import json
import secrets
from typing import Any

from alignment.grading import value_comparison
from alignment.grading.verdict import PASSED, TestResult, Verdict, error, failed, of_tests
from alignment.sandbox.inside import wire
from alignment.sandbox.limits import WALL_GRACE, Limits
from alignment.sandbox.program_run import Program, ProgramRun
from alignment.sandbox.slot import SandboxError, Slot


def calls(slot: Slot, tests: dict[str, Any], entry_point: str, program: bytes, limits: Limits) -> Verdict:
    """``{"cases": [{"args": [...], "kwargs": {...}, "expected": ...}], "tolerance": null}``.

    Optional: ``"encoding": "tagged"`` where args, kwargs and expected are in wire form (tuples, sets and bytes stay
    what they are), ``"compare"``: ``exact`` types (the default), ``equal`` as Python's ``==`` has it, ``set`` (the
    order and repetition of items don't count), ``not_none`` (anything but None counts as True), ``any`` (that it
    returns), ``root`` (the value is a root of the polynomial whose coefficients are the argument); and ``"floats"``,
    a tolerance for expected floats where ``tolerance`` is null; ``"call_seconds"``, the CPU time that one call may take:
    it spares the rest of the program's time where a loop has no end, and is no protection.

    Arguments go into the program's process, all at once; expected values never do.
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
    run, messages = returned(slot, entry_point, program, arguments, limits, tests.get("call_seconds"))
    early = next((message for message in messages if "case" not in message), None)
    if early is not None:
        said = claim(early)
        return failed(said.reason, said.detail, len(cases), run.cpu_seconds)
    if len(messages) > len(cases):
        return failed("protocol", "the program sent more results than it had calls", len(cases), run.cpu_seconds)
    results = []
    late = bool(messages) and messages[-1].get("reason") == "timeout"
    for number, case in enumerate(cases):
        message = messages[number] if number < len(messages) else None
        if message is None and late:
            results.append(TestResult("not_run", "a call before it took too long"))
            continue
        results.append(_case_result(case, tests, tagged, number, message, run))
    return of_tests(results, run.cpu_seconds)


def returned(
    slot: Slot,
    entry_point: str,
    program: bytes,
    arguments: list[list[Any]],
    limits: Limits,
    call_seconds: float | None = None,
) -> tuple[ProgramRun, list[dict[str, Any]]]:
    """Call a program: what its driver said, one message ``{"case": 0, "value": ...}`` per call where all went well.

    arguments: for each call its positional and keyword arguments, in wire form.
    """
    header = {"entry_point": entry_point, "cases": arguments, "call_seconds": call_seconds}
    (run,) = slot.run([Program("calls", header, program, limits=limits)])
    return run, check(run).messages(len(arguments) + 1)


CLAIMS = ("syntax", "exception", "memory", "missing_entry_point", "exit", "output_limit", "timeout")


def claim(message: dict[str, Any]) -> TestResult:
    """The failure that a program's own process reports. It can choose among failures, and nothing else."""
    reason = message.get("reason")
    return TestResult(
        reason if type(reason) is str and reason in CLAIMS else "protocol", text_of(message.get("detail"))
    )


def text_of(said: Any) -> str:
    """The last of a text that an untrusted process sent. Anything else is no text: even printing it could fail."""
    return said[-500:] if type(said) is str else ""


RULES = ("exact", "equal", "set", "not_none", "any", "root")


def _check_rule(tests: dict[str, Any]) -> None:
    rule = tests.get("compare", "exact")
    if rule not in RULES:
        raise ValueError(f"compare: {rule!r} is none of {', '.join(RULES)}")
    seconds = tests.get("call_seconds")
    if seconds is not None and not (type(seconds) in (int, float) and 0 < seconds < 1e6):
        raise ValueError(f"call_seconds: {seconds!r} is no number above 0")


def _right(case: dict[str, Any], expected: Any, value: Any, tests: dict[str, Any]) -> bool:
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
    case: dict[str, Any],
    tests: dict[str, Any],
    tagged: bool,
    number: int,
    message: dict[str, Any] | None,
    run: ProgramRun,
) -> TestResult:
    if message is None:
        return TestResult(*ending(run))
    if type(message.get("case")) is not int or message["case"] != number:
        return TestResult("protocol", "the program sent something that is no result")
    if "value" not in message:
        return claim(message)
    expected = case["expected"] if tagged else wire.encode(case["expected"])
    try:
        value = message["value"] if tagged else value_comparison.as_json(message["value"])
        right = _right(case, expected, value, tests)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError):
        return TestResult("protocol", "the program sent something that is no value")
    if right:
        return TestResult(PASSED)
    return TestResult("wrong_answer", f"call {number}: expected {_show(expected)}, got {_show(value)}")


def _show(value: Any) -> str:
    try:
        return json.dumps(value)[:150]
    except RecursionError:
        return "(a value nested too deeply to show)"


def asserts(slot: Slot, tests: dict[str, Any], entry_point: str | None, program: bytes, limits: Limits) -> Verdict:
    """``{"code": "<test code>", "setup": "<helpers of the tests>"}``, run in a process of its own.

    The code may define ``check(candidate)``, ``test_*()`` functions or ``unittest`` classes, which are called, or
    call the entry point itself. A name that the tests don't define is looked up in the program; put helpers that the
    verdict depends on into ``setup``, or the program may redefine them.
    """
    nonce = secrets.token_hex(16)
    header = {"nonce": nonce, "entry_point": entry_point, "setup": tests.get("setup", "")}
    code = tests["code"].encode("utf-8", "surrogatepass")
    tester_limits = limits.at_least(
        wall_seconds=WALL_GRACE * limits.wall_seconds + 1
    )  # the program's limit comes first
    tester, candidate = slot.run(
        [Program("tester", header, code, limits=tester_limits), Program("candidate", {}, program, limits=limits)]
    )
    cpu = tester.cpu_seconds + candidate.cpu_seconds
    check(candidate)
    said = [message for message in check(tester).messages() if message.get("nonce") == nonce]
    if candidate.stop is not None:
        return failed(candidate.stop, "", cpu_seconds=cpu)
    reports = candidate.messages(1)
    if reports:
        own = claim(reports[0])
        return failed(own.reason, own.detail, cpu_seconds=cpu)
    if len(said) != 1:
        return failed(*ending(tester), cpu_seconds=cpu)
    if "task_error" in said[0]:
        return error("invalid_task", said[0]["task_error"])
    results = [TestResult(reason, detail) for reason, detail in said[0]["results"]]
    if said[0]["gone"] and all(result.passed for result in results):
        results.append(TestResult(*ending(candidate)))
    return of_tests(results, cpu)


def check(run: ProgramRun) -> ProgramRun:
    """Raise SandboxError where a process never came to the program."""
    if not run.began:
        text = (run.reply[:300] or run.stderr[-300:]).decode(errors="replace")
        raise SandboxError(f"a program could not be started: {text}")
    return run


def out_of_memory(text: str) -> bool:
    """Whether an interpreter or runtime says that it got no more memory."""
    return any(said in text for said in NO_MEMORY)


NO_MEMORY = (
    "MemoryError", "bad_alloc", "OutOfMemory", "out of memory", "Out of memory", "Allowed memory size", "not enough memory",
    "memory allocation of",
)  # fmt: skip


def ending(run: ProgramRun) -> tuple[str, str]:
    """Why a process ended without a result: a reason and the last of what it printed."""
    text = run.stderr.decode(errors="replace").strip()[-500:]
    if run.stop is not None:
        return run.stop, text
    if out_of_memory(text):
        return "memory", text
    if run.code == -9 and run.cpu_seconds > 0.9:
        return "timeout", "out of CPU time"
    return (
        ("died", f"ended by signal {-run.code}. {text}")
        if run.code < 0
        else ("died", text or "ended before it gave a result")
    )
