"""Compare the outcomes of tests with and without a change, and drop tests whose outcome is not always the same."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from data_builders.tasks.python.python_coverage import outcome_of, run_tests
from data_builders.tasks.python.python_suite import PreparedSuite
from data_builders.tasks.validation import REPEATS

UNUSABLE = ("slow", "skipped", "over_budget")
"""Outcomes of tests that neither passed nor failed within the limits of a task."""
NOT_COLLECTED = "not_collected"


@dataclass(frozen=True)
class RunLimits:
    """Limits of one run of tests."""

    budget_seconds: float
    test_seconds: float
    allow_weaker: bool = False


@dataclass
class OutcomeComparison:
    """Tests by their outcomes without and with a change."""

    fail_to_pass: list[str] = field(default_factory=list)
    """Tests that always fail without the change and always pass with the change, in the suite's order."""
    pass_to_pass: list[str] = field(default_factory=list)
    """Tests that always pass."""
    flaky: list[str] = field(default_factory=list)
    """Tests whose outcome differs between runs."""
    details: dict[str, str] = field(default_factory=dict)
    """Last line of the traceback of each failing test, or "" if it could not be collected."""


@dataclass(frozen=True)
class _Run:
    outcomes: dict[str, str]
    details: dict[str, str]

    @classmethod
    def of(cls, suite: PreparedSuite, names: Collection[str], limits: RunLimits) -> _Run:
        """Run tests once. Tests that the suite has not collected get the outcome `NOT_COLLECTED`."""
        collected = set(suite.tests)
        wanted = [name for name in names if name in collected]
        results = (
            run_tests(suite, wanted, limits.budget_seconds, limits.test_seconds, limits.allow_weaker)[0]
            if wanted
            else {}
        )
        outcomes = {name: NOT_COLLECTED for name in names if name not in collected}
        outcomes |= {name: outcome_of(results.get(name, {"outcome": "over_budget"})) for name in wanted}
        return cls(outcomes, {name: str(result.get("detail") or "") for name, result in results.items()})

    def passed(self, name: str) -> bool:
        return self.outcomes[name] == "passed"

    def failed(self, name: str) -> bool:
        return self.outcomes[name] not in ("passed", *UNUSABLE)


def compare(
    before: PreparedSuite, after: PreparedSuite, names: Collection[str], limits: RunLimits
) -> OutcomeComparison:
    """Run tests `REPEATS` times without and with a change. If no test fails without the change, run them once.

    Args:
        before: the repository without the change, but with the tests of the change.
        after: the repository with the change.
        names: the tests.
        limits: limits of one run.
    """
    with_change, without = _Run.of(after, names, limits), _Run.of(before, names, limits)
    passing = [name for name in names if with_change.passed(name)]
    comparison = OutcomeComparison(
        [name for name in passing if without.failed(name)], [name for name in passing if without.passed(name)]
    )
    comparison.details = {name: without.details.get(name, "") for name in comparison.fail_to_pass}
    for _ in range(REPEATS - 1):
        remaining = [*comparison.fail_to_pass, *comparison.pass_to_pass]
        if not comparison.fail_to_pass:
            break
        with_change, without = _Run.of(after, remaining, limits), _Run.of(before, remaining, limits)
        stable = {name for name in comparison.fail_to_pass if with_change.passed(name) and without.failed(name)}
        stable |= {name for name in comparison.pass_to_pass if with_change.passed(name) and without.passed(name)}
        comparison.flaky += [name for name in remaining if name not in stable]
        comparison.fail_to_pass = [name for name in comparison.fail_to_pass if name in stable]
        comparison.pass_to_pass = [name for name in comparison.pass_to_pass if name in stable]
    return comparison
