"""Remove characters that code listings add to code: the `+` and `-` of a diff, an interpreter's prompts, or line
numbers.
"""

from __future__ import annotations

import re
import textwrap

from alignment.evaluation.python_code import parses

_DIFF_TAGS = ("diff", "patch", "udiff")
_HEADER = re.compile(r"(?:---|\+\+\+) \S|@@|diff --git |index [0-9a-f]+\.\.|\\ No newline")
_PROMPT = re.compile(r"[ \t]*(?:>>>|\.\.\.)(?: |$)")
_IPYTHON = re.compile(r"[ \t]*(?:In \[\d*\]:|\.{3,}:)(?: |$)")
_PROMPTED = re.compile(r"^[ \t]*(?:>>> |In \[\d*\]: )", re.MULTILINE)
_UNPROMPTED = re.compile(r"^[ \t]*(?:(?:async )?def|class|import|from \w+ import)\b", re.MULTILINE)
"""Matches a line of code without a prompt. In a text with such a line, prompts are examples in a docstring."""
_NUMBER = re.compile(r"[ \t]*(\d+)(?:[ \t]*[:|│)]|\.(?=\s|$))?")


def without_listing_marks(code: str, tag: str = "") -> str:
    """Return code without a diff's signs, prompts or line numbers. Valid Python and other code is returned unchanged.

    Args:
        code: the content of a code block.
        tag: the tag of the block in lower case.
    """
    if is_diff(code, tag):
        return _new_side(code)
    if _PROMPTED.search(code) and not _UNPROMPTED.search(code) and not parses(code):
        return _session_input(code)
    return _unnumbered(code)


def is_diff(code: str, tag: str = "") -> bool:
    """Whether a block is a diff: its tag is `diff`, or every line starts like a line of a diff."""
    lines = [line for line in code.split("\n") if line.strip()]
    if not any(line.startswith("+") and not line.startswith("+++") for line in lines):
        return False
    if tag in _DIFF_TAGS:
        return True
    marked = all(line[0] in "+- \\" or _HEADER.match(line) for line in lines)
    both = any(line.startswith("-") for line in lines)  # an indented text whose lines start with `+` is not a diff
    return marked and (both or lines[0][0] != " ") and not parses(textwrap.dedent(code))


def _new_side(code: str) -> str:
    lines = []
    for line in code.split("\n"):
        if line.startswith("-") or _HEADER.match(line):
            continue
        lines.append(line[1:] if line[:1] in ("+", " ") else line)
    return "\n".join(lines)


def _session_input(code: str) -> str:
    """Return the input lines of an interpreter session, without prompts and output."""
    lines = []
    for line in code.split("\n"):
        match = _PROMPT.match(line) or _IPYTHON.match(line)
        if match:
            lines.append(line[match.end() :])
    return "\n".join(lines) + "\n"


def _unnumbered(code: str) -> str:
    """Remove line numbers if every line has one and they ascend by one. Otherwise return the code unchanged."""
    lines = code.rstrip().split("\n")
    first = next((index for index, line in enumerate(lines) if line.strip()), len(lines))
    lines = lines[first:]
    matches = [_NUMBER.match(line) for line in lines]
    if len(lines) < 2 or any(match is None for match in matches):
        return code
    numbers = [int(match[1]) for match in matches if match]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))) or parses(code):
        return code
    texts = [line[match.end() :] for line, match in zip(lines, matches, strict=True) if match]
    column = max(match.end() for match in matches if match)
    aligned = textwrap.dedent("\n".join(line[column:] for line in lines))
    after_numbers = textwrap.dedent("\n".join(texts))
    return aligned + "\n" if not parses(after_numbers) and parses(aligned) else after_numbers + "\n"
