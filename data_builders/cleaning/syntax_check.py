"""Check that a changed text parses if the original text parses, in all languages that have a parser."""

from __future__ import annotations

import ast
import json
import re
import tomllib
import warnings
from collections.abc import Callable
from typing import Any

import yaml

from data_builders.parsing.syntax_tree import SyntaxTree


def _parse_yaml(text: str) -> Any:
    return list(yaml.parse(text, Loader=yaml.SafeLoader))


_FENCED = re.compile(r"^(`{3,})([A-Za-z0-9+#-]+)[^\n]*\n(.*?)^\1", re.MULTILINE | re.DOTALL)
_PARSERS: dict[str, Callable[[str], Any]] = {
    "python": ast.parse, "json": json.loads, "toml": tomllib.loads, "yaml": _parse_yaml,
}  # fmt: skip


def still_parses(before: str, after: str, language: str) -> bool:
    """Whether a text still parses after a change.

    Python, JSON, TOML and YAML are parsed by their own parsers, other languages by tree-sitter grammars. A text in a
    language without a grammar counts as parsed, and so does each of the other languages if the extra `syntax` is not
    installed.

    Args:
        before: the original text. If this text does not parse, the result is true.
        after: the changed text.
        language: language of both texts.
    """
    return before == after or _parses(after, language) or not _parses(before, language)


def fenced_code_still_parses(before: str, after: str) -> bool:
    """Whether each block of code between fences (three backticks and a language) still parses after a change."""
    if before == after:
        return True
    blocks = [_FENCED.findall(text) for text in (before, after)]
    return len(blocks[0]) == len(blocks[1]) and all(
        still_parses(old, new, language.lower())
        for (_, language, old), (_, _, new) in zip(blocks[0], blocks[1], strict=True)
    )


def _parses(text: str, language: str) -> bool:
    if language not in _PARSERS:
        tree = SyntaxTree.parse(text, language)
        return tree is None or not tree.root.has_error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            _PARSERS[language](text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, yaml.YAMLError):
        return False
    return True
