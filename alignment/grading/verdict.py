"""Verdicts: the result of grading a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["passed", "failed", "error"]
PASSED: Status = "passed"
FAILED: Status = "failed"
ERROR: Status = "error"
NEVER_RAN = ("not_run", "syntax", "compile", "missing_entry_point", "forbidden", "too_long", "cut_off")
"""Reasons of a failure that mean that the test did not run at all."""
DETAIL = 500
"""Maximum number of characters of a program's output in a verdict."""


@dataclass(frozen=True)
class TestResult:
    """The result of one test."""

    __test__ = False  # not a test class of pytest

    reason: str
    """`passed`, or the reason of the failure: `wrong_answer`, `exception`, `timeout`, `memory`, `not_run`, ..."""
    detail: str = ""
    messages: int = field(default=0, compare=False)
    """Number of messages that the test sent to a program in another process. Each message costs both processes time."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", _encodable(self.detail))

    @property
    def passed(self) -> bool:
        return self.reason == PASSED


def _encodable(text: str) -> str:
    """Replace lone surrogates. A program may print them, but they cannot be written to logs or sent as JSON."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Verdict:
    """The result of grading one program on one task."""

    status: Status
    """`passed`, `failed` or `error`. `error` means that the program could not be judged because of the machine, the
    sandbox or the task."""
    reason: str
    """`passed`; for a failed program `wrong_answer`, `exception`, `timeout`, `memory`, `output_limit`, `syntax`,
    `compile`, `missing_entry_point`, `exit`, `died`, `not_plain_data`, `not_run`, `protocol`, `forbidden`, `too_long`
    or `cut_off`; for an error `invalid_task`, `toolchain` or `infrastructure`."""
    detail: str = ""
    tests: tuple[TestResult, ...] = ()
    cpu_seconds: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", _encodable(self.detail))

    @property
    def fraction(self) -> float:
        """Return the share of tests that passed, between 0 and 1."""
        if not self.tests:
            return float(self.status == PASSED)
        return sum(test.passed for test in self.tests) / len(self.tests)

    @property
    def tests_run(self) -> int:
        """Return the number of tests that ran, whatever their result."""
        return sum(test.reason not in NEVER_RAN for test in self.tests)

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON values, with the number of tests that ran."""
        return {**asdict(self), "tests_run": self.tests_run}


def verdict_of(tests: Sequence[TestResult], cpu_seconds: float = 0.0) -> Verdict:
    """Return the verdict `passed` if all tests passed, otherwise `failed` with the reason of the first failed test.

    Raises:
        ValueError: there are no tests.
    """
    if not tests:
        raise ValueError("a verdict needs at least one test")
    failure = next((test for test in tests if not test.passed), None)
    if failure is None:
        return Verdict(PASSED, PASSED, "", tuple(tests), cpu_seconds)
    return Verdict(FAILED, failure.reason, failure.detail, tuple(tests), cpu_seconds)


def failed(reason: str, detail: str, tests: int = 0, cpu_seconds: float = 0.0) -> Verdict:
    """Return the verdict on a program that could not run any of `tests` tests: all fail for the same reason."""
    detail = detail[-DETAIL:]
    return Verdict(FAILED, reason, detail, (TestResult(reason, detail),) * max(tests, 1), cpu_seconds)


def error(reason: str, detail: str) -> Verdict:
    """Return the verdict on a program that could not be judged."""
    return Verdict(ERROR, reason, detail[-DETAIL:])
