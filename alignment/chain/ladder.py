"""Writes the ladder (a table of benchmark results after every stage), and stops the chain if a result is too low.

`ladder.json` is a list of `{stage, metric, value, n, low, high, seed}`. `value` and its 95% interval from `low` to
`high` are in percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypedDict

from alignment.chain.plan import Step
from alignment.files import write_json
from alignment.recipe import Recipe
from alignment.recipe.stage_parts import Gate


class Rung(TypedDict):
    """The value of one metric, measured after one stage: an entry of `ladder.json`."""

    stage: str
    """Name of the stage whose model was measured, or `base` for the model with which the recipe starts."""
    metric: str
    """`benchmark.metric`, for example `instruct.pass@1`."""
    value: float
    n: int
    """Number of tasks on which the metric was measured."""
    low: float
    high: float
    seed: int


class MeasuredStep(Protocol):
    """What the ladder reads of a step of a plan, or of the folder of a step."""

    @property
    def rung(self) -> str | None: ...
    def artifact(self) -> dict[str, Any] | None: ...


def rungs(steps: Iterable[MeasuredStep]) -> list[Rung]:
    """Return the entries of `ladder.json` from all finished evaluations, in the order of `steps`."""
    entries: list[Rung] = []
    for step in steps:
        if step.rung is None:
            continue
        for figure in (step.artifact() or {}).get("figures", []):
            entries.append(
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
    return entries


def write(recipe: Recipe, steps: Sequence[Step]) -> None:
    """Write `ladder.json` with the results of all evaluations that have finished so far."""
    write_json(recipe.folder / "ladder.json", rungs(steps))


def table(steps: Sequence[Step]) -> list[str]:
    """Return the results of finished evaluations as lines of text. See `table_of`."""
    return table_of(rungs(steps))


MAX_WIDTH = 120
"""Width in characters above which a table has one row per metric."""


def table_of(entries: Sequence[Rung]) -> list[str]:
    """Return entries of `ladder.json` as a table in lines of text.

    The table has one row per stage and one column per metric. If it would be wider than `MAX_WIDTH`, it has one row per
    metric and one column per stage. If there is only one stage, return one line per metric without a table.
    """
    metrics = list(dict.fromkeys(entry["metric"] for entry in entries))
    if not metrics:
        return []
    stages = list(dict.fromkeys(entry["stage"] for entry in entries))
    cells = {(entry["stage"], entry["metric"]): _cell(entry) for entry in entries}
    if len(stages) == 1:
        return [f"{metric}: {cells[stages[0], metric]}" for metric in metrics]
    by_stage = [
        ["stage", *metrics],
        *([stage, *(cells.get((stage, metric), "") for metric in metrics)] for stage in stages),
    ]
    lines = _aligned(by_stage)
    return lines if len(lines[0]) <= MAX_WIDTH else _aligned([list(column) for column in zip(*by_stage, strict=True)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines with aligned columns: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _cell(entry: Rung) -> str:
    return f"{entry['value']:.1f} [{entry['low']:.1f}, {entry['high']:.1f}]"


def broken_gates(recipe: Recipe, step: Step, steps: Sequence[Step]) -> list[str]:
    """Check the gates that use the results of an evaluation, and return one message for each broken gate.

    These are the gates of the evaluation itself if the recipe lists the evaluation as a stage, otherwise the gates of
    the training stage whose model was evaluated.

    Args:
        recipe: the recipe.
        step: the step that has just run. If it is not an evaluation, no gate is checked.
        steps: all steps of the recipe.
    """
    if step.rung is None:
        return []
    trained = next((other for other in steps if other.name == step.rung), None)
    in_recipe = step.name in [stage.name for stage in recipe.stages]
    gates = step.stage.gates if in_recipe else (trained.stage.gates if trained else [])
    measured = {entry["metric"]: entry for entry in rungs([step])}
    before: dict[str, Rung] = {}
    if trained is not None and trained.model is not None:
        previous = [other for other in steps if other.rung == trained.model and other.artifact()]
        before = {entry["metric"]: entry for entry in rungs(previous)}
    return [message for gate in gates for message in _check_gate(gate, step.rung, measured, before)]


def _check_gate(gate: Gate, stage: str, measured: Mapping[str, Rung], before: Mapping[str, Rung]) -> Iterator[str]:
    """Yield a message if a gate is broken. `before` contains the results of the model from which the stage started."""
    entry = measured.get(gate.metric)
    if entry is None:
        known = ", ".join(measured) or "none"
        yield f"gate of {stage!r}: {gate.metric} was not measured; measured were {known}"
        return
    if gate.min_value is not None and entry["value"] < gate.min_value:
        yield f"gate of {stage!r}: {gate.metric} is {_cell(entry)}, below {gate.min_value:g}"
    last = before.get(gate.metric)
    if gate.max_drop is not None and last is not None and last["value"] - entry["value"] > gate.max_drop:
        yield (
            f"gate of {stage!r}: {gate.metric} fell from {_cell(last)} to {_cell(entry)}, "
            f"by more than {gate.max_drop:g} points"
        )
