"""A repository as one rollout sees it: the files of a snapshot, with the rollout's changes in memory.

Nothing is copied: a view costs microseconds, and its changes are written to the sandbox only when tests run.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import cast

from alignment.environments.rollout_environment import ToolError
from alignment.grading.patched_repository import CHANGED_BYTES, ProtectedFile, check_change, read_file, without_withheld
from alignment.grading.patches import PatchError, apply_patch, patch_of
from alignment.grading.repository import Snapshot, open_snapshot, store
from alignment.grading.task import PatchTests

SEARCH_SECONDS = 5.0
LONGEST_PATTERN = 200
LONGEST_LINE = 500
"""Longer lines are shortened before a regular expression is searched in them."""
MOST_REPETITIONS = 2
MOST_MATCHES = 50


class RepositoryView:
    """The files of a snapshot without the withheld tests, with changes.

    Args:
        tests: the tests of the task. Those in `withheld` are removed from the test files.
    """

    def __init__(self, tests: PatchTests) -> None:
        self.snapshot = _snapshot(tests["suite"], store())
        self._shown = _shown_tests(
            self.snapshot.folder, tests["suite"], tuple(tests["visible"]), tuple(tests.get("withheld", ()))
        )
        self._changes: dict[str, bytes | None] = {}
        self._patch: str | None = ""

    def paths(self, folder: str = "") -> list[str]:
        """Return the sorted paths of the files below a folder. Raises ToolError if there are none."""
        paths = {*_paths(self.snapshot.tree), *self._changes} - {
            path for path, content in self._changes.items() if content is None
        }
        base = folder.strip().removeprefix("./").rstrip("/")
        if base in ("", "."):
            return sorted(paths)
        below = sorted(path for path in paths if path.startswith(f"{base}/"))
        if not below:
            raise ToolError(f"the repository has no folder {folder!r}")
        return below

    def content(self, path: str) -> bytes | None:
        """Return the content of a file, or None if there is no such file. Raises ToolError for a wrong path."""
        if path in self._changes:
            return self._changes[path]
        if path in self._shown:
            return self._shown[path]
        try:
            return read_file(self.snapshot, path)
        except ProtectedFile as error:
            raise ToolError(str(error)) from None

    def text(self, path: str) -> str:
        """Return the text of a file. Raises ToolError if there is no such file, or if it is not text in UTF-8."""
        content = self.content(path)
        if content is None:
            raise ToolError(f"the repository has no file {path!r}{self._advice(path)}")
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise ToolError(f"{path} is not text in UTF-8") from None

    def _advice(self, path: str) -> str:
        name = path.rpartition("/")[2]
        same = [other for other in self.paths() if other.rpartition("/")[2] == name]
        return f"; there is {', '.join(same[:3])}" if same else ""

    def replace(self, path: str, search: str, replacement: str) -> None:
        """Replace the only place of a text in a file. With an empty text, make a new file.

        Raises ToolError if the text is not in the file exactly once, or if the file may not be changed.
        """
        if not search:
            if self.content(path) is not None:
                raise ToolError(f"{path} exists already: give the lines to replace in `search`")
            self._change({path: _encoded(replacement)})
            return
        text = self.text(path)
        count = text.count(search)
        if count != 1:
            problem = f"occurs {count} times: give more lines around it" if count else "does not occur"
            raise ToolError(f"`search` {problem} in {path}")
        self._change({path: _encoded(text.replace(search, replacement))})

    def apply(self, patch: str) -> list[str]:
        """Apply a patch, and return the changed paths. Raises ToolError if the patch does not fit."""
        try:
            changes = apply_patch(patch, self.content)
        except PatchError as error:
            raise ToolError(str(error)) from None
        if not changes:
            raise ToolError("the patch is empty")
        self._change(changes)
        return sorted(changes)

    def _change(self, changes: dict[str, bytes | None]) -> None:
        together = {**self._changes, **changes}
        for path, content in changes.items():
            try:
                check_change(self.snapshot, path, content)
            except ProtectedFile as error:
                raise ToolError(str(error)) from None
            if any(other.startswith(f"{path}/") or path.startswith(f"{other}/") for other in together):
                raise ToolError(f"{path} can't be a file and a folder")
        if sum(len(content or b"") for content in together.values()) > CHANGED_BYTES:
            raise ToolError(f"all changed files together may have {CHANGED_BYTES} bytes")
        self._changes = together
        self._patch = None

    def patch(self) -> str:
        """Return all changes as a patch."""
        if self._patch is None:
            before = {path: read_file(self.snapshot, path) for path in self._changes}
            self._patch = patch_of(before, self._changes)
        return self._patch

    def matches(self, pattern: str, folder: str, regex: bool) -> Iterator[str]:
        """Yield `path:number: line` for each line that contains a text or a regular expression.

        Raises ToolError if the expression is not allowed, or if the search takes too long.
        """
        expression = _expression(pattern) if regex else None
        deadline = time.monotonic() + SEARCH_SECONDS
        changed = {**self._shown, **self._changes}
        for path in self.paths(folder):
            content = changed.get(path)
            if content is None:  # a listed path needs no check
                content = (self.snapshot.tree / path).read_bytes()
            if b"\0" in content:
                continue
            text = content.decode("utf-8", "replace")
            if expression is None and pattern not in text:
                continue
            for number, line in enumerate(text.split("\n"), 1):
                if pattern in line if expression is None else expression.search(line[:LONGEST_LINE]):
                    yield f"{path}:{number}: {line.strip()[:LONGEST_LINE]}"
                if number % 1000 == 1 and time.monotonic() > deadline:
                    raise ToolError("the search takes too long: search in a smaller folder")


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ToolError("the text has characters that UTF-8 can't encode") from None


def _expression(pattern: str) -> re.Pattern[str]:
    """Compile a regular expression whose search takes little time for every text.

    `re` can't be interrupted, and takes exponential time for some expressions. Expressions with more than two repetitions,
    with a repeated group, or with a reference to a group are therefore refused.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ToolError(f"a pattern has at most {LONGEST_PATTERN} characters")
    bare = re.sub(r"\[\^?\]?(?:\\.|[^\]\\])*\]", "x", re.sub(r"\\[^0-9]", "x", pattern))
    if len(re.findall(r"(?<!\()[*+?{]", bare)) > MOST_REPETITIONS or re.search(r"\)[*+?{]|\\[0-9]|\(\?(?![:i])", bare):
        raise ToolError(
            f"a pattern may have {MOST_REPETITIONS} repetitions, and no repeated group: search for a simpler text"
        )
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ToolError(f"{pattern!r} is not a regular expression: {error}") from None


@lru_cache(maxsize=32)
def _snapshot(identifier: str, folder: Path) -> Snapshot:
    return open_snapshot(identifier)


@lru_cache(maxsize=32)
def _paths(tree: Path) -> tuple[str, ...]:
    """Return the paths of all files of a tree, without links."""
    return tuple(
        str((Path(top) / name).relative_to(tree))
        for top, _, names in os.walk(tree)
        for name in names
        if not (Path(top) / name).is_symlink()
    )


@lru_cache(maxsize=256)
def _shown_tests(folder: Path, suite: str, visible: tuple[str, ...], withheld: tuple[str, ...]) -> dict[str, bytes]:
    tests = cast(PatchTests, {"suite": suite, "visible": list(visible), "hidden": [], "withheld": list(withheld)})
    return without_withheld(_snapshot(suite, folder.parent), tests)
