"""Grading of Python: calls with expected values, and asserts with tester and program in two processes."""

from __future__ import annotations

import json
import secrets
from typing import Any

from alignment.grading import compare
from alignment.grading.verdict import PASSED, TestResult, Verdict, error, failed, of_tests
from alignment.sandbox.inside import wire
from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import Job, Run, SandboxError, Slot

CODE_INFRASTRUCTURE = 125


def calls(slot: Slot, tests: dict[str, Any], entry_point: str, program: bytes, limits: Limits) -> Verdict:
    """``{"cases": [{"args": [...], "kwargs": {...}, "expected": ...}], "tolerance": null}``.

    Optional: ``"encoding": "tagged"`` where args, kwargs and expected are in wire form (tuples, sets and bytes stay what they are),
    and ``"compare"``: ``exact`` types (the default), or ``equal`` as Python's ``==`` has it.

    Arguments go into the program's process, all at once; expected values never do.
    """
    cases = tests["cases"]
    tagged = tests.get("encoding", "json") == "tagged"
    arguments = [
        [case["args"], case.get("kwargs") or {"d": []}]
        if tagged
        else [wire.encode(case["args"]), wire.encode(case.get("kwargs") or {})]
        for case in cases
    ]
    (run,) = slot.run([Job("calls", {"entry_point": entry_point, "cases": arguments}, program, limits=limits)])
    messages = check(run).messages()
    early = next((message for message in messages if "case" not in message), None)
    if early is not None:
        return failed(str(early.get("reason", "protocol")), str(early.get("detail", "")), len(cases), run.cpu_seconds)
    results = []
    for number, case in enumerate(cases):
        message = messages[number] if number < len(messages) else None
        results.append(_case_result(case, tests, tagged, number, message, run))
    if len(messages) > len(cases):
        return failed("protocol", "the program sent more results than it had calls", len(cases), run.cpu_seconds)
    return of_tests(results, run.cpu_seconds)


def _case_result(
    case: dict[str, Any], tests: dict[str, Any], tagged: bool, number: int, message: dict[str, Any] | None, run: Run
) -> TestResult:
    if message is None:
        return TestResult(*ending(run))
    if type(message.get("case")) is not int or message["case"] != number:
        return TestResult("protocol", "the program sent something that is no result")
    if "value" not in message:
        return TestResult(str(message.get("reason", "protocol"))[:50], str(message.get("detail", ""))[:500])
    value = message["value"]
    expected = case["expected"] if tagged else wire.encode(case["expected"])
    if not tagged:
        value = compare.as_json(value)
    exact = tests.get("compare", "exact") == "exact"
    if compare.values_equal(expected, value, exact=exact, tolerance=tests.get("tolerance")):
        return TestResult(PASSED)
    return TestResult("wrong_answer", f"call {number}: expected {_show(expected)}, got {_show(value)}")


def _show(value: Any) -> str:
    return json.dumps(value)[:150]


def asserts(slot: Slot, tests: dict[str, Any], entry_point: str | None, program: bytes, limits: Limits) -> Verdict:
    """``{"code": "<test code>", "setup": "<helpers of the tests>"}``, run in a process of its own.

    The code may define ``check(candidate)``, ``test_*()`` functions or ``unittest`` classes, which are called, or call the entry point
    itself. A name that the tests don't define is looked up in the program; put helpers that the verdict depends on into ``setup``,
    or the program may redefine them.
    """
    nonce = secrets.token_hex(16)
    header = {"nonce": nonce, "entry_point": entry_point, "setup": tests.get("setup", "")}
    code = tests["code"].encode("utf-8", "surrogatepass")
    tester_limits = limits.at_least(wall_seconds=limits.wall_seconds + 1)
    tester, candidate = slot.run(
        [Job("tester", header, code, limits=tester_limits), Job("candidate", {}, program, limits=limits)]
    )
    cpu = tester.cpu_seconds + candidate.cpu_seconds
    check(candidate)
    said = [message for message in check(tester).messages() if message.get("nonce") == nonce]
    if candidate.stop is not None:
        return failed(candidate.stop, "", cpu_seconds=cpu)
    reports = candidate.messages()
    if reports:
        return failed(str(reports[0].get("reason", "protocol")), str(reports[0].get("detail", "")), cpu_seconds=cpu)
    if len(said) != 1:
        return failed(*ending(tester), cpu_seconds=cpu)
    if "task_error" in said[0]:
        return error("invalid_task", said[0]["task_error"])
    results = [TestResult(reason, detail) for reason, detail in said[0]["results"]]
    if said[0]["gone"] and all(result.passed for result in results):
        results.append(TestResult(*ending(candidate)))
    return of_tests(results, cpu)


def check(run: Run) -> Run:
    """Raise SandboxError where a process never came to the program."""
    if run.code == CODE_INFRASTRUCTURE and b'{"infrastructure"' in run.reply[:20]:
        raise SandboxError(f"a program could not be started: {run.reply[:300].decode(errors='replace')}")
    return run


def ending(run: Run) -> tuple[str, str]:
    """Why a process ended without a result: a reason and the last of what it printed."""
    text = run.stderr.decode(errors="replace").strip()[-500:]
    if run.stop is not None:
        return run.stop, text
    if "MemoryError" in text or "bad_alloc" in text or "OutOfMemoryError" in text or "out of memory" in text:
        return "memory", text
    if run.code == -9 and run.cpu_seconds > 0.9:
        return "timeout", "out of CPU time"
    return (
        ("died", f"ended by signal {-run.code}. {text}")
        if run.code < 0
        else ("died", text or "ended before it gave a result")
    )
