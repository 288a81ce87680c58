"""Grades complete programs in any language by their output or by their exit code."""

from __future__ import annotations

import secrets
import signal
from dataclasses import replace

from alignment.grading import value_comparison
from alignment.grading.python import MESSAGE_BYTES, check_began, ending, out_of_memory, reported_failure
from alignment.grading.task import ProgramTests, StdioCase, StdioTests
from alignment.grading.verdict import PASSED, TestResult, Verdict, failed, verdict_of
from alignment.sandbox.compiled import Compiled, compiled_program
from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program, ProgramRun
from alignment.sandbox.slot import Slot
from alignment.sandbox.toolchains import Toolchain

MARKER = "COMPLETION_MARKER"
"""Name of the environment variable that contains the marker, a random text. Code of `with_marker` prints it."""
MOST_TIMEOUTS = 2
"""After so many cases that reach a time limit, the remaining cases do not run."""
JUDGES = ("exit", "silent", "assertions")
"""Allowed values of `ProgramTests.judge`."""


def grade_stdio(slot: Slot, tests: StdioTests, tools: Toolchain | None, compiled: Compiled, limits: Limits) -> Verdict:
    """Run a program once per case and compare its output with the expected output. See `StdioTests`.

    All cases together may take `_total_seconds`. After `MOST_TIMEOUTS` cases that took too long, no further case runs.

    Args:
        slot: the sandbox to use.
        tests: inputs and expected outputs. Outputs are compared in this process, outside of the program's process.
        tools: the language's toolchain. None for Python.
        compiled: the program.
        limits: limits of each run.
    """
    if compiled.reason:
        return failed(compiled.reason, compiled.problem, len(tests["cases"]))
    results: list[TestResult] = []
    cpu = 0.0
    total = remaining = _total_seconds(len(tests["cases"]), limits)
    timeouts = 0
    for case in tests["cases"]:
        if timeouts >= MOST_TIMEOUTS:
            results.append(TestResult("not_run", "earlier cases took too long"))
            continue
        stdin = case.get("stdin", "").encode("utf-8", "surrogatepass")
        case_limits = replace(limits, wall_seconds=max(0.01, min(limits.wall_seconds, remaining)))
        (run,) = slot.run([_program(tools, compiled, stdin, case_limits)])
        cpu, remaining = cpu + run.cpu_seconds, remaining - run.wall_seconds
        failure = _failure(check_began(run))
        results.append(failure or _compared(run, case, tests.get("tolerance")))
        if run.stop == "timeout" and remaining <= 0:
            results[-1], timeouts = (
                TestResult("timeout", f"the cases together took more than {total:g} s"),
                MOST_TIMEOUTS,
            )
        timeouts += results[-1].reason == "timeout"
        if results[-1].reason == "syntax":
            results += [results[-1]] * (len(tests["cases"]) - len(results))
            break
    return verdict_of(results, cpu)


def _total_seconds(cases: int, limits: Limits) -> float:
    """Return the wall time of all cases of a task together, in seconds: less than all their limits, if there are many."""
    return limits.wall_seconds * min(cases, 4 + cases / 10)


def grade_program(
    slot: Slot, tests: ProgramTests, tools: Toolchain | None, compiled: Compiled, limits: Limits
) -> Verdict:
    """Run a program that contains its own tests. See `ProgramTests`.

    Args:
        slot: the sandbox to use.
        tests: the rule by which the run is judged.
        tools: the language's toolchain. None for Python.
        compiled: the program. If `tests` sets `marker`, the program includes the code that prints the marker.
        limits: limits of the run.

    Raises:
        ValueError: `judge` is unknown.
    """
    judge = tests.get("judge", "exit")
    if judge not in JUDGES:
        raise ValueError(f"judge: {judge!r} is not one of {', '.join(JUDGES)}")
    if compiled.reason:
        return failed(compiled.reason, compiled.problem)
    marker = secrets.token_hex(16)
    stdin = tests.get("stdin", "").encode("utf-8", "surrogatepass")
    (run,) = slot.run([_program(tools, compiled, stdin, limits, {MARKER: marker})])
    check_began(run)
    errors = run.stderr.decode(errors="replace")
    # SIGKILL without a recorded limit: the kernel killed the program at its CPU time limit.
    limited = run.stop is not None or run.code == -signal.SIGKILL or out_of_memory(errors)
    if judge == "assertions" and not limited:
        result = TestResult("wrong_answer", errors[:500]) if "Fail" in errors else TestResult(PASSED)
        return verdict_of([result], run.cpu_seconds)
    result = _failure(run) or TestResult(PASSED)
    if result.passed and tools is not None and tools.language.name == "csharp" and "Fail:" in errors:
        result = TestResult("wrong_answer", errors[:500])
    printed = run.stdout.strip()
    if result.passed and tests.get("marker"):
        if marker.encode() not in printed[-200:]:
            result = TestResult("exit", "the program ended before its tests did")
        printed = printed.removesuffix(marker.encode())
    if result.passed and judge == "silent" and (printed or errors):
        result = TestResult("wrong_answer", f"printed {(errors or printed.decode(errors='replace'))[:200]!r}")
    return verdict_of([result], run.cpu_seconds)


def with_marker(language: str, source: str) -> str:
    """Insert code that prints the marker after the tests of a program.

    The source is returned unchanged if the language is unknown, or if no place for the code is found. Without the
    marker, a program that ends early with exit code 0 would pass.
    """
    code, before = MARKER_CODE.get(language, ("", ""))
    if before == "":
        return source + "\n" + code if code else source
    position = source.rstrip().rfind(before)
    if before == "}" and language in ("java", "csharp") and position > 0:
        position = source.rfind(before, 0, position)  # the last brace closes the class, the one before it `main`
    return source if position < 0 else source[:position] + code + source[position:]


MARKER_CODE = {
    "python": (f"import os as _os; print(_os.environ[{MARKER!r}])", ""),
    "javascript": (f"console.log(process.env.{MARKER});", ""),
    "typescript": (f"declare var process: any; console.log(process.env.{MARKER});", ""),
    "bash": (f'echo "${MARKER}"', ""),
    "php": (f'\necho "\\n", getenv("{MARKER}");', "?>"),
    "ruby": (f"puts ENV[{MARKER!r}]", ""),
    "lua": (f'print(os.getenv("{MARKER}"))', ""),
    "perl": (f'print "\\n", $ENV{{"{MARKER}"}};', ""),
    "cpp": (f'printf("\\n%s\\n", getenv("{MARKER}"));', "}"),
    "rust": (f'println!("\\n{{}}", std::env::var("{MARKER}").unwrap());', "}"),
    "java": (f'System.out.println("\\n" + System.getenv("{MARKER}"));', "}"),
    "csharp": (f'System.Console.WriteLine("\\n" + System.Environment.GetEnvironmentVariable("{MARKER}"));', "}"),
}
"""Language -> (code that prints the marker, anchor). The code is inserted before the last occurrence of the anchor, or
appended if the anchor is ""."""


def _program(
    tools: Toolchain | None, compiled: Compiled, stdin: bytes, limits: Limits, environment: dict[str, str] | None = None
) -> Program:
    if tools is None:  # Python runs in the interpreter that is already started
        return Program("main", {"environment": environment or {}}, compiled.files[0][1], stdin, limits)
    return compiled_program(tools, compiled, stdin, limits, environment or {})


def _failure(run: ProgramRun) -> TestResult | None:
    if run.stop is not None or run.code < 0:
        return TestResult(*ending(run))
    if run.code == 0:
        return None
    reports = run.messages(1, MESSAGE_BYTES)
    if reports:
        return reported_failure(reports[0])
    reason, text = ending(run)
    return TestResult("memory" if reason == "memory" else "exception", f"exit code {run.code}. {text}")


def _compared(run: ProgramRun, case: StdioCase, tolerance: float | None) -> TestResult:
    printed = run.stdout.decode("utf-8", "replace")
    if value_comparison.stdout_equal(case["stdout"], printed, tolerance):
        return TestResult(PASSED)
    return TestResult("wrong_answer", f"expected {case['stdout'][:150]!r}, got {printed[:150]!r}")
