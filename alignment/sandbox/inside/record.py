"""The results of the tests of one task, as the tester collects them."""

from __future__ import annotations

from typing import Any

from .proxy import CandidateGone, TesterClient
from .remote_object import NotPlain

MAX_RESULTS = 10_000


class Record:
    """Collects the results of the tests. It is also the context manager around every assert that is a test."""

    def __init__(self, client: TesterClient, entry_point: str | None) -> None:
        self.client = client
        self.entry_point = entry_point
        self.results: list[tuple[str, str]] = []
        self.uncounted: list[str] = []
        """Tests that are skipped or expected to fail: they show nothing about the program."""
        self.counted = 0
        """Asserts that passed and are no tests of their own, for example in a loop."""
        self.functions_entered: set[str] = set()
        self.refusal: str | None = None
        """Why the task cannot be judged."""
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
        """Note that a test begins."""
        self.client.errors.clear()
        self._calls_before = self.client.calls

    def passed(self) -> None:
        """Record a test that passed, unless an exception of the candidate ended it without anyone's notice."""
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
        """Record a test that was skipped: it fails if it called the program first, else it is not counted."""
        if self.client.calls > self._calls_before:
            self.add("not_run", f"{name} was skipped after it had called the program: {detail}")
        else:
            self.uncounted.append(f"{name} is skipped")
        self.client.raised.take_unhandled()
        self.client.errors.clear()

    def expected_failure(self, name: str) -> None:
        """Record a test that is expected to fail. It is not counted: any wrong program would pass it."""
        self.uncounted.append(f"{name} is expected to fail")
        self.client.raised.take_unhandled()
        self.client.errors.clear()

    def add_unhandled(self) -> bool:
        """Record a failure if an exception of the candidate was taken for the end of an iteration."""
        error = self.client.raised.take_unhandled()
        if error is not None:
            self.add("exception", f"{type(error).__name__} of the program ended a loop of the test")
        return error is not None

    def count(self) -> None:
        """Count an assert that passed and is no test of its own."""
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
