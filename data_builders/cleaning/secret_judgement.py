"""Judge whether a value is a secret: placeholders, names, versions and ordinary words are not."""

from __future__ import annotations

import math
import re
from collections import Counter

from data_builders.cleaning.placeholders import is_name, is_placeholder

_EXPRESSION = re.compile(r"[A-Za-z_]\w*(?:(?:\.|->|::)[A-Za-z_]\w*)+(?:[*+/<>,|-].*)?\Z")
# Values in code about tokens and keys, but not secrets: regular expressions, formats, paths, names of algorithms.
_NO_TOKEN = re.compile(r"\(\?|\[\^?\w-\w|%[sd]|[;:]=|\{\w*\}|/[\w.-]+\.[a-z]{2,4}\Z|\A[A-Za-z]+\d*[Ww]ith[A-Z]\w+\Z")
_VERSION = re.compile(r"[\^~<>=v ]{0,3}\d+(?:\.(?:\d+|x|\*))+(?:[-+.][\w.-]+)?\Z")
_PATH = re.compile(r"(?:[~.]{0,2}(?:/[\w.-]+){2,}|[A-Z]:[\\/][\w.\\/ -]+|~/[\w./-]+)/?\Z")
_NUMBERED_NAME = re.compile(
    r"[a-z]+(?:[_./-][a-z]+)*[_.-]?v?\d{1,2}|[A-Z]+\d{1,2}|[A-Z]+\d?(?:_[A-Z]+\d?)+|v\d+[\w.]*|[\w.]+\.\w{2,4}|\w+\[\w+\]"
)
_WORDS = re.compile(r"[A-Za-z]?[a-z]*(?:[A-Z_. :/-][a-z]*)*|[A-Z_.-]+")


def looks_secret(value: str, strong: bool) -> bool:
    """Whether a value is a secret.

    If `strong` is true, the value is assigned to the name of a password, and any word is a secret. Otherwise, a secret
    must look random.
    """
    if is_placeholder(value) or not any(char.isalnum() for char in value) or len(set(value)) < 3:
        return False
    if _VERSION.match(value) or _PATH.match(value) or _EXPRESSION.match(value) or is_name(value):
        return False
    if strong:
        return len(value) >= 4 and not (" " in value and (value.count(" ") > 6 or value.endswith((":", "?", "!", "."))))
    if len(value) < 6 or " " in value or "/" in value[:2] or _NO_TOKEN.search(value):
        return False
    has_digit = any(char.isdigit() for char in value)
    has_letter = any(char.isalpha() for char in value)
    if has_digit and has_letter:
        return not _NUMBERED_NAME.fullmatch(value)
    return has_letter and len(value) >= 12 and entropy(value) > 3.3 and not _WORDS.fullmatch(value)


def is_mixed(value: str) -> bool:
    """Whether a value contains a digit, and `looks_secret` takes it for a secret."""
    return any(char.isdigit() for char in value) and looks_secret(value, False)


def entropy(value: str) -> float:
    """Compute the Shannon entropy in bits per character."""
    length = len(value)
    return -sum(count / length * math.log2(count / length) for count in Counter(value).values())
