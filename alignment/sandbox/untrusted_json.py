"""Parses JSON that an untrusted process has sent, with limits on nesting and on the digits of numbers.

Without these limits, a text of a few megabytes could overflow the stack of this process, or keep this process busy for
minutes. The size of a text in bytes must be limited by the caller.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

MAX_DEPTH = 900
"""Largest nesting depth. A value in wire form has at most 200 levels, each of which takes up to three levels of JSON."""
MAX_DIGITS = 400
"""Largest number of digits of an integer. Larger integers are sent in hexadecimal (see `inside.wire`)."""
_LONG_NUMBER = re.compile(rb"\d{%d}" % (MAX_DIGITS + 1))
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = re.compile(rb"[^\[\]{}]+")


def parse_json(data: bytes, max_digits: int = MAX_DIGITS) -> Any:
    """Return the value that a text in JSON describes.

    Raises:
        ValueError: the text is not JSON, is nested too deeply, or contains an integer of more than `max_digits` digits.
    """
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")

    def integer(digits: str) -> int:
        if len(digits) > max_digits + digits.startswith("-"):
            raise ValueError(f"an integer of more than {max_digits} digits")
        return int(digits)

    try:
        return json.loads(data, parse_int=integer if _LONG_NUMBER.search(data) else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def structure_bytes(data: bytes, enough: int) -> int:
    """Return the size of a text in JSON without the content of its strings. If `data` has `enough` bytes at most, return
    its size.
    """
    return len(data) if len(data) <= enough else len(_STRING.sub(b"", data))


def _depth(data: bytes) -> int:
    """Return the largest number of brackets that are open at one place of a text, without those in strings."""
    brackets = _NOT_BRACKETS.sub(b"", _STRING.sub(b"", data))
    return max(itertools.accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)
