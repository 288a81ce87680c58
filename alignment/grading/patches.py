"""Patches in git's form: write the difference between files, and apply a patch that a model may have written.

A hunk is found by its lines, not by its line number: models often write wrong numbers and counts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

NO_NEWLINE = "\\ No newline at end of file"
Contents = Mapping[str, bytes | None]
"""Contents of files by path. None stands for a file that does not exist."""
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_UNSUPPORTED = (
    "rename from ",
    "rename to ",
    "copy from ",
    "copy to ",
    "GIT binary patch",
    "Binary files ",
    "old mode ",
)


class PatchError(ValueError):
    """Raised if a text is not a patch, or if a patch does not fit the files."""


@dataclass
class _Hunk:
    line: int
    """Line number in the old file at which the hunk should begin."""
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)


@dataclass
class _FilePatch:
    old: str | None
    """Path of the old file. None for a new file."""
    new: str | None
    """Path of the new file. None for a deleted file."""
    hunks: list[_Hunk] = field(default_factory=list)


def patch_of(before: Contents, after: Contents) -> str:
    """Return the difference between the contents of files as a patch in git's form.

    Args:
        before: the files before the change. A path that is missing stands for a file that does not exist.
        after: the changed files.
    """
    parts = []
    for path in sorted(after):
        old, new = before.get(path), after[path]
        if old == new:
            continue
        lines = [f"diff --git {_quoted(f'a/{path}')} {_quoted(f'b/{path}')}\n"]
        if old is None or new is None:
            lines.append(f"{'new' if old is None else 'deleted'} file mode 100644\n")
        names = (
            "/dev/null" if old is None else _quoted(f"a/{path}"),
            "/dev/null" if new is None else _quoted(f"b/{path}"),
        )
        for line in difflib.unified_diff(_lines(old), _lines(new), *names):
            lines.append(line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}\n")
        parts.append("".join(lines))
    return "".join(parts)


def apply_patch(patch: str, read: Callable[[str], bytes | None]) -> dict[str, bytes | None]:
    """Apply a patch to files.

    Args:
        patch: the patch. An empty text changes nothing.
        read: returns the content of a file, or None if the file does not exist. May raise ValueError.

    Returns:
        The new contents of the changed files, None for deleted ones.

    Raises:
        PatchError: the text is not a patch, or a hunk does not fit exactly one place of its file.
    """
    changes: dict[str, bytes | None] = {}
    for file in _parsed(patch):
        path = file.new or file.old
        assert path is not None
        before = changes[path] if path in changes else read(path)
        if file.old is None and before is not None:
            raise PatchError(f"{path}: the patch makes this file, but it exists already")
        if file.old is not None and before is None:
            raise PatchError(f"{path}: there is no such file")
        after = _applied(path, _lines(before), file.hunks)
        if file.new is None and after:
            raise PatchError(f"{path}: the patch deletes this file, but does not remove all of its lines")
        changes[path] = None if file.new is None else "".join(after).encode("utf-8", "surrogateescape")
    return changes


def _lines(content: bytes | None) -> list[str]:
    return [] if content is None else _split(content.decode("utf-8", "surrogateescape"))


def _split(text: str) -> list[str]:
    r"""Split a text after each `\n`. `str.splitlines` also splits at other characters."""
    return [line for line in re.split(r"(?<=\n)", text) if line]


def _applied(path: str, lines: list[str], hunks: list[_Hunk]) -> list[str]:
    shift = 0
    for number, hunk in enumerate(hunks, 1):
        place = _place(lines, hunk, shift)
        if place is None:
            shown = "".join(hunk.old[:3]).rstrip("\n")
            raise PatchError(f"{path}: hunk {number} does not fit: these lines are not in the file:\n{shown}")
        lines = [*lines[:place], *hunk.new, *lines[place + len(hunk.old) :]]
        shift += len(hunk.new) - len(hunk.old)
    return lines


def _place(lines: list[str], hunk: _Hunk, shift: int) -> int | None:
    """Return the index of the line at which the old lines of a hunk are, as near as possible to the hunk's number."""
    if not hunk.old:
        return min(max(hunk.line + shift, 0), len(lines))
    expected = hunk.line - 1 + shift
    last = len(lines) - len(hunk.old)
    fits = [
        start
        for start in range(last + 1)
        if lines[start] == hunk.old[0] and lines[start : start + len(hunk.old)] == hunk.old
    ]
    return min(fits, key=lambda start: abs(start - expected), default=None)


def _parsed(patch: str) -> list[_FilePatch]:
    lines = _split(patch)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    files: list[_FilePatch] = []
    place, name, mode = 0, "", ""
    while place < len(lines):
        line = lines[place]
        if line.startswith(_UNSUPPORTED):
            raise PatchError(f"{line.strip()!r} is not supported: write the removed and the added lines of text files")
        if line.startswith("diff --git "):
            if mode:
                files.append(_without_hunks(name, mode))
            name, mode = line, ""
        elif line.startswith(("new file mode", "deleted file mode")):
            mode = line.split()[0]
        elif line.startswith("--- ") and place + 1 < len(lines) and lines[place + 1].startswith("+++ "):
            old, new = _path(line[4:]), _path(lines[place + 1][4:])
            if old is None and new is None:
                raise PatchError("a file of the patch has /dev/null on both sides")
            if old is not None and new is not None and old != new:
                raise PatchError(f"the patch renames {old} to {new}: delete the old file and make the new one")
            files.append(_FilePatch(old, new))
            name = mode = ""
            place += 1
        elif line.startswith("@@"):
            if not files:
                raise PatchError("a hunk comes before the lines `--- a/PATH` and `+++ b/PATH`")
            hunk, place = _hunk(lines, place)
            files[-1].hunks.append(hunk)
            continue
        place += 1
    if mode:
        files.append(_without_hunks(name, mode))
    if not files and patch.strip():
        raise PatchError("this is not a patch: it needs the lines `--- a/PATH`, `+++ b/PATH` and `@@ -1,2 +1,2 @@`")
    return files


def _without_hunks(line: str, mode: str) -> _FilePatch:
    """Return the patch of an empty file, which git writes without hunks."""
    match = re.fullmatch(r"diff --git (\"?a/.*) (\"?b/.*)\n", line)
    if match is None:
        raise PatchError(f"{line.strip()!r} does not name the files")
    path = _path(match[2])
    return _FilePatch(None, path) if mode == "new" else _FilePatch(path, None)


def _hunk(lines: list[str], place: int) -> tuple[_Hunk, int]:
    """Parse the hunk whose `@@` line is at `place`. Return the hunk, and the index of the line after it."""
    match = _HUNK.match(lines[place])
    if match is None:
        raise PatchError(f"{lines[place].strip()!r} is not the head of a hunk, such as `@@ -1,2 +1,2 @@`")
    hunk = _Hunk(int(match[1]))
    olds, news = (int(count) if count else 1 for count in (match[2], match[4]))
    place += 1
    while place < len(lines):
        line = lines[place]
        complete = len(hunk.old) >= olds and len(hunk.new) >= news
        if line.startswith("\\"):
            _without_newline(hunk, lines[place - 1][:1])
        elif line[0] not in " +-\n" or (complete and (line == "\n" or line.startswith(("--- ", "-- \n")))):
            break
        else:
            text = line if line == "\n" else line[1:]
            if line[0] != "+":
                hunk.old.append(text)
            if line[0] != "-":
                hunk.new.append(text)
        place += 1
    return hunk, place


def _without_newline(hunk: _Hunk, sign: str) -> None:
    """Remove the line end of the last line, because of the mark after it."""
    for lines in [hunk.old] if sign == "-" else [hunk.new] if sign == "+" else [hunk.old, hunk.new]:
        if lines:
            lines[-1] = lines[-1].removesuffix("\n")


def _quoted(path: str) -> str:
    """Return a path as git writes it: quoted if it has special characters."""
    if re.fullmatch(r"[^\x00-\x1f\"\\\x7f-\U0010ffff]*", path):
        return path
    raw = path.encode("utf-8", "surrogateescape")
    return '"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03o}" for b in raw) + '"'


def _path(text: str) -> str | None:
    """Return the path in a line of a patch, without `a/` or `b/`. None for /dev/null."""
    text = text.rstrip("\n").partition("\t")[0].strip()
    if text == "/dev/null":
        return None
    if text.startswith('"') and text.endswith('"'):
        raw = re.sub(rb"\\([0-7]{3}|.)", _unescaped, text[1:-1].encode("utf-8", "surrogateescape"))
        text = raw.decode("utf-8", "surrogateescape")
    return text[2:] if text.startswith(("a/", "b/")) else text


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if len(code) == 3:
        return bytes([int(code, 8) & 0xFF])
    return {b"n": b"\n", b"t": b"\t", b"r": b"\r"}.get(code, code)
