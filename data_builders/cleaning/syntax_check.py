"""Check that a changed text parses if the original text parses."""

from __future__ import annotations

import ast
import json
import tomllib
import warnings
from collections.abc import Callable
from typing import Any

import yaml


def _parse_yaml(text: str) -> Any:
    return list(yaml.parse(text, Loader=yaml.SafeLoader))


_PARSERS: dict[str, Callable[[str], Any]] = {
    "python": ast.parse, "json": json.loads, "toml": tomllib.loads, "yaml": _parse_yaml,
}  # fmt: skip


def still_parses(before: str, after: str, language: str) -> bool:
    """Whether a text in Python, JSON, TOML or YAML still parses after a change.

    Texts in other languages count as parsed.

    Args:
        before: the original text. If this text does not parse, the result is true.
        after: the changed text.
        language: language of both texts.
    """
    return before == after or _parses(after, language) or not _parses(before, language)


def _parses(text: str, language: str) -> bool:
    if language not in _PARSERS:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            _PARSERS[language](text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, yaml.YAMLError):
        return False
    return True
