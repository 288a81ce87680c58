"""The ladder: what every stage gained, on the same held-out tasks; and the gates that stop a chain that loses.

`ladder.json` is a list of `{stage, metric, value, n, low, high, seed}`; values in percent, 95% intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from alignment.chain.plan import Step
from alignment.files import write_json
from alignment.recipe import Recipe

Rung = dict[str, Any]


def rungs(steps: Iterable[Step]) -> list[Rung]:
    """All figures of the evaluations that are done, in the order of the chain."""
    found: list[Rung] = []
    for step in steps:
        artifact = step.artifact() if step.rung is not None else None
        for figure in (artifact or {}).get("figures", []):
            found.append(
                {
                    "stage": step.rung,
                    "metric": f"{figure['benchmark']}.{figure['metric']}",
                    "value": figure["value"],
                    "n": figure["n"],
                    "low": figure["low"],
                    "high": figure["high"],
                    "seed": figure["seed"],
                }
            )
    return found


def write(recipe: Recipe, steps: Sequence[Step]) -> None:
    """Write `ladder.json` of what is known so far."""
    write_json(recipe.folder / "ladder.json", rungs(steps))


def table(steps: Sequence[Step]) -> list[str]:
    """The ladder as text: a row a stage, a column a metric."""
    entries = rungs(steps)
    metrics = list(dict.fromkeys(entry["metric"] for entry in entries))
    if not metrics:
        return []
    stages = list(dict.fromkeys(entry["stage"] for entry in entries))
    cells = {(entry["stage"], entry["metric"]): _cell(entry) for entry in entries}
    if len(stages) == 1:
        return [f"{metric}: {cells[stages[0], metric]}" for metric in metrics]
    first = max(len("stage"), *(len(stage) for stage in stages))
    widths = {
        metric: max(len(metric), *(len(cells.get((stage, metric), "")) for stage in stages)) for metric in metrics
    }
    rows = ["  ".join(["stage".ljust(first), *(metric.rjust(widths[metric]) for metric in metrics)])]
    for stage in stages:
        row = [cells.get((stage, metric), "").rjust(widths[metric]) for metric in metrics]
        rows.append("  ".join([stage.ljust(first), *row]))
    return rows


def _cell(entry: Rung) -> str:
    return f"{entry['value']:.1f} [{entry['low']:.1f}, {entry['high']:.1f}]"


def broken_gates(recipe: Recipe, step: Step, steps: Sequence[Step]) -> list[str]:
    """What the gates that `step` decides have against going on; empty when all is well.

    A gate stands on a training stage and is decided by the evaluation after it, or on an evaluate stage itself.
    """
    if step.rung is None:
        return []
    measured = {entry["metric"]: entry for entry in rungs([step])}
    by_name = {other.name: other for other in steps}
    trained = by_name.get(step.rung)
    own = step.name in [stage.name for stage in recipe.stages]
    gates = step.stage.gates if own else (trained.stage.gates if trained else [])
    before: dict[str, Rung] = {}
    if trained is not None and trained.model is not None:
        previous = [other for other in steps if other.rung == trained.model and other.artifact()]
        before = {entry["metric"]: entry for entry in rungs(previous)}
    problems: list[str] = []
    for gate in gates:
        entry = measured.get(gate.metric)
        if entry is None:
            problems.append(
                f"gate of {step.rung!r}: {gate.metric} was not measured; measured were {', '.join(measured) or 'none'}"
            )
            continue
        if gate.min_value is not None and entry["value"] < gate.min_value:
            problems.append(f"gate of {step.rung!r}: {gate.metric} is {_cell(entry)}, below {gate.min_value:g}")
        last = before.get(gate.metric)
        if gate.max_drop is not None and last is not None and last["value"] - entry["value"] > gate.max_drop:
            problems.append(
                f"gate of {step.rung!r}: {gate.metric} fell from {_cell(last)} to {_cell(entry)}, "
                f"by more than {gate.max_drop:g} points"
            )
    return problems
