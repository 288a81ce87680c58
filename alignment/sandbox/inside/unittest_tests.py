"""Runs unittest classes (with class and module fixtures) and doctests, and records one result per test."""

from __future__ import annotations

import doctest
import unittest
from typing import Any

from .record import Record
from .steering import RaisedExceptions


class _RecordingResult(unittest.TestResult):
    """A unittest result that passes the result of every test on to a `Record`."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self._record = record

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._record.begin()

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._record.passed()

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._record.failed(err[1])

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._record.failed(err[1])

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._record.failed(err[1])

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._record.skipped(str(test), reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._record.expected_failure(str(test))

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._record.failed_because(f"{test} passed, but is expected to fail")


def note_assert_raises(raised: RaisedExceptions) -> None:
    """Make `assertRaises` say which exceptions it handles.

    Handled exceptions are recognized by their traceback, which `assertRaises` removes.
    """
    context: Any = unittest.case._AssertRaisesContext
    original = context.__exit__

    def leave(self: Any, kind: Any, error: BaseException | None, trace: Any) -> bool:
        raised.discard(error)
        return bool(original(self, kind, error, trace))

    context.__exit__ = leave


def run_classes(classes: list[type[unittest.TestCase]], record: Record) -> None:
    """Run the tests of unittest classes."""
    loader = unittest.TestLoader()
    unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in classes).run(_RecordingResult(record))


def run_doctests(docstrings: dict[str, str], names: dict[str, Any], record: Record) -> None:
    """Run the examples in docstrings. Every docstring with examples counts as one test.

    Args:
        docstrings: Docstrings, by the name of their function or class.
        names: The test code's globals.
        record: Receives the results.
    """
    runner = doctest.DocTestRunner(verbose=False)
    for name, text in docstrings.items():
        test = doctest.DocTestParser().get_doctest(text, {}, name, "tests.py", 0)
        test.globs = names  # not an argument of get_doctest, which copies its globals to a plain dict
        record.begin()
        output: list[str] = []
        result = runner.run(test, out=output.append, clear_globs=False)
        if result.failed:
            record.failed_because("".join(output)[-300:])
        elif result.attempted:
            record.passed()
