"""Write the difference of two versions of some files as a patch that `git apply` and `patch -p1` read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

ABSENT = "/dev/null"
CONTEXT_LINES = 3
_NO_LINE_END = "\\ No newline at end of file"


def unified_patch(before: Mapping[str, str | None], after: Mapping[str, str | None]) -> str:
    """Return a patch of all files whose text differs, in the order of their paths. Return "" if no file differs.

    Args:
        before: text of each file before the change, keyed by path. None or no entry stands for a file that is absent.
        after: the same after the change.
    """
    paths = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return "".join(_file_patch(path, before.get(path), after.get(path)) for path in paths)


def _file_patch(path: str, before: str | None, after: str | None) -> str:
    head = [f"diff --git a/{path} b/{path}\n"]
    if before is None:
        head.append("new file mode 100644\n")
    if after is None:
        head.append("deleted file mode 100644\n")
    old, new = ABSENT if before is None else f"a/{path}", ABSENT if after is None else f"b/{path}"
    lines = difflib.unified_diff(_lines(before), _lines(after), old, new, n=CONTEXT_LINES)
    return "".join([*head, *_marked(lines)])


def _lines(text: str | None) -> list[str]:
    """Split a text at `\\n` only. Other line ends belong to the lines, as they do for git."""
    lines = (text or "").split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _marked(lines: Iterator[str]) -> Iterator[str]:
    """Yield the lines of a patch. A line without a line end is followed by git's mark for it."""
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n{_NO_LINE_END}\n"


def changed_lines(patch: str) -> int:
    """Count the added and the removed lines of a patch."""
    return sum(line[:1] in ("+", "-") and not line.startswith(("+++ ", "--- ")) for line in patch.split("\n"))
