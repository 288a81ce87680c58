"""What grading says about a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["passed", "failed", "error"]
PASSED: Status = "passed"
FAILED: Status = "failed"
ERROR: Status = "error"
DETAIL = 500  # characters of output that a verdict carries


@dataclass(frozen=True)
class TestResult:
    """One test: ``passed``, or why not (``wrong_answer``, ``exception``, ``timeout``, ``memory``, ``not_run``, ...)."""

    __test__ = False  # not a test class of pytest

    reason: str
    detail: str = ""
    messages: int = field(default=0, compare=False)
    """What the test sent to a program in another process: each costs both of them time."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", _printable(self.detail))

    @property
    def passed(self) -> bool:
        return self.reason == PASSED


def _printable(text: str) -> str:
    """Text of a program, fit for logs and JSON: a lone surrogate in it would fail whoever writes the verdict down."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Verdict:
    """Status ``error`` means that nothing can be said about the program: the machine, the sandbox or the task is at
    fault."""

    status: Status
    reason: str
    """``passed``; for a failed program ``wrong_answer``, ``exception``, ``timeout``, ``memory``, ``output_limit``,
    ``syntax``, ``compile``, ``missing_entry_point``, ``exit``, ``died``, ``not_plain_data``, ``protocol``,
    ``too_long``; for an error ``invalid_task``, ``toolchain``, ``infrastructure``."""
    detail: str = ""
    tests: tuple[TestResult, ...] = ()
    cpu_seconds: float = field(default=0.0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", _printable(self.detail))

    @property
    def fraction(self) -> float:
        """Share of the tests that passed, 0 to 1."""
        if not self.tests:
            return float(self.status == PASSED)
        return sum(test.passed for test in self.tests) / len(self.tests)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def of_tests(tests: Sequence[TestResult], cpu_seconds: float = 0.0) -> Verdict:
    """Passed when there are tests and all passed; otherwise the first failure speaks."""
    if not tests:
        raise ValueError("a verdict needs at least one test")
    first = next((test for test in tests if not test.passed), None)
    if first is None:
        return Verdict(PASSED, PASSED, "", tuple(tests), cpu_seconds)
    return Verdict(FAILED, first.reason, first.detail, tuple(tests), cpu_seconds)


def failed(reason: str, detail: str, tests: int = 0, cpu_seconds: float = 0.0) -> Verdict:
    """A program none of whose tests could run."""
    detail = detail[-DETAIL:]
    return Verdict(FAILED, reason, detail, (TestResult(reason, detail),) * max(tests, 1), cpu_seconds)


def error(reason: str, detail: str) -> Verdict:
    return Verdict(ERROR, reason, detail[-DETAIL:])
