"""Measure how much of a file's code is commented out or replaced by remarks."""

from __future__ import annotations

import re

from data_builders.parsing.file_head import without_license_header
from data_builders.parsing.languages import line_comment

_SLASH_TOKENS = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)
    |(?P<documentation>/\*[*!](?!/).*?(?:\*/|\Z)|//[/!][^\n]*)
    |(?P<comment>/\*.*?(?:\*/|\Z)|//[^\n]*)""",
    re.DOTALL | re.VERBOSE,
)


def comment_share(lines: list[str], language: str) -> float | None:
    """Estimate the share of characters in whole-line comments, or return None if the comment syntax is unknown.

    The estimate counts the license header and the documentation of functions as comments, and may take a `/*` in a
    string for the start of a comment. `remark_share` is exact but slower.
    """
    marker = line_comment(language)
    if not marker:
        return None
    stripped = list(map(str.strip, lines))
    total = sum(map(len, stripped))
    if marker != "//":
        commented = sum(len(line) for line in stripped if line.startswith(marker))
        return commented / total if total else 0.0
    commented = 0
    block = False
    for line in stripped:
        if block or line[:1] == "/":
            if not block and line.startswith("/*"):
                block = True
            if block or line.startswith("//"):
                commented += len(line)
            if block and "*/" in line:
                block = False
    return commented / total if total else 0.0


def remark_share(text: str, language: str) -> float:
    """Return the share of a file that consists of remarks: comments that are no license header and no documentation.

    License header and documentation comments (`/**`, `///`, `//!`) are left out of the total too. A file in which no
    code is left has the share 1.
    """
    text = without_license_header(text)
    marker = line_comment(language)
    if marker == "//":
        remarks = sum(len(_visible(match["comment"])) for match in _SLASH_TOKENS.finditer(text) if match["comment"])
        text = _SLASH_TOKENS.sub(lambda match: "" if match["documentation"] else match.group(), text)
    else:
        remarks = sum(len(_visible(line)) for line in text.split("\n") if line.lstrip().startswith(marker))
    total = len(_visible(text))
    return remarks / total if total else 1.0


def _visible(text: str) -> str:
    return "".join(text.split())
