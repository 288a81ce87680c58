"""Writes the report of a chain: one self-contained HTML page with scores by stage, exports, curves and lineage.

align report recipes/quickstart.yaml
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from alignment.chain import ladder
from alignment.chain.ladder import Rung
from alignment.chain.plan import Step
from alignment.evaluation.statistics.paired import compare
from alignment.files import write_text
from alignment.fingerprints import package_versions
from alignment.logs import format_duration
from alignment.recipe import Recipe
from alignment.report import charts

CURVES = {
    "pretrain": [("loss", "loss")],
    "sft": [("loss", "loss"), ("mean_token_accuracy", "token accuracy")],
    "kto": [("loss", "loss"), ("rewards/margins", "reward of accepted minus rejected answers")],
    "dpo": [("loss", "loss"), ("rewards/accuracies", "pairs ranked correctly")],
    "grpo": [("reward", "reward"), ("frac_reward_zero_std", "groups with equal rewards")],
}
"""Kind of stage -> its curves, each (TRL's name of the metric in metrics.jsonl, title of the curve)."""

Gains = dict[tuple[str, str], str]
"""Text about the change of a metric in a stage, keyed by (stage, metric). The text gives the difference from the model
with which the stage started, and the 95% interval of the difference, in percentage points."""


@dataclass(frozen=True)
class MetricSection:
    """Section of the report that shows one metric for all stages."""

    name: str
    rungs: list[Rung]
    gains: dict[str, str]
    """Name of a stage -> text about the change of the metric in this stage."""
    chart: Markup


@dataclass(frozen=True)
class CurveSection:
    """Section of the report that shows one training curve of one stage."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class StageRow:
    """One row in the report's table of stages. All cells are text."""

    name: str
    kind: str
    state: str
    time: str
    memory: str
    folder: str
    inputs: str
    """Names of the stages whose artifacts this stage reads."""
    figures: str
    settings: str


def write(recipe: Recipe, steps: Sequence[Step]) -> Path:
    """Write `report.html` with all stages that are done so far to the recipe's folder, and return its path."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("report.html.jinja").render(
        recipe=recipe,
        metrics=_metric_sections(ladder.rungs(steps), gains_by_metric(steps)),
        stages=[_stage_row(step) for step in steps],
        curves=[curve for step in steps for curve in _curve_sections(step)],
        exports=export_rows(steps),
        total=format_duration(sum((step.artifact() or {}).get("seconds", 0) for step in steps)),
        versions=package_versions(),
    )
    path = recipe.folder / "report.html"
    write_text(path, page)
    return path


def gains_by_metric(steps: Sequence[Step]) -> Gains:
    """Compare every trained model, task by task, with the model from which its training started."""
    measured = {step.rung: step for step in steps if step.rung is not None and step.artifact()}
    gains: Gains = {}
    for trained in steps:
        before, after = measured.get(trained.model or ""), measured.get(trained.name)
        if before is None or after is None or not trained.trains:
            continue
        try:
            rows = compare(before.folder, after.folder)
        except ValueError:  # no benchmark in common, or results of another version of the toolkit
            continue
        for row in rows:
            metric = f"{row['benchmark']}.{'pass@1' if row['score'] == 'pass' else row['score']}"
            gains[trained.name, metric] = f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
    return gains


def _metric_sections(entries: Sequence[Rung], gains: Gains) -> list[MetricSection]:
    sections = []
    for metric in dict.fromkeys(entry["metric"] for entry in entries):
        rungs = [entry for entry in entries if entry["metric"] == metric]
        of_metric = {rung["stage"]: gains.get((rung["stage"], metric), "") for rung in rungs}
        sections.append(MetricSection(metric, rungs, of_metric, charts.bars(rungs)))
    return sections


def export_rows(steps: Sequence[Step]) -> list[dict[str, str]]:
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


def _stage_row(step: Step) -> StageRow:
    artifact = step.artifact() or {}
    inputs = [*([step.model] if step.model else []), *(name for name in step.inputs if name != step.model)]
    return StageRow(
        name=step.name,
        kind=step.kind,
        state="done" if artifact else "to do",
        time=format_duration(artifact["seconds"]) if artifact else "",
        memory=f"{artifact['peak_memory_mb'] / 1000:.1f} GB" if artifact.get("peak_memory_mb") else "",
        folder=step.folder.name,
        inputs=", ".join(inputs),
        figures=_figures(artifact),
        settings=json.dumps(step.request.stage.model_dump(mode="json"), indent=1, ensure_ascii=False),
    )


def _figures(artifact: dict[str, Any]) -> str:
    metrics = artifact.get("metrics", {})
    texts = {
        "train_loss": "loss {:.4f}",
        "steps": "{:.0f} steps",
        "tokens_per_second": "{:,.0f} tokens/s",
        "merge_logit_difference": "adapter merged (logits differ by at most {:.1e})",
        "merge_rounding": "{:.0%} of the adapter lost to rounding",
    }
    parts = [text.format(metrics[key]) for key, text in texts.items() if key in metrics]
    contract = artifact.get("contract") or {}
    if "probes" in contract:
        parts.append(f"stops on {contract['probes_stopped']} of {contract['probes']} probe prompts")
    return ", ".join(parts)


def _curve_sections(step: Step) -> list[CurveSection]:
    file = step.folder / "metrics.jsonl"
    if step.kind not in CURVES or not file.is_file():
        return []
    logs = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
    sections = []
    for key, title in CURVES[step.kind]:
        points = [(log["step"], log[key]) for log in logs if key in log]
        if len(points) > 1:
            sections.append(CurveSection(f"{step.name}: {title}", charts.curve(points)))
    return sections
