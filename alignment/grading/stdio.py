"""Grading by standard input and output: whole programs, in any language; the comparison happens here."""

from __future__ import annotations

from typing import Any

from alignment.grading import compare
from alignment.grading.python import check, ending
from alignment.grading.verdict import PASSED, TestResult, Verdict, of_tests
from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import Job, Run, Slot


def stdio(slot: Slot, tests: dict[str, Any], language: str, program: bytes, limits: Limits) -> Verdict:
    """``{"cases": [{"stdin": "...", "stdout": "..."}], "tolerance": null}``: a process per case, exit code 0 and the right output."""
    if language != "python":
        raise ValueError(f"unknown language {language!r}")
    results: list[TestResult] = []
    cpu = 0.0
    for case in tests["cases"]:
        stdin = case["stdin"].encode("utf-8", "surrogatepass")
        (run,) = slot.run([Job("main", {}, program, stdin, limits)])
        cpu += run.cpu_seconds
        results.append(_result(check(run), case, tests.get("tolerance")))
        if results[-1].reason == "syntax":
            results += [results[-1]] * (len(tests["cases"]) - len(results))
            break
    return of_tests(results, cpu)


def _result(run: Run, case: dict[str, Any], tolerance: float | None) -> TestResult:
    if run.stop is not None or run.code < 0:
        return TestResult(*ending(run))
    if run.code != 0:
        said = run.messages()
        if said:
            return TestResult(str(said[0].get("reason", "exception"))[:50], str(said[0].get("detail", ""))[-500:])
        return TestResult("exception", f"exit code {run.code}. {ending(run)[1]}")
    actual = run.stdout.decode("utf-8", "replace")
    if compare.stdout_equal(case["stdout"], actual, tolerance):
        return TestResult(PASSED)
    return TestResult("wrong_answer", f"expected {case['stdout'][:150]!r}, got {actual[:150]!r}")
