"""Words of error messages: quoted values, and suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Text(str):
    """A string of a recipe that remembers its file, so that paths can be relative to it."""

    origin: Path | None = None


def short(text: str, length: int = 60) -> str:
    """Text for one line of a message: printable, and no longer than `length`."""
    plain = text if text.isprintable() else repr(text)[1:-1]
    return plain if len(plain) <= length else f"{plain[: length - 3]}..."


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    return short(repr(str(value) if isinstance(value, Text) else value))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word, or nothing. Flags count as their names: `--learning-rate` is close."""
    plain = str(word)[:100].lstrip("-").replace("-", "_")
    names = list(known)
    close = difflib.get_close_matches(plain, names, n=1, cutoff=0.6)
    close = close or difflib.get_close_matches(str(word)[:100], names, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def display(path: Path) -> str:
    """A path as the user would type it: relative where it lies below the working directory."""
    resolved = path.resolve()
    return str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(resolved)
