"""The report of a chain: one self-contained HTML page with the ladder, the curves and the lineage.

align report recipes/quickstart.yaml
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from alignment.chain import ladder
from alignment.chain.plan import Step
from alignment.files import write_text
from alignment.fingerprints import package_versions
from alignment.logs import format_duration
from alignment.recipe import Recipe
from alignment.report import charts

# The curves worth a picture, by kind of stage: TRL's name of the figure, and what to call it.
CURVES = {
    "pretrain": [("loss", "loss")],
    "sft": [("loss", "loss"), ("mean_token_accuracy", "token accuracy")],
    "dpo": [("loss", "loss"), ("rewards/accuracies", "pairs told apart")],
    "grpo": [("reward", "reward"), ("frac_reward_zero_std", "groups without spread")],
}


def write(recipe: Recipe, steps: Sequence[Step]) -> Path:
    """Write `report.html` of what is done so far, and return its path."""
    entries = ladder.rungs(steps)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("report.html.jinja").render(
        recipe=recipe,
        metrics=_metrics(entries, _gains(steps)),
        steps=[_row(step) for step in steps],
        curves=[curve for step in steps for curve in _curves(step)],
        exports=_exports(steps),
        total=format_duration(sum((step.artifact() or {}).get("seconds", 0) for step in steps)),
        versions=package_versions(),
    )
    path = recipe.folder / "report.html"
    write_text(path, page)
    return path


def _gains(steps: Sequence[Step]) -> dict[tuple[str, str], str]:
    """What each stage gained over the model it began with, by stage and metric: paired over the tasks, in points."""
    from alignment.evaluation.statistics.paired import compare

    measured = {step.rung: step for step in steps if step.rung is not None and step.artifact()}
    found = {}
    for trained in steps:
        before, after = measured.get(trained.model or ""), measured.get(trained.name)
        if before is None or after is None or not trained.trains:
            continue
        try:
            rows = compare(before.folder, after.folder)
        except ValueError:  # nothing in common, or results of another release
            continue
        for row in rows:
            metric = f"{row['benchmark']}.{'pass@1' if row['score'] == 'pass' else row['score']}"
            found[trained.name, metric] = f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
    return found


def _metrics(entries: list[dict[str, Any]], gains: dict[tuple[str, str], str]) -> list[dict[str, Any]]:
    """A chart and a table per metric."""
    found = []
    for metric in dict.fromkeys(entry["metric"] for entry in entries):
        rungs = [
            entry | {"gain": gains.get((entry["stage"], metric), "")} for entry in entries if entry["metric"] == metric
        ]
        found.append({"name": metric, "rungs": rungs, "chart": charts.rungs(rungs)})
    return found


def _exports(steps: Sequence[Step]) -> list[dict[str, str]]:
    """A row per exported model, without the columns in which no model has anything to show."""
    rows = [row for step in steps if step.kind == "export" for row in (step.artifact() or {}).get("exports", [])]
    shown = [
        key
        for key in dict.fromkeys(key for row in rows for key in row)
        if any(row.get(key) not in (None, []) for row in rows)
    ]
    return [{key: _cell(row.get(key)) for key in shown} for row in rows]


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _row(step: Step) -> dict[str, Any]:
    artifact = step.artifact()
    return {
        "name": step.name,
        "kind": step.kind,
        "state": "done" if artifact else "to do",
        "seconds": format_duration(artifact["seconds"]) if artifact else "",
        "memory": f"{artifact['peak_memory_mb'] / 1000:.1f} GB" if artifact and artifact.get("peak_memory_mb") else "",
        "folder": step.folder.name,
        "reads": ", ".join(
            [*([step.model] if step.model else []), *(name for name in step.inputs if name != step.model)]
        ),
        "figures": _figures(artifact or {}),
        "settings": json.dumps(step.request.stage.model_dump(mode="json"), indent=1, ensure_ascii=False),
    }


def _figures(artifact: dict[str, Any]) -> str:
    metrics = artifact.get("metrics", {})
    words = {
        "train_loss": "loss {:.4f}",
        "steps": "{:.0f} steps",
        "tokens_per_second": "{:,.0f} tokens/s",
        "merge_logit_difference": "merged, logits within {:.1e}",
        "merge_rounding": "{:.0%} of the adapter lost to rounding",
    }
    parts = [text.format(metrics[key]) for key, text in words.items() if key in metrics]
    contract = artifact.get("contract") or {}
    if "probes" in contract:
        parts.append(f"stops on {contract['probes_stopped']} of {contract['probes']} probes")
    return ", ".join(parts)


def _curves(step: Step) -> list[dict[str, str]]:
    file = step.folder / "metrics.jsonl"
    if step.kind not in CURVES or not file.is_file():
        return []
    logs = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
    found = []
    for key, title in CURVES[step.kind]:
        points = [(log["step"], log[key]) for log in logs if key in log]
        if len(points) > 1:
            found.append({"title": f"{step.name}: {title}", "svg": charts.curve(points)})
    return found
