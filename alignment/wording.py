"""Formats parts of error messages: values, paths, and suggestions for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Text(str):
    """A string from a recipe, with the path of the recipe file."""

    origin: Path | None = None
    """The recipe file. A relative path in the string starts at the folder of this file."""


def short(text: str, length: int = 60) -> str:
    """Shorten text to one line of a message: escape unprintable characters and cut to `length` characters."""
    plain = text if text.isprintable() else repr(text)[1:-1]
    return plain if len(plain) <= length else f"{plain[: length - 3]}..."


def shown(value: Any) -> str:
    """Format a value for a message: its `repr`, on one line, cut to 60 characters."""
    return short(repr(str(value) if isinstance(value, Text) else value))


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to a misspelled word, or None if no known name is similar.

    Dashes count as underscores: for `--learning-rate`, the result is `learning_rate`.
    """
    names = list(known)
    for spelling in (str(word)[:100].lstrip("-").replace("-", "_"), str(word)[:100]):
        if matches := difflib.get_close_matches(spelling, names, n=1, cutoff=0.6):
            return matches[0]
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'name'?` to append to a message, or an empty string if no known name is similar."""
    name = closest(word, known)
    return f" Did you mean {name!r}?" if name is not None else ""


def display(path: Path) -> str:
    """Return a path as the user would type it: relative if it is below the working directory, otherwise absolute."""
    resolved = path.resolve()
    return str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(resolved)
