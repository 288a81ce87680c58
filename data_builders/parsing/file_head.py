"""Find the comments at the head of a file, and the license header among them."""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_HEAD = 16_384
"""Number of characters at the start of a file in which head comments are searched."""

_COMMENT = re.compile(
    r"""(?P<skip>\s+|<\?(?:php|xml)[^\n]*|['"]use\ strict['"];?|\#![^\n]*)
    |/\*.*?\*/|<!--.*?-->|\(\*.*?\*\)|\{-.*?-\}|\"{3}.*?\"{3}|'{3}.*?'{3}
    |(?://[^\n]*(?:\n[ \t]*(?=//)|))+
    |(?:\#(?!\s*(?:include|define|if|ifdef|ifndef|pragma|import|undef|region)\b)[^\n]*(?:\n[ \t]*(?=\#)|))+
    |(?:--[^\n]*(?:\n[ \t]*(?=--)|))+|(?:;[^\n]*(?:\n[ \t]*(?=;)|))+|(?:%[^\n]*(?:\n[ \t]*(?=%)|))+""",
    re.DOTALL | re.VERBOSE,
)
_LICENSE = re.compile(
    r"copyright|\(c\)\s*\d{4}|licen[sc]ed (?:under|to)|spdx-license|all rights reserved|permission is hereby granted|"
    r"redistribution and use|without (?:any )?warrant|released under|free software|this file is part of|free to use|terms of use|under the terms of|"
    r"(?:apache|mit|bsd|gnu|mozilla)\b.{0,40}licen[sc]e",
    re.IGNORECASE,
)


def head_comments(text: str) -> list[str]:
    """Return the comments (and module docstrings) above the first code of a file. Comment lines in a row are one."""
    return [text[start:end] for start, end in _spans(text)]


def without_license_header(text: str) -> str:
    """Return a file's text without the comments at the head that state a copyright or a license."""
    removed = [(start, end) for start, end in _spans(text) if _LICENSE.search(text, start, end)]
    for start, end in reversed(removed):
        text = text[:start] + text[end:]
    return text


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each comment at the head of a file."""
    place = 0
    while match := _COMMENT.match(text, place, MAX_HEAD):
        if match.end() == place:
            return
        if match["skip"] is None:
            yield match.start(), match.end()
        place = match.end()
