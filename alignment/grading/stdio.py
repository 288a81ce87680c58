"""Grading of whole programs, in any language: by their output, or by their exit code."""

from __future__ import annotations

import secrets
import signal
from typing import Any

from alignment.grading import value_comparison
from alignment.grading.python import check, claim, ending, out_of_memory
from alignment.grading.verdict import PASSED, TestResult, Verdict, failed, of_tests
from alignment.sandbox.compiled import Compiled, compiled_program
from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program, ProgramRun
from alignment.sandbox.slot import Slot
from alignment.sandbox.toolchains import Toolchain

NONCE = "COMPLETION_MARKER"  # the environment variable that an epilogue prints


def stdio(slot: Slot, tests: dict[str, Any], tools: Toolchain | None, program: Compiled, limits: Limits) -> Verdict:
    """``{"cases": [{"stdin": "...", "stdout": "..."}], "tolerance": null}``: a process per case, exit code 0 and the
    right output.

    The expected output never enters the program's process; the comparison happens here.
    """
    if program.reason:
        return failed(program.reason, program.problem, len(tests["cases"]))
    results: list[TestResult] = []
    cpu = 0.0
    for case in tests["cases"]:
        stdin = case.get("stdin", "").encode("utf-8", "surrogatepass")
        (run,) = slot.run([_job(tools, program, stdin, limits)])
        cpu += run.cpu_seconds
        problem = _problem(check(run))
        results.append(problem or _compare(run, case, tests.get("tolerance")))
        if results[-1].reason == "syntax":
            results += [results[-1]] * (len(tests["cases"]) - len(results))
            break
    return of_tests(results, cpu)


def program(slot: Slot, tests: dict[str, Any], tools: Toolchain | None, program: Compiled, limits: Limits) -> Verdict:
    """``{"stdin": "", "marker": true, "judge": "exit"}``: whether a program that holds its own tests passes them.

    A weaker grade than the others: tests and candidate share a process, so a program that reads its own text or
    environment can forge it. Use it for benchmarks that come this way, not for rewards. With ``marker`` (see
    `with_marker`) at least a program that ends early with exit code 0 does not pass.

    judge: ``exit`` (exit code 0, and no failed ``Debug.Assert`` in C#, after which mono goes on); or a rule of
    published verdicts, more lenient or more severe: ``silent`` (besides, nothing was printed), ``assertions`` (nothing
    that says ``Fail`` on standard error, however the program ended; C#).
    """
    judge = tests.get("judge", "exit")
    if judge not in JUDGES:
        raise ValueError(f"judge: {judge!r} is none of {', '.join(JUDGES)}")
    if program.reason:
        return failed(program.reason, program.problem)
    nonce = secrets.token_hex(16)
    stdin = tests.get("stdin", "").encode("utf-8", "surrogatepass")
    (run,) = slot.run([_job(tools, program, stdin, limits, {NONCE: nonce})])
    check(run)
    said = run.stderr.decode(errors="replace")
    limited = run.stop is not None or run.code == -signal.SIGKILL or out_of_memory(said)  # the signal: out of CPU time
    if judge == "assertions" and not limited:
        return of_tests(
            [TestResult("wrong_answer", said[:500]) if "Fail" in said else TestResult(PASSED)], run.cpu_seconds
        )
    result = _problem(run) or TestResult(PASSED)
    if result.passed and tools is not None and tools.language.name == "csharp" and "Fail:" in said:
        result = TestResult("wrong_answer", said[:500])
    printed = run.stdout.strip()
    if result.passed and tests.get("marker"):
        if nonce.encode() not in printed[-200:]:
            result = TestResult("exit", "ended before its tests were through")
        printed = printed.removesuffix(nonce.encode())
    if result.passed and judge == "silent" and (printed or said):
        result = TestResult("wrong_answer", f"printed {(said or printed.decode(errors='replace'))[:200]!r}")
    return of_tests([result], run.cpu_seconds)


JUDGES = ("exit", "silent", "assertions")


def with_marker(language: str, source: str) -> str:
    """The program with an epilogue that prints the completion marker, put behind its tests; unchanged where there is
    no place."""
    epilogue, where = EPILOGUES.get(language, ("", ""))
    if where == "":
        return source + "\n" + epilogue if epilogue else source
    position = source.rstrip().rfind(where)
    if where == "}" and language in ("java", "csharp") and position > 0:  # the class's brace; main's comes before it
        position = source.rfind(where, 0, position)
    return source if position < 0 else source[:position] + epilogue + source[position:]


EPILOGUES = {
    "python": (f"import os as _os; print(_os.environ[{NONCE!r}])", ""),
    "javascript": (f"console.log(process.env.{NONCE});", ""),
    "typescript": (f"declare var process: any; console.log(process.env.{NONCE});", ""),
    "bash": (f'echo "${NONCE}"', ""),
    "php": (f'\necho "\\n", getenv("{NONCE}");', "?>"),
    "ruby": (f"puts ENV[{NONCE!r}]", ""),
    "lua": (f'print(os.getenv("{NONCE}"))', ""),
    "perl": (f'print "\\n", $ENV{{"{NONCE}"}};', ""),
    "cpp": (f'printf("\\n%s\\n", getenv("{NONCE}"));', "}"),
    "rust": (f'println!("\\n{{}}", std::env::var("{NONCE}").unwrap());', "}"),
    "java": (f'System.out.println("\\n" + System.getenv("{NONCE}"));', "}"),
    "csharp": (f'System.Console.WriteLine("\\n" + System.Environment.GetEnvironmentVariable("{NONCE}"));', "}"),
}


def _job(
    tools: Toolchain | None, program: Compiled, stdin: bytes, limits: Limits, environment: dict[str, str] | None = None
) -> Program:
    if tools is None:  # Python, in the warm interpreter
        return Program("main", {"environment": environment or {}}, program.files[0][1], stdin, limits)
    return compiled_program(tools, program, stdin, limits, environment or {})


def _problem(run: ProgramRun) -> TestResult | None:
    if run.stop is not None or run.code < 0:
        return TestResult(*ending(run))
    if run.code == 0:
        return None
    said = run.messages(1)
    if said:
        return claim(said[0])
    reason, text = ending(run)
    return TestResult("memory" if reason == "memory" else "exception", f"exit code {run.code}. {text}")


def _compare(run: ProgramRun, case: dict[str, Any], tolerance: float | None) -> TestResult:
    actual = run.stdout.decode("utf-8", "replace")
    if value_comparison.stdout_equal(case["stdout"], actual, tolerance):
        return TestResult(PASSED)
    return TestResult("wrong_answer", f"expected {case['stdout'][:150]!r}, got {actual[:150]!r}")
