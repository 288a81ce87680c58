"""Format code as fenced Markdown blocks."""

from __future__ import annotations

import re


def fence(*texts: str) -> str:
    """Return a fence of backticks that is longer than all runs of backticks in the texts, and has at least three."""
    longest = max((len(run) for text in texts for run in re.findall(r"`{3,}", text)), default=2)
    return "`" * (longest + 1)


def code_block(code: str, language: str = "python") -> str:
    """Format code as a fenced block, without empty lines at the start and the end."""
    code = code.strip("\n")
    mark = fence(code)
    return f"{mark}{language}\n{code}\n{mark}"
