"""Make rows of repair tasks: a repository before a change, an issue, tests, and the change as the reference answer."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_builders.cleaning.held_out import HELD_OUT_COLUMN
from data_builders.tasks.history.outcome_comparison import OutcomeComparison
from data_builders.tasks.python.python_suite import PreparedSuite
from data_builders.tasks.task_rows import split_names


@dataclass(frozen=True)
class RepairCandidate:
    """A change of a repository that may become a task."""

    id: str
    """Unique name of the task, for example `attrs@1f2e3d4c5b6a`."""
    kind: str
    """`commits` or `bugs`."""
    suite: PreparedSuite
    """Snapshot of the repository without the change, but with the tests of the change."""
    patch: str
    """The change: the reference answer."""
    comparison: OutcomeComparison
    """The tests that the change makes pass, and tests that pass before and after."""
    source: str
    """The repository and the commit."""
    part: str = "train"
    """Value of the column `split`: `train` or `heldout`."""
    license: str = ""


@dataclass(frozen=True)
class TestParts:
    """The tests of a task, split into visible and hidden tests."""

    visible_failing: list[str]
    hidden_failing: list[str]
    visible_passing: list[str]
    hidden_passing: list[str]

    @classmethod
    def of(cls, candidate: RepairCandidate, hidden_share: float, max_tests: int) -> TestParts:
        """Split the tests of a candidate. At least one failing test is hidden.

        Args:
            candidate: the candidate.
            hidden_share: share of the tests to hide.
            max_tests: maximum number of tests that fail without the change, and of tests that always pass. If there are
                more, tests are drawn at random.
        """
        comparison = candidate.comparison
        parts: list[list[str]] = []
        for tests in (comparison.fail_to_pass, comparison.pass_to_pass):
            drawn = _drawn(tests, max_tests, candidate.id)
            # All cases of a parametrized test are visible or hidden together, because they share their code.
            parts += split_names(candidate.id, drawn, hidden_share, divide=False) if drawn else ([], [])
        return cls(*parts)

    @property
    def visible(self) -> list[str]:
        """The visible tests, those that fail without the change first."""
        return [*self.visible_failing, *self.visible_passing]

    @property
    def hidden(self) -> list[str]:
        """The hidden tests, those that fail without the change first."""
        return [*self.hidden_failing, *self.hidden_passing]


def _drawn(names: Sequence[str], count: int, key: str) -> list[str]:
    if len(names) <= count:
        return list(names)
    chosen = set(random.Random(f"draw:{key}").sample(range(len(names)), count))
    return [name for place, name in enumerate(names) if place in chosen]


def repair_row(candidate: RepairCandidate, text: str, parts: TestParts, words: Sequence[str]) -> dict[str, Any]:
    """Return the row of a task. `alignment.grading.task.PatchTests` describes the column `tests`.

    Args:
        candidate: the change.
        text: text of the issue.
        parts: the tests.
        words: restricted words that the reference needs, from `patched_repository.restricted_words`.
    """
    tests = {
        "suite": candidate.suite.id, "visible": parts.visible, "hidden": parts.hidden,
        "fail_to_pass": [*parts.visible_failing, *parts.hidden_failing], "names": list(words),
    }  # fmt: skip
    row: dict[str, Any] = {
        "id": candidate.id, "prompt": repair_prompt(candidate, text, parts), "language": "python", "kind": "repository",
        "tests": json.dumps(tests), "split": candidate.part, "source": candidate.source, "license": candidate.license,
        "origin": candidate.kind,
    }  # fmt: skip
    if candidate.part == "heldout":
        return row | {"reference": candidate.patch, HELD_OUT_COLUMN: added_code(candidate.patch)}
    return row | {"reference": candidate.patch}


def repair_prompt(candidate: RepairCandidate, text: str, parts: TestParts) -> str:
    """Return the user message of a task: the issue, and the names of the visible tests that have to pass."""
    blocks = [f"Resolve this issue in the repository `{candidate.suite.snapshot.data['name']}`.", text]
    if parts.visible_failing:
        blocks.append(
            "\n".join(
                ["Among others, these tests have to pass:", "", *(f"- `{name}`" for name in parts.visible_failing)]
            )
        )
    return "\n\n".join(blocks)


def added_code(patch: str) -> str:
    """Return the lines that a patch adds, without the signs in front of them."""
    return "\n".join(line[1:] for line in patch.split("\n") if line.startswith("+") and not line.startswith("+++ "))
