"""EvalPlus's rows as tasks of kind `asserts`: inputs, reference solution and comparison run in the tester's process.

The candidate sees one input at a time and never the reference. Which tasks compare how (sets, tolerance, alternative
readings of the question), and which MBPP inputs were tuples before JSON, are facts of EvalPlus
(`evalplus/eval/__init__.py`, `evalplus/eval/_special_oracle.py`, `evalplus/data/mbpp.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from alignment.evaluation.problem import Row

SET_EQUAL = (
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
    "intersection_array", "find_dissimilar", "Diff",
)  # fmt: skip
"""The order of the answer's elements is free (MBPP)."""
NOT_NONE = ("check_str", "text_match_three", "text_starta_endb")
"""Only whether there is an answer counts: a match object or a bool (MBPP)."""

COMPARE = """
import copy as _copy
import math as _math

inf, nan = float("inf"), float("nan")
_ATOL, _ORACLE = {atol!r}, {oracle!r}


def _floats(value):
    if isinstance(value, float):
        return True
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, float) for item in value)


def _close(found, expected, atol):
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(_close(a, b, atol) for a, b in zip(found, expected))
    if isinstance(expected, str) or isinstance(found, str):
        return False
    if found == expected:
        return True
    return abs(found - expected) <= atol + 1e-7 * abs(expected)


def _same(found, expected, arguments):
    atol = _ATOL
    if _ORACLE == "root":
        return abs(sum(c * _math.pow(found, i) for i, c in enumerate(arguments[0]))) <= atol
    if _ORACLE == "set":
        equal = set(found) == set(expected)
    elif _ORACLE == "not_none":
        expected = expected if isinstance(expected, bool) else expected is not None
        equal = found == expected if isinstance(found, bool) else expected == (found is not None)
    elif _ORACLE == "any":
        equal = True
    elif _ORACLE == "or_zero":
        equal = found == expected or found == 0
    elif _ORACLE == "pyramid":
        base, height = arguments
        area = round(base**2 + 2 * base * _math.sqrt((base / 2) ** 2 + height**2))
        equal = found == expected or abs(found - area) <= atol
    elif _ORACLE == "padded_digits":
        width = max(len(str(number)) for number in arguments)
        first, second = (str(number).zfill(width) for number in arguments)
        equal = found == expected or found == sum(abs(int(a) - int(b)) for a, b in zip(first, second))
    else:
        equal = found == expected
    if atol == 0 and _floats(expected):
        atol = 1e-6
    if equal or atol == 0:
        return bool(equal)
    return type(found) is type(expected) and _close(found, expected, atol)


_scope = {{}}
exec(compile(_REFERENCE, "reference.py", "exec"), _scope)
_reference = _scope[{entry_point!r}]
"""
TESTS = """
def check(candidate):
    for number, arguments in enumerate(_INPUTS):
        expected = _reference(*_copy.deepcopy(arguments))
        found = candidate(*_copy.deepcopy(arguments))
        assert _same(found, expected, arguments), f"input {number}: wrong answer"
"""


def task_of(row: Row, *, plus: bool) -> Row:
    """A task row; `plus` adds the extended inputs to those of the original benchmark."""
    entry_point = row["entry_point"]
    if "base_input" not in row:
        tests: Row = {"code": row["test"]}
    else:
        inputs = row["base_input"] + (row["plus_input"] or [] if plus else [])
        if row["task_id"].startswith("Mbpp/"):
            inputs = restore_types(int(row["task_id"].split("/")[1]), inputs)
        setup = COMPARE.format(
            atol=row.get("atol", 0), oracle=_oracle(row["task_id"], entry_point), entry_point=entry_point
        )
        reference = row["prompt"] + row["canonical_solution"]
        tests = {"setup": f"_REFERENCE = {reference!r}\n{setup}\n_INPUTS = {inputs!r}\n", "code": TESTS}
    return {
        "id": row["task_id"],
        "prompt": row["prompt"],
        "language": "python",
        "kind": "asserts",
        "tests": json.dumps(tests),
        "entry_point": entry_point,
        "source": "evalplus",
        "split": "test",
    }


def _oracle(task_id: str, entry_point: str) -> str:
    if task_id.startswith("HumanEval/"):
        return "root" if entry_point == "find_zero" else ""
    if entry_point in SET_EQUAL:
        return "set"
    if entry_point in NOT_NONE:
        return "not_none"
    special = {
        "are_equivalent": "any",
        "sum_div": "or_zero",
        "surface_Area": "pyramid",
        "digit_distance_nums": "padded_digits",
    }
    return special.get(entry_point, "")


def _arguments_to_tuples(arguments: list[Any]) -> list[Any]:
    return [tuple(argument) for argument in arguments]


def _elements_to_tuples(arguments: list[Any]) -> list[Any]:
    return [[tuple(element) for element in argument] for argument in arguments]


def _first_elements_to_tuples(arguments: list[Any]) -> list[Any]:
    return [[tuple(element) for element in arguments[0]], *arguments[1:]]


def _first_to_tuple(arguments: list[Any]) -> list[Any]:
    return [tuple(arguments[0]), *arguments[1:]]


def _second_to_tuple(arguments: list[Any]) -> list[Any]:
    return [arguments[0], tuple(arguments[1])]


def _both_to_tuples(arguments: list[Any]) -> list[Any]:
    return [tuple(tuple(element) for element in argument) for argument in arguments]


def _first_nested_to_tuples(arguments: list[Any]) -> list[Any]:
    return [tuple(tuple(item) if isinstance(item, list) else item for item in arguments[0])]


def _all_to_tuples(value: Any) -> Any:
    return tuple(_all_to_tuples(item) for item in value) if isinstance(value, list) else value


def _values_to_tuples(arguments: list[Any]) -> list[Any]:
    return [{key: tuple(value) for key, value in arguments[0].items()}, *arguments[1:]]


def _elements_to_sets(arguments: list[Any]) -> list[Any]:
    return [[set(item) if isinstance(item, list) and item else {} for item in arguments[0]]]


def _float_and_complex(arguments: list[Any]) -> list[Any]:
    return [float(arguments[0]), complex(arguments[1])]


def _complex(arguments: list[Any]) -> list[Any]:
    return [complex(arguments[0])]


_RESTORE: list[tuple[tuple[int, ...], Callable[[Any], Any]]] = [
    ((2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
     _arguments_to_tuples),
    ((63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780), _elements_to_tuples),
    ((75, 413, 444, 753), _first_elements_to_tuples),
    ((106, 750), _second_to_tuple),
    ((115,), _elements_to_sets),
    ((124,), _float_and_complex),
    ((250, 307, 405, 446, 617, 720, 763, 808), _first_to_tuple),
    ((259, 401, 445), _both_to_tuples),
    ((278,), _first_nested_to_tuples),
    ((722,), _values_to_tuples),
    ((252,), _complex),
    ((580, 615, 791), _all_to_tuples),
]  # fmt: skip


def restore_types(number: int, inputs: list[Any]) -> list[Any]:
    """MBPP's inputs with the tuples, sets and complex numbers that JSON can't hold."""
    for numbers, restore in _RESTORE:
        if number in numbers:
            return [list(restore(arguments)) for arguments in inputs]
    return inputs
