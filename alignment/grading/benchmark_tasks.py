"""The public benchmarks as tasks: HumanEval, MBPP, and EvalPlus's extensions of both.

HumanEval+ and MBPP+ come as inputs without outputs: what is expected is what the reference solution returns, computed
in the sandbox, once. The rules of their comparison (an absolute tolerance of 1e-6 where floats are expected, a few
tasks judged by a property of the answer) are those of EvalPlus 0.2, which made the verdicts that Qwen2.5-Coder published.
EvalPlus 0.3 ignores order and container in eight tasks of MBPP+ (`similar_elements`, `larg_nnum` ...), and takes two readings of two more; here, as in 0.2,
such an answer must equal the reference's.
"""

from __future__ import annotations

import ast
import gzip
import json
from pathlib import Path
from typing import Any

from alignment.sandbox.inside import wire

NOT_NONE = ("check_str", "text_match_three", "text_starta_endb")
"""MBPP+: a match object or text counts as True, None as False."""

CALL_SECONDS = 5.0
"""EvalPlus gives one call a second of the clock, or four times what the reference took. CPU time is what another machine
would measure too, and this is enough of it for any solution that EvalPlus passes on a machine several times as fast."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file, compressed or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _task(
    identifier: str, kind: str, tests: dict[str, Any], entry_point: str, source: str, prompt: str
) -> dict[str, Any]:
    return {
        "id": identifier, "prompt": prompt, "language": "python", "kind": kind, "tests": json.dumps(tests),
        "entry_point": entry_point, "source": source, "split": "test",
    }  # fmt: skip


def humaneval(row: dict[str, Any]) -> dict[str, Any]:
    """A HumanEval row as a task. Functions that the prompt defines for the tests' use go to the tester, not to the
    program."""
    tests = {"code": row["test"], "setup": helpers(row["prompt"] + row["canonical_solution"], row["entry_point"])}
    return _task(row["task_id"], "asserts", tests, row["entry_point"], "humaneval", row["prompt"])


def helpers(program: str, entry_point: str) -> str:
    """The program without its entry point: imports and helper functions."""
    tree = ast.parse(program)
    kept = [node for node in tree.body if getattr(node, "name", None) != entry_point]
    return "\n".join(ast.unparse(node) for node in kept)


def mbpp(row: dict[str, Any]) -> dict[str, Any]:
    """An MBPP row as a task; its tests include the challenge tests."""
    code = "\n".join([*row["test_list"], *row["challenge_test_list"]])
    setup = row["test_setup_code"]
    defined = {node.name for node in ast.parse(row["code"]).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    entry_point = next(name for name in _called(code) if name in defined)
    prompt = f'"""\n{row["text"]}\n{row["test_list"][0]}\n"""\n'
    return _task(f"Mbpp/{row['task_id']}", "asserts", {"code": code, "setup": setup}, entry_point, "mbpp", prompt)


def _called(code: str) -> list[str]:
    calls = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return [function.id for function in calls if isinstance(function, ast.Name)]


def plus_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of HumanEval+ or MBPP+, with ``base_input`` and ``plus_input`` as lists of argument lists.

    MBPP+ was stored as JSON, which made lists of tuples and sets: their types are taken from the calls in the row's
    own assertions.
    """
    rows = read_rows(path)
    for row in rows:
        for name in ("base_input", "plus_input"):
            if isinstance(row[name], str):
                row[name] = json.loads(row[name])
        if "assertion" in row:
            shapes = _argument_shapes(row["assertion"], row["entry_point"])
            for name in ("base_input", "plus_input"):
                row[name] = [
                    [_shaped(value, shapes[index] if index < len(shapes) else []) for index, value in enumerate(case)]
                    for case in row[name]
                ]
    return rows


def _argument_shapes(assertion: str, entry_point: str) -> list[list[Any]]:
    """For each argument, the values that the assertions pass."""
    shapes: list[list[Any]] = []
    for node in ast.walk(ast.parse(assertion)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == entry_point:
            for index, argument in enumerate(node.args):
                if len(shapes) <= index:
                    shapes.append([])
                try:
                    shapes[index].append(
                        eval(compile(ast.Expression(argument), "", "eval"), {"__builtins__": {}}, _SAFE)
                    )
                except Exception:
                    continue
    return shapes


_SAFE = {"complex": complex, "set": set, "dict": dict, "float": float, "int": int, "True": True, "False": False}


def _shaped(value: Any, examples: list[Any]) -> Any:
    """A JSON value with the types of the examples: lists become tuples or sets, text complex numbers, keys integers."""
    if isinstance(value, str) and examples and not any(isinstance(example, str) for example in examples):
        try:
            return complex(value)
        except ValueError:
            return value
    if isinstance(value, list):
        return _shaped_list(value, [item for item in examples if isinstance(item, list | tuple | set | frozenset)])
    if isinstance(value, dict):
        dicts = [example for example in examples if isinstance(example, dict)]
        if dicts == [] and any(isinstance(example, set) for example in examples):
            return set(value)
        items = [element for example in dicts for element in example.values()]
        keys = {type(key) for example in dicts for key in example}
        whole = keys == {int} and all(key.lstrip("-").isdigit() for key in value)
        return {int(key) if whole else key: _shaped(item, items) for key, item in value.items()}
    return value


def _shaped_list(value: list[Any], containers: list[Any]) -> Any:
    kinds = {type(example) for example in containers}
    all_items = [element for example in containers for element in example]
    inner = []
    for index, item in enumerate(value):
        aligned = [
            example[index] for example in containers if isinstance(example, tuple) and len(example) == len(value)
        ]
        fits = kinds == {tuple} and any(isinstance(found, list | tuple) == isinstance(item, list) for found in aligned)
        found = aligned if fits else all_items
        nested = isinstance(item, list) and not any(isinstance(element, list | tuple | set) for element in found)
        inner.append(_shaped_list(item, containers) if nested and kinds == {tuple} else _shaped(item, found))
    return tuple(inner) if kinds == {tuple} else set(inner) if kinds == {set} else inner


def plus_task(row: dict[str, Any], inputs: list[list[Any]], expected: list[Any], source: str) -> dict[str, Any]:
    """Inputs of a HumanEval+ or MBPP+ row, with the wire values that the reference solution returned for them, as a
    task."""
    if source == "mbpp+" and row["entry_point"] in NOT_NONE:
        # The reference may return a match object, which is no plain data; and a candidate the bool itself.
        expected = [value is not None for value in expected]
    cases = [
        {"args": wire.encode(arguments), "kwargs": {"d": []}, "expected": value}
        for arguments, value in zip(inputs, expected, strict=True)
    ]
    name, tolerance = row["entry_point"], float(row.get("atol") or 0)
    compare = "equal"
    if source == "mbpp+":
        compare = {**dict.fromkeys(NOT_NONE, "not_none"), "are_equivalent": "any"}.get(name, "equal")
    elif name == "find_zero":
        compare, tolerance = "root", tolerance or 1e-4
    tests = {
        "cases": cases, "encoding": "tagged", "compare": compare, "tolerance": tolerance or None, "floats": 1e-6,
        "call_seconds": CALL_SECONDS,
    }  # fmt: skip
    return _task(row["task_id"], "calls", tests, name, source, row["prompt"])


MULTIPL_E: dict[str, dict[str, Any]] = {
    "js": {"marker": True, "judge": "silent"},
    "cs": {"judge": "assertions"},
    "ts": {"marker": True, "flags": ["--target", "ES2015", "--lib", "ES2015,DOM"]},
}
"""Where the harness of the published MultiPL-E verdicts (qwencoder-eval, in QwenLM/Qwen2.5-Coder) differs from exit code
0: JavaScript that prints anything has failed; C# passes unless standard error says ``Fail``, so an unhandled exception
passes, which MultiPL-E's own harness would fail; TypeScript is compiled for ES2015."""


def multipl_e_tests(short: str) -> str:
    """The ``tests`` of a whole program of MultiPL-E in the language of this short name (``js``, ``cs``, ...)."""
    return json.dumps(MULTIPL_E.get(short, {"marker": True}))
