"""Compares every trained model, task by task, with the model from which its training started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from alignment.evaluation.statistics.paired import compare

Gains = dict[tuple[str, str], str]
"""Text about the change of a metric in a stage, keyed by (stage, metric). The text gives the difference from the model
with which the stage started, and the 95% interval of the difference, in percentage points."""


class FinishedStep(Protocol):
    """What the comparison reads: a step of a plan (`alignment.chain.plan.Step`), or a `StageFolder`."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def model(self) -> str | None: ...
    @property
    def rung(self) -> str | None: ...
    @property
    def folder(self) -> Path: ...
    @property
    def trains(self) -> bool: ...
    def artifact(self) -> dict[str, Any] | None: ...


def gains_by_metric(steps: Sequence[FinishedStep]) -> Gains:
    """Return the change of every metric in every stage that was measured before and after."""
    measured = {step.rung: step for step in steps if step.rung is not None and step.artifact()}
    gains: Gains = {}
    for trained in steps:
        before, after = measured.get(trained.model or ""), measured.get(trained.name)
        if before is None or after is None or not trained.trains:
            continue
        try:
            rows = compare(before.folder, after.folder)
        except (ValueError, OSError):  # no benchmark in common, or results of another version of the toolkit
            continue
        for row in rows:
            metric = f"{row['benchmark']}.{'pass@1' if row['score'] == 'pass' else row['score']}"
            gains[trained.name, metric] = f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
    return gains
