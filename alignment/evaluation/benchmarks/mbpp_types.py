"""Restore the Python types of MBPP's inputs that JSON can't represent: tuples, sets and complex numbers.

Each task is converted as in EvalPlus (`evalplus/data/mbpp.py`, `mbpp_deserialize_inputs`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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
    """Restore the Python types in the inputs of one task.

    Args:
        number: the integer in the task's id `Mbpp/<integer>`.
        inputs: lists of arguments, as read from JSON.
    """
    for numbers, restore in _RESTORE:
        if number in numbers:
            return [list(restore(arguments)) for arguments in inputs]
    return inputs
