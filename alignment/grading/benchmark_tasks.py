"""Converts rows of public benchmarks to tasks: HumanEval, MBPP, HumanEval+, MBPP+ and MultiPL-E.

HumanEval+ and MBPP+ have inputs without outputs. The expected value is the value that the reference solution returns in
the sandbox. Values are compared by the rules of EvalPlus 0.2, which computed the verdicts that Qwen2.5-Coder published:
floats are compared with an absolute tolerance of 1e-6, and for a few tasks a property of the answer is checked instead
of its value. EvalPlus 0.3 ignores order and container in eight tasks of MBPP+ (`similar_elements`, `larg_nnum`, ...)
and accepts two interpretations of two more tasks. Here, as in EvalPlus 0.2, the answers to these tasks must equal the
reference solution's answers.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.grading.task import CallCase, CallTests, ProgramTests, TaskKind
from alignment.sandbox.inside import wire

NOT_NONE = ("check_str", "text_match_three", "text_starta_endb")
"""Functions of MBPP+ for which any answer except None counts as True: they may return a match object or text."""

CALL_SECONDS = 5.0
"""CPU seconds that one call may use. EvalPlus limits the wall time instead: one second, or four times the wall time of
the reference solution. CPU time does not depend on the load of the machine. 5 s are enough for every solution that
passes EvalPlus, even on a machine that is several times slower."""


def _task(
    identifier: str, kind: TaskKind, tests: Mapping[str, Any], entry_point: str, source: str, prompt: str
) -> dict[str, Any]:
    return {
        "id": identifier, "prompt": prompt, "language": "python", "kind": kind, "tests": json.dumps(tests),
        "entry_point": entry_point, "source": source, "split": "test",
    }  # fmt: skip


def humaneval(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a HumanEval row as a task.

    Helper functions in the prompt become setup code of the tests, so that the program cannot redefine them.
    """
    tests = {"code": row["test"], "setup": helpers(row["prompt"] + row["canonical_solution"], row["entry_point"])}
    return _task(row["task_id"], "asserts", tests, row["entry_point"], "humaneval", row["prompt"])


def helpers(program: str, entry_point: str) -> str:
    """Return the imports and helper functions of a program: everything except the definition of the entry point."""
    tree = ast.parse(program)
    others = [node for node in tree.body if getattr(node, "name", None) != entry_point]
    return "\n".join(ast.unparse(node) for node in others)


def mbpp(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an MBPP row as a task. The tests of the task include the challenge tests."""
    code = "\n".join([*row["test_list"], *row["challenge_test_list"]])
    setup = row["test_setup_code"]
    defined = {node.name for node in ast.parse(row["code"]).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    entry_point = next(name for name in _called(code) if name in defined)
    prompt = f'"""\n{row["text"]}\n{row["test_list"][0]}\n"""\n'
    return _task(f"Mbpp/{row['task_id']}", "asserts", {"code": code, "setup": setup}, entry_point, "mbpp", prompt)


def _called(code: str) -> list[str]:
    calls = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return [function.id for function in calls if isinstance(function, ast.Name)]


def plus_task(
    row: Mapping[str, Any], inputs: Sequence[list[Any]], expected: Sequence[Any], source: str
) -> dict[str, Any]:
    """Return a HumanEval+ or MBPP+ row as a task.

    Args:
        row: the row of the EvalPlus dataset.
        inputs: positional arguments of each call, as Python objects.
        expected: the value that the reference solution returns for each call, encoded by `wire.encode`.
        source: `humaneval+` or `mbpp+`.
    """
    if source == "mbpp+" and row["entry_point"] in NOT_NONE:
        # The reference may return a match object, which is not plain data, while a program may return a bool.
        expected = [value is not None for value in expected]
    cases: list[CallCase] = [
        {"args": wire.encode(arguments), "kwargs": {"d": []}, "expected": value}
        for arguments, value in zip(inputs, expected, strict=True)
    ]
    name, tolerance = row["entry_point"], float(row.get("atol") or 0)
    tests: CallTests = {"cases": cases, "encoding": "tagged", "compare": "equal"}
    if source == "mbpp+" and name in NOT_NONE:
        tests["compare"] = "not_none"
    elif source == "mbpp+" and name == "are_equivalent":
        tests["compare"] = "any"
    elif source != "mbpp+" and name == "find_zero":
        tests["compare"], tolerance = "root", tolerance or 1e-4
    tests |= {"tolerance": tolerance or None, "floats": 1e-6, "call_seconds": CALL_SECONDS}
    return _task(row["task_id"], "calls", tests, name, source, row["prompt"])


MULTIPL_E: dict[str, ProgramTests] = {
    "js": {"marker": True, "judge": "silent"},
    "cs": {"judge": "assertions"},
    "ts": {"marker": True, "flags": ["--target", "ES2015", "--lib", "ES2015,DOM"]},
}
"""Languages in which the harness of the published MultiPL-E verdicts (qwencoder-eval, in QwenLM/Qwen2.5-Coder) does not
simply check for exit code 0. JavaScript: a program that prints anything fails. C#: a program passes unless standard
error contains `Fail`. A program with an unhandled exception therefore passes, but fails in the harness of MultiPL-E.
TypeScript: programs are compiled for ES2015."""


def multipl_e_tests(short: str) -> str:
    """Return the column `tests` of a MultiPL-E task. `short` is the short name of the language: `js`, `cs`, ..."""
    return json.dumps(MULTIPL_E.get(short, {"marker": True}))
