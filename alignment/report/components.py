"""Tables and cards that the static report and the live page share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alignment.chain.ladder import Rung
from alignment.logs import format_duration
from alignment.report import charts
from alignment.report.elements import Element, element
from alignment.report.gains import FinishedStep, Gains
from alignment.report.run_folder import StageFolder, State
from alignment.report.training_curves import Curve, TrainingProgress

STATE_TEXTS: Mapping[State, str] = {
    "done": "done", "running": "running", "failed": "failed", "stopped": "stopped", "waiting": "to do",
}  # fmt: skip
_FIGURES = {
    "train_loss": "loss {:.4f}",
    "steps": "{:.0f} steps",
    "tokens_per_second": "{:,.0f} tokens/s",
    "merge_logit_difference": "adapter merged (logits differ by at most {:.1e})",
    "merge_rounding": "{:.0%} of the adapter lost to rounding",
}
"""Metrics of an artifact that the table of stages shows, and their texts."""


def card(title: str | Element, *content: Element | None, note: str = "") -> Element:
    """Return a box with a heading."""
    heading = element("h3", title, element("span", f" {note}", class_="soft") if note else None)
    return element("section", heading, *content, class_="card")


def grid(cards: Iterable[Element]) -> Element:
    """Return boxes side by side, as many as fit."""
    return element("div", *cards, class_="grid")


def unfolding(sections: Mapping[str, Element]) -> Element:
    """Return sections that the reader unfolds, by their titles."""
    return element(
        "div", *(element("details", element("summary", title), section) for title, section in sections.items())
    )


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Element | str]], label: str, numbers: Sequence[int] = ()
) -> Element:
    """Return a table that scrolls sideways on a narrow screen.

    Args:
        heads: heads of the columns.
        rows: the cells of each row. The first cell is the head of its row.
        label: what a screen reader says about the table.
        numbers: indices of the columns that are aligned to the right.
    """  # fmt: skip

    def kind(column: int) -> str | None:
        return "number" if column in numbers else None

    head = element("tr", *(element("th", name, scope="col", class_=kind(at)) for at, name in enumerate(heads)))
    body = [
        element(
            "tr",
            *(
                element("td" if at else "th", cell, class_=kind(at), **({} if at else {"scope": "row"}))
                for at, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    whole = element("table", element("thead", head), element("tbody", *body), aria_label=label)
    return element("div", whole, class_="scroll", tabindex=0, role="group", aria_label=label)


def ladder(rungs: Sequence[Rung], gains: Gains) -> Element:
    """Return one box for each metric: bars by stage, and a table with intervals and gains."""
    cards = []
    for metric in dict.fromkeys(rung["metric"] for rung in rungs):
        of_metric = [rung for rung in rungs if rung["metric"] == metric]
        rows = [
            [
                rung["stage"],
                f"{rung['value']:.1f} [{rung['low']:.1f}, {rung['high']:.1f}]",
                gains.get((rung["stage"], metric), ""),
            ]
            for rung in of_metric
        ]
        heads = ["stage", "value [95%]", "gain [95%]"]
        measured = table(heads, rows, f"{metric} by stage", numbers=(1, 2))
        cards.append(card(metric, charts.bars(of_metric), measured, note=f"%, {of_metric[0]['n']} tasks"))
    return grid(cards)


def curves(of_stages: Sequence[tuple[str, Sequence[Curve]]]) -> Element:
    """Return one box for each curve of each stage."""
    return grid(
        card(
            f"{name}: {item.title}",
            charts.curve(item.points, f"{name}: {item.title}", smooth=item.noisy),
            note=_last_value(item),
        )
        for name, of_stage in of_stages
        for item in of_stage
    )


def _last_value(item: Curve) -> str:
    return f"{charts.short(item.points[-1][1])} at step {item.points[-1][0]:,.0f}"


def state_mark(state: State) -> Element:
    """Return the state of a step or a run, as a coloured word."""
    return element("span", STATE_TEXTS[state], class_=f"state {state}")


def stage_table(
    stages: Sequence[StageFolder],
    progress: Mapping[str, TrainingProgress] | None = None,
    messages: Mapping[str, str] | None = None,
) -> Element:
    """Return the table of stages: state, time, memory, inputs, figures, and the settings to unfold.

    Args:
        stages: the stages.
        progress: how far training stages are that are not done, by their names.
        messages: what other running stages report, by their names.
    """
    heads = ["stage", "kind", "state", "time", "peak memory", "figures", "inputs", "artifact and settings"]
    rows = []
    for stage in stages:
        cell: Element | str = figures(stage.content)
        if known := (progress or {}).get(stage.name):
            cell = _progress(stage.name, known)
        elif message := (messages or {}).get(stage.name):
            cell = message
        rows.append(_stage_row(stage, cell))
    return table(heads, rows, "stages", numbers=(3, 4))


def _progress(name: str, progress: TrainingProgress) -> Element:
    """Return a bar with the step and the figures of a training stage."""
    text = f"step {progress.step:,} of {progress.steps:,}: {progress.figures}"
    bar = element("progress", value=progress.step, max=max(progress.steps, 1), aria_label=f"steps of {name}")
    return element("div", bar, element("div", text), class_="progress")


def _stage_row(stage: StageFolder, cell: Element | str) -> list[Element | str]:
    inputs = [*([stage.model] if stage.model else []), *(name for name in stage.inputs if name != stage.model)]
    seconds, memory = stage.seconds(), stage.content.get("peak_memory_mb")
    settings = json.dumps(stage.settings, indent=1, ensure_ascii=False)
    return [
        stage.name,
        stage.kind,
        state_mark(stage.state),
        format_duration(seconds) if seconds is not None else "",
        f"{memory / 1000:.1f} GB" if memory else "",
        cell,
        ", ".join(inputs),
        element("details", element("summary", element("code", stage.folder.name)), element("pre", settings)),
    ]


def figures(artifact: Mapping[str, Any]) -> str:
    """Return the main figures of an artifact as text."""
    metrics = artifact.get("metrics", {})
    parts = [text.format(metrics[key]) for key, text in _FIGURES.items() if key in metrics]
    contract = artifact.get("contract") or {}
    if "probes" in contract:
        parts.append(f"stops on {contract['probes_stopped']} of {contract['probes']} probe prompts")
    return ", ".join(parts)


def exports(rows: Sequence[Mapping[str, str]]) -> Element:
    """Return the table of exported models."""
    heads = [key.replace("_", " ") for key in rows[0]]
    return table(heads, [list(row.values()) for row in rows], "exported models")


def export_rows(steps: Sequence[FinishedStep]) -> list[dict[str, str]]:
    """Return one row per exported model, without the columns that are empty in all rows."""
    rows = [row for step in steps if step.kind == "export" for row in (step.artifact() or {}).get("exports", [])]
    columns = [
        key
        for key in dict.fromkeys(key for row in rows for key in row)
        if any(row.get(key) not in (None, []) for row in rows)
    ]
    return [{key: _cell(row.get(key)) for key in columns} for row in rows]


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
