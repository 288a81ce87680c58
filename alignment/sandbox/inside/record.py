"""Collects the results of the tests of one task in the tester's process."""

from __future__ import annotations

from typing import Any

from .proxy import CandidateGone, TesterClient
from .remote_object import NotPlain

MAX_RESULTS = 10_000


class Record:
    """Collects test results. Every assert that counts as one test runs in the body of ``with record:``."""

    def __init__(self, client: TesterClient, entry_point: str | None) -> None:
        self.client = client
        self.entry_point = entry_point
        self.results: list[tuple[str, str]] = []
        self.uncounted: list[str] = []
        """Tests that were skipped or are expected to fail. They show nothing about the program and do not count."""
        self.counted = 0
        """Number of passed asserts that are not separate tests, for example asserts in a loop."""
        self.functions_entered: set[str] = set()
        self.refusal: str | None = None
        """Reason why the task cannot be judged. None if it can be judged."""
        self._calls_before = 0

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        if kind is None:
            self.passed()
            return True
        if isinstance(error, Exception | NotPlain):
            self.failed(error)
            return True
        return False

    def begin(self) -> None:
        """Begin a test: forget the candidate's earlier errors, and note how many calls there were so far."""
        self.client.errors.clear()
        self._calls_before = self.client.calls

    def passed(self) -> None:
        """Record a passed test, or a failed test if an exception of the candidate has ended a loop of the test."""
        if not self.add_unhandled():
            self.add("passed", "")
        self.client.errors.clear()

    def failed(self, error: BaseException | None) -> None:
        """Record a test that ended with an exception."""
        self.add(self._reason(error), f"{type(error).__name__}: {error}" if not _is_assertion(error) else str(error))
        self.client.raised.take_unhandled()
        self.client.errors.clear()

    def failed_because(self, detail: str) -> None:
        """Record a test that failed without an exception."""
        self.add("exception" if self.client.errors else "wrong_answer", detail)
        self.client.raised.take_unhandled()
        self.client.errors.clear()

    def skipped(self, name: str, detail: str) -> None:
        """Handle a skipped test.

        If the test called the program before it was skipped, record a failed test; otherwise record nothing.
        """
        if self.client.calls > self._calls_before:
            self.add("not_run", f"{name} was skipped after it had called the program: {detail}")
        else:
            self.uncounted.append(f"{name} is skipped")
        self.client.raised.take_unhandled()
        self.client.errors.clear()

    def expected_failure(self, name: str) -> None:
        """Record a test that is expected to fail. It is not counted, because any wrong program would pass it."""
        self.uncounted.append(f"{name} is expected to fail")
        self.client.raised.take_unhandled()
        self.client.errors.clear()

    def add_unhandled(self) -> bool:
        """Record a failed test if an exception of the candidate ended a loop of the test without an error, such as
        StopIteration.

        Return whether a failed test was recorded.
        """
        error = self.client.raised.take_unhandled()
        if error is not None:
            self.add("exception", f"{type(error).__name__} of the program ended a loop of the test")
        return error is not None

    def count(self) -> None:
        """Count an assert that passed but is not a separate test, for example an assert in a loop."""
        self.counted += 1

    def entered(self, name: str) -> None:
        """Note that a function of the test code was called."""
        self.functions_entered.add(name)

    def add(self, reason: str, detail: str) -> None:
        if len(self.results) < MAX_RESULTS or reason != "passed":
            self.results.append((reason, detail[:300]))

    def _reason(self, error: BaseException | None) -> str:
        if isinstance(error, CandidateGone):
            return "died"
        if self.client.errors:
            return "exception"
        if isinstance(error, NotPlain):
            return "not_plain_data"
        return "wrong_answer" if _is_assertion(error) else "exception"


def _is_assertion(error: BaseException | None) -> bool:
    return isinstance(error, AssertionError)
