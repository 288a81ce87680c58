"""Write and read the result files of an evaluation: `figures.json`, `completions.jsonl` and `verdicts.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from alignment.evaluation.scoring import Outcome
from alignment.evaluation.statistics.figures import Figure
from alignment.evaluation.store import read_jsonl, write_jsonl
from alignment.files import write_json

GENERATION_FILE = "generation.json"
"""File in the folder of results with the `GenerationCost` of each benchmark."""


class GenerationCost(TypedDict):
    """What the completions of one benchmark cost. Benchmarks with equal prompts share their completions."""

    completions: int
    cut: int
    """Number of completions that reached the token limit."""
    tokens: int
    """Number of generated tokens."""
    seconds: float | None
    """Time of generation, summed over all ranks. None if completions of an older version were reused, and for benchmarks
    with several turns."""
    calls: NotRequired[int]
    """Number of tool calls, for benchmarks with several turns."""
    invalid_calls: NotRequired[int]
    """Number of these calls that were wrong: no JSON object, no tool of this name, or wrong arguments."""


class Document(TypedDict):
    """One metric with the verdict of every task, as `align evaluate --json` prints it.

    `value`, `low` and `high` are percents.
    """

    benchmark: str
    metric: str
    value: float
    n: int
    low: float
    high: float
    verdicts: dict[str, str | list[str]]
    """Task id -> `passed`, `failed` or `error`, or a list of these if the task has several samples."""


def write_results(
    out_dir: Path, figures: list[Figure], results: Mapping[str, Sequence[Outcome]], modes: Mapping[str, str]
) -> None:
    """Write `completions.jsonl`, `verdicts.jsonl`, and last `figures.json`.

    Args:
        out_dir: the folder for the results.
        figures: the metrics of all benchmarks.
        results: name of a benchmark -> its outcomes.
        modes: name of a benchmark -> `base` or `chat`.
    """
    completions, verdicts = [], []
    for name, outcomes in results.items():
        for outcome in outcomes:
            place = {"benchmark": name, "task_id": outcome.task_id, "sample": outcome.sample}
            completions.append(
                place
                | {
                    "mode": modes[name],
                    "completion": outcome.completion,
                    "finish": outcome.finish,
                    "tokens": outcome.tokens,
                }
            )
            verdicts.append(
                place
                | {
                    "status": outcome.status,
                    "reason": outcome.reason,
                    "detail": outcome.detail,
                    "scores": outcome.scores,
                    "answer": outcome.answer,
                    **({"forgeable": True} if outcome.forgeable else {}),
                }
            )
    write_jsonl(out_dir / "completions.jsonl", completions)
    write_jsonl(out_dir / "verdicts.jsonl", verdicts)
    write_json(out_dir / "figures.json", figures)


def documents(figures: Sequence[Figure], results: Mapping[str, Sequence[Outcome]]) -> list[Document]:
    """Return one document for each metric in `figures`. `results`: name of a benchmark -> its outcomes."""
    return [_document(figure, ((o.task_id, o.status) for o in results[figure["benchmark"]])) for figure in figures]


def read_documents(out_dir: str | Path) -> list[Document]:
    """Read the documents from a folder of results that `evaluate` or `grade_completions` has written.

    Raises:
        ValueError: the folder has no results.
    """
    folder = Path(out_dir)
    if not (folder / "figures.json").exists():
        raise ValueError(f"{folder} has no figures.json: run `align evaluate` with that folder first")
    figures: list[Figure] = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    rows = list(read_jsonl(folder / "verdicts.jsonl"))
    return [
        _document(figure, ((row["task_id"], row["status"]) for row in rows if row["benchmark"] == figure["benchmark"]))
        for figure in figures
    ]


def _document(figure: Figure, statuses: Iterable[tuple[str, str]]) -> Document:
    by_task: dict[str, list[str]] = {}
    for task_id, status in statuses:
        by_task.setdefault(task_id, []).append(status)
    return {
        "benchmark": figure["benchmark"],
        "metric": figure["metric"],
        "value": figure["value"],
        "n": figure["n"],
        "low": figure["low"],
        "high": figure["high"],
        "verdicts": {task_id: words[0] if len(words) == 1 else words for task_id, words in by_task.items()},
    }
