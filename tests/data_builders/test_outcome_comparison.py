"""Tests whose outcome is not the same in three runs are dropped; others are sorted by what they do without the change."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from data_builders.tasks.history import outcome_comparison
from data_builders.tasks.history.outcome_comparison import RunLimits, compare

# Outcomes in the three runs after the change, and in the three runs before it. None: not collected.
SCRIPT: dict[str, tuple[list[str], list[str | None]]] = {
    "fixed": (["passed"] * 3, ["failed"] * 3),
    "not_collected_before": (["passed"] * 3, [None] * 3),
    "kept": (["passed"] * 3, ["passed"] * 3),
    "flaky_after": (["passed", "passed", "failed"], ["failed"] * 3),
    "flaky_before": (["passed"] * 3, ["failed", "passed", "failed"]),
    "flaky_pass": (["passed"] * 3, ["passed", "failed", "passed"]),
    "broken": (["failed"] * 3, ["failed"] * 3),
    "skipped_before": (["passed"] * 3, ["skipped"] * 3),
    "hangs_before": (["passed"] * 3, ["hangs"] * 3),
}


@pytest.fixture
def suites(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, list[str]]:
    """(suite before, suite after, sides of the runs)."""
    runs: list[str] = []

    def run_tests(suite: Any, names: Sequence[str], *_: Any) -> tuple[dict[str, dict[str, Any]], float]:
        number = runs.count(suite.side)
        runs.append(suite.side)
        results = {}
        for name in names:
            outcome = SCRIPT[name][suite.side == "before"][number]
            results[name] = {"outcome": outcome, "detail": f"{name} {outcome}", "seconds": 0.0}
        return results, 0.0

    monkeypatch.setattr(outcome_comparison, "run_tests", run_tests)
    before = SimpleNamespace(side="before", tests=[name for name, script in SCRIPT.items() if script[1][0] is not None])
    return before, SimpleNamespace(side="after", tests=list(SCRIPT)), runs


def test_only_stable_tests_are_kept(suites: Any) -> None:
    before, after, runs = suites
    comparison = compare(before, after, list(SCRIPT), RunLimits(10, 1))
    assert comparison.fail_to_pass == ["fixed", "not_collected_before", "hangs_before"]
    assert comparison.pass_to_pass == ["kept"]
    assert sorted(comparison.flaky) == ["flaky_after", "flaky_before", "flaky_pass"]
    assert comparison.details["fixed"] == "fixed failed" and comparison.details["not_collected_before"] == ""
    assert runs.count("before") == runs.count("after") == 3


def test_a_change_without_a_failing_test_is_run_once(suites: Any) -> None:
    before, after, runs = suites
    comparison = compare(before, after, ["kept", "broken"], RunLimits(10, 1))
    assert comparison.fail_to_pass == [] and comparison.pass_to_pass == ["kept"] and len(runs) == 2
