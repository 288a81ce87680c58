"""Two checkpoints on the same tasks: which were won, which lost, and whether that is more than chance."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignment.evaluation.statistics.intervals import paired
from alignment.evaluation.store import read_jsonl


def compare(before: str | Path, after: str | Path) -> list[dict[str, Any]]:
    """Compare two folders that `evaluate` wrote, per benchmark and score.

    Returns `{benchmark, score, n, before, after, difference, low, high, p_value, won, lost}`, shares in percent.
    ValueError where a folder has no verdicts, or the two have no benchmark in common.
    """
    first, second = _scores(Path(before)), _scores(Path(after))
    rows = []
    for key in first:
        if key not in second:
            continue
        result = asdict(paired(first[key], second[key]))
        for name in ("before", "after", "difference", "low", "high"):
            result[name] *= 100
        rows.append({"benchmark": key[0], "score": key[1], **result})
    if not rows:
        raise ValueError(f"{before} and {after} have no benchmark in common")
    return rows


def _scores(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Mean score of each task by (benchmark, score)."""
    path = folder / "verdicts.jsonl"
    if not path.exists():
        raise ValueError(f"{folder} has no verdicts.jsonl: run `align evaluate` with that folder first")
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in read_jsonl(path):
        for score, value in row["scores"].items():
            values.setdefault((row["benchmark"], score), {}).setdefault(row["task_id"], []).append(value)
    return {key: {task: sum(all_) / len(all_) for task, all_ in tasks.items()} for key, tasks in values.items()}
