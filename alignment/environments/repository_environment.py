"""Built-in environment `repository`: read, search and change the files of a repository, and run the visible tests."""

from __future__ import annotations

import itertools
import json
from typing import Any

from alignment.environments.program_environments import describe
from alignment.environments.repository_view import MOST_MATCHES, RepositoryView
from alignment.environments.rollout_environment import ToolError
from alignment.grading import Grader, RemoteGrader

MOST_PATHS = 300
"""Largest number of paths that one result lists."""
LINES = 200
"""Number of lines that are read if no last line is given."""


class RepositoryEnvironment:
    """Tools that change a repository. All changes together are graded, whether they were submitted or not."""

    waits_for_sandbox = True

    def __init__(self, grader: Grader | RemoteGrader) -> None:
        self._grader = grader
        self._tests: dict[str, Any] = {}
        self._view: RepositoryView | None = None
        self._submitted = False

    def reset(self, visible_tests: str) -> None:
        """Begin a rollout with the unchanged repository."""
        self._tests = json.loads(visible_tests)
        self._view = RepositoryView(self._tests)  # type: ignore[arg-type]
        self._submitted = False

    @property
    def submission(self) -> str | None:
        """All changes as a patch. Empty if nothing was changed."""
        return None if self._view is None else self._view.patch()

    def _opened(self, change: bool = False) -> RepositoryView:
        assert self._view is not None, "`reset` comes before the first call"
        if change and self._submitted:
            raise ToolError("the changes were submitted: answer without a call")
        return self._view

    def list_files(self, folder: str = "") -> str:
        """List the files of the repository.

        Args:
            folder: Folder whose files are listed. Without it, all files are listed.
        """
        paths = self._opened().paths(folder)
        more = f"\n({len(paths) - MOST_PATHS} more files: list a folder)" if len(paths) > MOST_PATHS else ""
        return "\n".join(paths[:MOST_PATHS]) + more

    def read_file(self, path: str, first: int = 1, last: int = 0) -> str:
        """Read lines of a file.

        Args:
            path: Path of the file, relative to the repository.
            first: Number of the first line.
            last: Number of the last line. Without it, 200 lines are read.
        """
        lines = self._opened().text(path).split("\n")
        if lines[-1] == "":
            lines.pop()
        last = min(last or first + LINES - 1, len(lines))
        if not lines:
            return f"({path} is empty)"
        if not 1 <= first <= last:
            raise ToolError(f"{path} has {len(lines)} lines")
        return f"({path}, lines {first} to {last} of {len(lines)})\n" + "\n".join(lines[first - 1 : last])

    def search(self, pattern: str, folder: str = "", regex: bool = False) -> str:
        """Search for lines that contain a text.

        Args:
            pattern: The text.
            folder: Folder whose files are searched. Without it, all files are searched.
            regex: Whether the pattern is a regular expression of Python.
        """
        if not pattern:
            raise ToolError("`pattern` is empty")
        matches = list(itertools.islice(self._opened().matches(pattern, folder, regex), MOST_MATCHES + 1))
        more = [f"(more than {MOST_MATCHES} lines match)"] if len(matches) > MOST_MATCHES else []
        return "\n".join([*matches[:MOST_MATCHES], *more]) or "(no line matches)"

    def edit_file(self, path: str, search: str, replace: str) -> str:
        """Replace a text in a file, or make a new file.

        Args:
            path: Path of the file, relative to the repository.
            search: The text to replace, exactly as it is in the file, where it occurs once. Empty for a new file.
            replace: The new text.
        """
        self._opened(change=True).replace(path, search, replace)
        return f"{path} is changed."

    def apply_patch(self, patch: str) -> str:
        """Apply a patch in git's form to the repository.

        Args:
            patch: The patch, with lines `--- a/PATH`, `+++ b/PATH` and `@@ -1,2 +1,2 @@`.
        """
        return f"{', '.join(self._opened(change=True).apply(patch))}: changed."

    def run_tests(self) -> str:
        """Run the visible tests on the changed repository, and see which of them fail and how."""
        view = self._opened()
        if not self._tests["visible"]:
            return "There are no visible tests."
        task = {"kind": "repository", "language": "python", "tests": json.dumps(self._tests)}
        verdict = self._grader.submit(task, view.patch()).result()
        if verdict.status == "error":
            raise RuntimeError(f"the visible tests can't be run: {verdict.reason}: {verdict.detail}")
        if len(verdict.tests) > 1 and len(set(verdict.tests)) == 1 and verdict.status != "passed":
            return f"No visible test passes: {verdict.reason}: {verdict.detail}"
        return describe(verdict)

    def submit(self) -> str:
        """Submit all changes. After that, answer without a call."""
        view = self._opened(change=True)
        if not view.patch():
            raise ToolError("nothing is changed yet")
        self._submitted = True
        return "The changes are submitted."
