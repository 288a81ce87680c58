"""Encodes plain data for processes that do not trust each other: JSON, with tags for the types that JSON lacks.

Decoding creates only plain data, unlike pickle and marshal. A value of a type that JSON lacks is encoded as an object
with one key, the tag. The data contains no other JSON objects.

=========  ==============================================  =======================================================
tag        type                                            content
=========  ==============================================  =======================================================
``i``      int beyond 53 bits                              hexadecimal (parsing decimal digits takes quadratic time)
``t``      tuple                                           list
``d``      dict                                            list of pairs
``s``      set                                             list
``f``      frozenset                                       list
``b``      bytes, bytearray                                hexadecimal
``c``      complex                                         [real, imaginary]
``x``      a value of the standard library                 [name, text or list]
``o``      any other type: not plain data                  name of the type
=========  ==============================================  =======================================================

A value of a subclass of a plain type is sent as the plain type, and is read with the methods of the plain type. For
example, a list subclass whose ``__eq__`` always returns True arrives as an ordinary list.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
from typing import Any

MAX_DEPTH = 200
MAX_INT_BITS = 1 << 23
MAX_ITEMS = 1 << 25  # an item takes at least two bytes, and a frame has 64 MiB
_SMALL = 1 << 53


class WireError(ValueError):
    """Raised if a value is not plain data, or is too large or too deeply nested to be sent."""


def is_too_large(value: Any) -> bool:
    """Whether a value contains more than `MAX_ITEMS` items. Encoding such a value would take minutes and gigabytes."""
    total, level = 0, [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, list | tuple | set | frozenset | dict):
                total += len(item)
                if total > MAX_ITEMS:
                    return True
                below += item.values() if isinstance(item, dict) else item
        level = below
        if not level:
            break
    return False


def encode(value: Any, other: Any = None, depth: int = 0) -> Any:
    """Encode a value as JSON values.

    Args:
        value: Plain data.
        other: Function that encodes a value that is not plain data. By default such a value becomes an ``o`` tag.
        depth: Nesting depth of `value`.

    Raises:
        WireError: The value is nested too deeply, or contains an integer that is too large.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is int:
        return value if -_SMALL < value < _SMALL else {"i": _hexadecimal(value)}
    if depth > MAX_DEPTH:
        raise WireError("nested too deeply")
    depth += 1
    if kind is list:
        return [encode(item, other, depth) for item in value]
    if kind is tuple:
        return {"t": [encode(item, other, depth) for item in value]}
    if kind is dict:
        pairs = dict.items(value)
        return {"d": [[encode(key, other, depth), encode(item, other, depth)] for key, item in pairs]}
    if kind is set or kind is frozenset:
        return {"s" if kind is set else "f": [encode(item, other, depth) for item in value]}
    if kind is bytes or kind is bytearray:
        return {"b": value.hex()}
    if kind is complex:
        return {"c": [value.real, value.imag]}
    for base, plain in _BASES:
        if issubclass(kind, base):
            return encode(plain(value), other, depth)
    if kind in _STANDARD and (kind is not type or value in PLAIN_TYPES):
        name, content = _STANDARD[kind](value)
        return {"x": [name, encode(content, other, depth)]}
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        return encode(value.tolist(), other, depth)
    return other(value) if other is not None else {"o": kind.__name__[:100]}


def _hexadecimal(value: int) -> str:
    if value.bit_length() > MAX_INT_BITS:
        raise WireError("an integer of more than eight million bits")
    return hex(value)


# Each type is read with the methods of the plain class, never with those of the subclass.
_BASES: tuple[tuple[type, Any], ...] = (
    (int, lambda value: int.__pos__(value)),
    (float, lambda value: float.__pos__(value)),
    (str, lambda value: "".join(str.__iter__(value))),
    (list, lambda value: list(list.__iter__(value))),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
    (dict, lambda value: dict(dict.items(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
    (bytes, lambda value: bytes(bytes.__iter__(value))),
)
PLAIN_TYPES: dict[type, str] = {
    kind: kind.__name__
    for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))
}
_STANDARD: dict[type, Any] = {
    collections.deque: lambda value: ("deque", list(value)),
    decimal.Decimal: lambda value: ("decimal", str(value)),
    fractions.Fraction: lambda value: ("fraction", [value.numerator, value.denominator]),
    datetime.datetime: lambda value: ("datetime", value.isoformat()),
    datetime.date: lambda value: ("date", value.isoformat()),
    datetime.time: lambda value: ("time", value.isoformat()),
    datetime.timedelta: lambda value: ("timedelta", [value.days, value.seconds, value.microseconds]),
    range: lambda value: ("range", [value.start, value.stop, value.step]),
    type: lambda value: ("type", PLAIN_TYPES[value]),
    type(NotImplemented): lambda value: ("notimplemented", None),
    type(Ellipsis): lambda value: ("ellipsis", None),
}
UNCHANGING = frozenset(_STANDARD) - {collections.deque}
"""Types of the standard library whose values never change."""
_CONTAINERS: dict[str, Any] = {"t": tuple, "s": set, "f": frozenset, "d": dict}
_READERS: dict[str, Any] = {
    "deque": lambda content: collections.deque(typed(content, list)),
    "decimal": lambda content: decimal.Decimal(typed(content, str)[:1000]),
    "fraction": lambda content: fractions.Fraction(typed(content[0], int), typed(content[1], int)),
    "datetime": lambda content: datetime.datetime.fromisoformat(typed(content, str)),
    "date": lambda content: datetime.date.fromisoformat(typed(content, str)),
    "time": lambda content: datetime.time.fromisoformat(typed(content, str)),
    "timedelta": lambda content: datetime.timedelta(*(typed(item, int) for item in content)),
    "range": lambda content: range(*(typed(item, int) for item in content)),
    "type": lambda content: {name: kind for kind, name in PLAIN_TYPES.items()}[content],
    "notimplemented": lambda content: NotImplemented,
    "ellipsis": lambda content: ...,
}


def typed(value: Any, kind: type) -> Any:
    """Return a value of exactly this type. Raises WireError if the value has another type."""
    if type(value) is not kind:
        raise WireError("malformed data")
    return value


def decode(data: Any, other: Any = None, depth: int = 0) -> Any:
    """Decode JSON values that `encode` returned.

    Args:
        data: JSON values.
        other: Function that decodes a tag that the table does not list. Its arguments are the tag and its content.
        depth: Nesting depth of `data`.

    Raises:
        WireError: The data is malformed, too large, nested too deeply, or not plain.
    """
    kind = type(data)
    if data is None or kind in (bool, str, float, int):
        return data
    if depth > MAX_DEPTH:
        raise WireError("nested too deeply")
    depth += 1
    if kind is list:
        return [decode(item, other, depth) for item in data]
    if kind is not dict or len(data) != 1:
        raise WireError("malformed data")
    ((tag, content),) = data.items()
    try:
        if tag == "i":
            text = typed(content, str)
            if len(text) > MAX_INT_BITS // 4 + 4:
                raise WireError("an integer of more than eight million bits")
            return int(text, 16)
        if tag == "b":
            return bytes.fromhex(typed(content, str))
        if tag == "c":
            return complex(typed(content[0], float), typed(content[1], float))
        if tag in _CONTAINERS:
            return _CONTAINERS[tag](decode(item, other, depth) for item in typed(content, list))
        if tag == "x":
            name, inner = typed(content, list)
            return _READERS[name](decode(inner, other, depth))
        if other is not None:
            return other(tag, content)
    except WireError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, ArithmeticError, OverflowError) as error:
        raise WireError(f"malformed data: {type(error).__name__}") from None
    raise WireError(f"not plain data: {str(content)[:100]}" if tag == "o" else "malformed data")
