"""Read what a commit changed: code, tests, and other files, each before and after the commit."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from data_builders.repositories import git
from data_builders.repositories.history import Commit
from data_builders.repositories.text_decoding import is_plain_path
from data_builders.tasks.history.source_patches import unified_patch
from data_builders.tasks.python.python_suite import MAX_FILE, is_documentation, is_source, is_test_file

SETTINGS_FILES = frozenset(
    ("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "setup.cfg", "pyproject.toml")
)
"""Files with settings of pytest and of the build. A model can't know what the tests of a commit need here, so that tasks
begin with the files of the commit."""


@dataclass(frozen=True)
class CommitChange:
    """The changes of one commit, by the part of the files."""

    id: str
    code: dict[str, tuple[bytes | None, bytes | None]]
    """Content of the changed Python files and data files of packages before and after the commit, keyed by path. None
    stands for an absent file."""
    tests: dict[str, bytes | None]
    """Content of changed test files, data in folders of tests, and settings of pytest after the commit, keyed by path."""

    @property
    def sources(self) -> list[str]:
        """Paths of the changed Python files that are not tests."""
        return [path for path in self.code if is_source(path)]

    @property
    def test_files(self) -> list[str]:
        """Paths of the changed Python files with tests that exist after the commit."""
        return [path for path, content in self.tests.items() if path.endswith(".py") and content is not None]

    def patch(self) -> str | None:
        """Return the change of the code as a patch, or None if a changed file is not UTF-8 text with `\\n` line ends."""
        versions: list[dict[str, str | None]] = [{}, {}]
        for path, pair in self.code.items():
            for texts, content in zip(versions, pair, strict=True):
                if content is not None and (b"\r" in content or b"\0" in content):
                    return None
                try:
                    texts[path] = None if content is None else content.decode("utf-8")
                except UnicodeDecodeError:
                    return None
        return unified_patch(*versions)


def read_change(commit: Commit, reader: git.BlobReader) -> CommitChange | str:
    """Read the changes of a commit.

    Args:
        commit: the commit, with the object ids of its changes.
        reader: reads the objects.

    Returns:
        The change, or the reason why no task can be made of the commit.
    """
    code: dict[str, tuple[bytes | None, bytes | None]] = {}
    tests: dict[str, bytes | None] = {}
    for change in commit.changes:
        if not is_plain_path(change.path):
            return "unusual_path"
        if not _is_needed(change.path):
            continue
        pair = [reader.read(name, MAX_FILE) if name else None for name in (change.before, change.after)]
        if any(content is None and name for content, name in zip(pair, (change.before, change.after), strict=True)):
            return "unreadable"
        if is_test_file(change.path) or posixpath.basename(change.path) in SETTINGS_FILES:
            tests[change.path] = pair[1]
        else:
            code[change.path] = (pair[0], pair[1])
    change_set = CommitChange(commit.id, code, tests)
    if not change_set.sources:
        return "no_code_changed"
    return change_set if change_set.test_files else "no_tests_changed"


def _is_needed(path: str) -> bool:
    """Whether a task needs the change of a file: not of documentation, hidden folders, and other files at the top."""
    if is_test_file(path) or posixpath.basename(path) in SETTINGS_FILES or is_source(path):
        return True
    return "/" in path and not path.startswith(".") and not is_documentation(path)
