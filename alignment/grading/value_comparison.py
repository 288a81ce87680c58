"""Compares values and output of a program with the expected values and output.

Values are compared in wire form (`alignment.sandbox.inside.wire`). No Python object is built from a program's data, so
the program cannot supply an `__eq__` or `__hash__` method, or a dict whose keys collide.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from typing import Any

Number = bool | int | float
RELATIVE = 1e-7
"""Relative tolerance that is added to the absolute tolerance: the default `rtol` of numpy's `assert_allclose`, which
EvalPlus uses."""
MAX_DIGITS = 400
"""Longest text that is read as a printed number, in characters."""


def stdout_equal(expected: str, actual: str, tolerance: float | None = None) -> bool:
    """Whether two outputs are equal line by line.

    Whitespace at the end of each line and empty lines at the end of the output are ignored.

    Args:
        expected: the expected output.
        actual: the program's output.
        tolerance: absolute difference allowed between numbers. None compares numbers as text.
    """
    left = [line.rstrip() for line in expected.rstrip().splitlines()]
    right = [line.rstrip() for line in actual.rstrip().splitlines()]
    if left == right:
        return True
    if tolerance is None or len(left) != len(right):
        return False
    pairs = [(a.split(), b.split()) for a, b in zip(left, right, strict=True)]
    return all(
        len(a) == len(b) and all(_text_close(x, y, tolerance) for x, y in zip(a, b, strict=True)) for a, b in pairs
    )


def _text_close(expected: str, actual: str, tolerance: float) -> bool:
    if expected == actual:
        return True
    if len(actual) > MAX_DIGITS:
        return False
    try:
        return _close(float(expected), float(actual), tolerance)
    except ValueError:
        return False


def _close(expected: float, actual: float, tolerance: float) -> bool:
    if not (math.isfinite(expected) and math.isfinite(actual)):
        return expected == actual  # the difference from infinity is never small
    return expected == actual or abs(expected - actual) <= tolerance + RELATIVE * abs(expected)


def values_equal(expected: Any, actual: Any, *, exact: bool = True, tolerance: float | None = None) -> bool:
    """Whether two values in wire form are equal. NaN equals NaN.

    Args:
        expected: the expected value.
        actual: the program's value. Malformed data is not equal to any value.
        exact: whether types must be equal, so that 1, 1.0 and True are three different values. If False, numbers are
            compared as by Python's `==`.
        tolerance: absolute difference allowed between two numbers if at least one of them is a float.
    """
    try:
        return _equal(expected, actual, exact, tolerance)
    except (RecursionError, KeyError, TypeError, ValueError, IndexError, OverflowError):
        return False


def _number(value: Any) -> Number | None:
    if type(value) in (bool, int, float):
        return value
    if type(value) is dict and "i" in value:
        return int(value["i"], 16)
    return None


def _equal(expected: Any, actual: Any, exact: bool, tolerance: float | None) -> bool:
    left, right = _number(expected), _number(actual)
    if left is not None or right is not None:
        return left is not None and right is not None and _numbers_equal(left, right, exact, tolerance)
    if type(expected) is not type(actual):
        return False
    if type(expected) is list:
        return _lists_equal(expected, actual, exact, tolerance)
    if type(expected) is not dict:
        return bool(expected == actual)  # text, or None
    ((tag, content),) = expected.items()
    ((other_tag, other),) = actual.items()
    if not exact:
        tag, other_tag = ({"f": "s"}.get(item, item) for item in (tag, other_tag))
    if tag != other_tag or tag == "o":
        return False
    if tag in ("t", "x", "c"):
        return _equal(content, other, exact, tolerance)
    if tag in ("s", "f"):
        return {canonical(item, exact) for item in content} == {canonical(item, exact) for item in other}
    if tag == "d":
        entries = {canonical(key, exact): value for key, value in content}
        others = {canonical(key, exact): value for key, value in other}
        return entries.keys() == others.keys() and all(
            _equal(value, others[key], exact, tolerance) for key, value in entries.items()
        )
    return bool(tag == "b" and content == other)


def _lists_equal(expected: list[Any], actual: list[Any], exact: bool, tolerance: float | None) -> bool:
    return len(expected) == len(actual) and all(
        _equal(a, b, exact, tolerance) for a, b in zip(expected, actual, strict=True)
    )


def _numbers_equal(expected: Number, actual: Number, exact: bool, tolerance: float | None) -> bool:
    if exact and type(expected) is not type(actual):
        return False
    floats = [value for value in (expected, actual) if isinstance(value, float)]
    if len(floats) == 2 and math.isnan(floats[0]):
        return math.isnan(floats[1])
    if tolerance is not None and floats:
        return _close(float(expected), float(actual), tolerance)
    return expected == actual


def canonical(value: Any, exact: bool) -> Hashable:
    """Return an object that is equal for all equal values in wire form. Sets and dict keys are compared by this object.

    Numbers become texts: Python hashes texts with a random key, so a program cannot choose numbers whose hashes collide.
    Sets become frozensets, which remember their hash, so that a set of sets takes no longer than its size.
    """
    number = _number(value)
    if number is not None:
        if not exact and isinstance(number, float) and number.is_integer():
            number = int(number)
        kind = "number" if not exact else type(number).__name__
        return (kind, hex(number) if isinstance(number, int) else repr(number))
    if type(value) is list:
        return ("list", *(canonical(item, exact) for item in value))
    if type(value) is dict:
        ((tag, content),) = value.items()
        if tag in ("s", "f"):
            return ("s" if not exact else tag, frozenset(canonical(item, exact) for item in content))
        if tag == "d":
            return ("d", frozenset((canonical(key, exact), canonical(item, exact)) for key, item in content))
        return (tag, canonical(content, exact))
    if value is not None and type(value) is not str:
        raise TypeError("not a value in wire form")
    return value


def as_json(value: Any) -> Any:
    """Convert a value in wire form to the value that results if it is written to JSON and read again.

    Tuples become lists, and dict keys become text. The result can be compared with expected values from a JSON file.
    """
    if type(value) is list:
        return [as_json(item) for item in value]
    if type(value) is dict and len(value) == 1:
        ((tag, content),) = value.items()
        if tag == "t":
            return [as_json(item) for item in content]
        if tag == "d":
            return {"d": [[_json_key(key), as_json(item)] for key, item in content]}
    return value


def _json_key(key: Any) -> Any:
    return key if isinstance(key, str) else json.dumps(key) if key is None or type(key) in (bool, int, float) else key


def is_floats(value: Any) -> bool:
    """Whether a value in wire form is a float, or a non-empty list or tuple of floats."""
    if type(value) is dict and "t" in value:
        value = value["t"]
    return type(value) is float or (type(value) is list and bool(value) and all(type(item) is float for item in value))


def sets_equal(expected: Any, actual: Any) -> bool:
    """Whether two collections in wire form contain equal items. Ignores order, repetition and type of collection."""
    try:
        left, right = ({canonical(item, False) for item in _items(value)} for value in (expected, actual))
    except (TypeError, KeyError, ValueError, RecursionError):
        return False
    return left == right


def _items(value: Any) -> list[Any]:
    if type(value) is dict:
        ((tag, content),) = value.items()
        value = content if tag in ("t", "s", "f") else None
    if type(value) is not list:
        raise TypeError("not a collection")
    return value


def is_root(arguments: Any, actual: Any, tolerance: float | None) -> bool:
    """Whether a value is a root of the polynomial with the first argument's coefficients.

    Args:
        arguments: the arguments of the call. The first argument lists the coefficients, beginning with the constant
            term.
        actual: the program's value, in wire form.
        tolerance: maximum absolute value of the polynomial at `actual`. None means 0.
    """
    number = _number(actual)
    coefficients = [_number(item) for item in arguments[0]]
    if number is None or not math.isfinite(number) or None in coefficients:
        return False
    try:
        value = sum(float(item or 0) * math.pow(number, power) for power, item in enumerate(coefficients))
    except OverflowError:
        return False
    return abs(value) <= (tolerance or 0)
