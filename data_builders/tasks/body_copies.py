"""Finds copies of a function's body in other files, which are hidden during grading."""

from __future__ import annotations

from collections.abc import Mapping


def copies(flat_texts: Mapping[str, str], file: str, body: str) -> list[str]:
    """Return the other files that contain a copy of a function's body. A body of one or two lines is not searched.

    Args:
        flat_texts: maps the path of each file to its text, simplified by `flat`.
        file: path of the function's file, which is left out of the result.
        body: the body of the function.
    """
    flat_body = flat(body)
    if flat_body.count("\n") < 2:
        return []
    return [path for path, text in flat_texts.items() if path != file and flat_body in text]


def flat(text: str) -> str:
    """Remove indentation, comment lines and blank lines, so that copies of code compare equal."""
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line and not line.startswith("#"))
