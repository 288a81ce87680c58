"""Built-in environments: run Python programs, and submit solutions to visible tests. Programs run in the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.environments.rollout_environment import ToolError
from alignment.grading import Grader, RemoteGrader, Verdict
from alignment.grading.python import ending, reported_failure

SHOWN_TESTS = 5
"""Largest number of failed tests that a result describes. Further failed tests are only counted."""


class PythonEnvironment:
    """A tool that runs Python programs. The program that is graded is taken from the model's last answer."""

    waits_for_sandbox = True

    def __init__(self, grader: Grader) -> None:
        self._grader = grader

    def reset(self) -> None:
        """Begin a rollout. Nothing has to be reset, since programs leave nothing behind."""

    def python(self, code: str) -> str:
        """Run a Python program and return what it prints. Every call starts anew, without network and input.

        Args:
            code: The complete program.
        """
        run = self._grader.run(_plain_source(code))
        printed = (run.stdout + run.stderr).decode("utf-8", "replace")
        if run.stop is not None or run.code < 0:
            return f"{printed}\n(stopped: {ending(run)[0]})"
        if run.code:
            reports = run.messages(1)
            detail = reported_failure(reports[0]).detail if reports else ""
            return f"{printed}{detail}\n(exit code {run.code})"
        return printed or "(no output)"


class VisibleTestsEnvironment:
    """A tool that runs the visible tests of a task on a solution. The last solution is graded by the hidden tests."""

    def __init__(self, grader: Grader | RemoteGrader) -> None:
        self._grader = grader
        self._task: Mapping[str, Any] = {}
        self.submission: str | None = None

    def reset(self, **columns: Any) -> None:
        """Begin a rollout: keep the task's visible tests, but not the hidden tests."""
        names = ("kind", "language", "entry_point")
        self._task = {name: columns.get(name) for name in names} | {"tests": columns["visible_tests"]}
        self.submission = None

    def submit(self, program: str) -> str:
        """Submit a solution, and see which of the visible tests fail. The last solution that is submitted counts.

        Args:
            program: The complete source of the solution.
        """
        source = _plain_source(program)
        verdict = self._grader.submit(self._task, source).result()
        if verdict.status == "error":
            raise RuntimeError(f"the visible tests can't be run: {verdict.reason}: {verdict.detail}")
        self.submission = source
        return describe(verdict)


def describe(verdict: Verdict) -> str:
    """Return a verdict on visible tests as text for the model."""
    total = max(len(verdict.tests), 1)
    failures = [(number, test) for number, test in enumerate(verdict.tests, 1) if not test.passed]
    if verdict.status == "passed":
        return f"{total} of {total} visible tests pass."
    lines = [f"{total - len(failures)} of {total} visible tests pass."]
    lines += [f"test {number}: {test.reason}: {test.detail}" for number, test in failures[:SHOWN_TESTS]]
    if len(failures) > SHOWN_TESTS:
        lines.append(f"{len(failures) - SHOWN_TESTS} more tests fail.")
    return "\n".join(lines)


def _plain_source(text: str) -> str:
    if text.lstrip().startswith("```"):
        raise ToolError("give the source alone, without a Markdown fence")
    return text
