"""Builder `difficulty`: measure how many of a model's answers to each task pass, and keep tasks that it solves sometimes.

A task that a model always or never solves gives GRPO no gradient, because all rewards of a group are equal. The kept
tasks are sorted from the easiest to the hardest. To train in this order, set `train: {shuffle_dataset: false}` in the
GRPO stage.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

from pydantic import model_validator

from alignment.rows import reading as row_files
from alignment.settings import Positive, Reference, Share
from data_builders.builder import BuildContext
from data_builders.models.sampled_answers import (
    GradedAnswers,
    SampledAnswer,
    SamplingSettings,
    grade_answers,
    sample_answers,
)
from data_builders.storage.dataset import write_card


class DifficultySettings(SamplingSettings):
    """Settings of the builder `difficulty`."""

    tasks: Reference
    """Executable tasks, in any answer form. Never use held-out tasks here."""
    min_pass_rate: Share = 0.05
    """Smallest share of passing answers of a task that is kept. The default leaves out tasks that no answer solves."""
    max_pass_rate: Share = 0.95
    """Largest share of passing answers of a task that is kept."""
    limit: Positive | None = None
    """Use only this many tasks, from the start of the file."""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError("min_pass_rate must not be above max_pass_rate")
        return self


def build_difficulty(settings: DifficultySettings, context: BuildContext) -> dict[str, Any]:
    """Write the tasks that the stage's model solves sometimes, the easiest first, with their pass rates.

    Raises:
        ValueError: no task has a pass rate between the bounds, or no answer could be graded.
    """
    tasks = list(row_files.read(settings.tasks.path(), settings.limit))
    answers = sample_answers(settings, context, tasks)
    graded, counts = grade_answers(context, tasks, answers)
    rates = [pass_rate(samples, verdicts) for samples, verdicts in zip(answers, graded, strict=True)]
    reasons = Counter(_reason(rate, settings) for rate in rates)
    kept = [
        (rate, task)
        for rate, task in zip(rates, tasks, strict=True)
        if rate is not None and not _reason(rate, settings)
    ]
    kept.sort(key=lambda pair: (-pair[0], str(pair[1].get("id"))))
    rows = [{**task, "pass_rate": round(rate, 4), "pass_samples": settings.n} for rate, task in kept]
    _write(context, "tasks.jsonl", rows)
    measured = [{"id": task.get("id"), "pass_rate": rate} for rate, task in zip(rates, tasks, strict=True)]
    _write(context, "pass-rates.jsonl", measured)
    del reasons[""]
    summary = {"tasks": len(tasks), "kept": len(rows), "removed": dict(sorted(reasons.items())), **counts}
    if not rows:
        shown = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        raise ValueError(
            f"no task has a pass rate from {settings.min_pass_rate} to {settings.max_pass_rate} ({shown}): sample more answers "
            "(`n`), or longer ones (`max_new_tokens`), use easier tasks, or another answer form (`answer` of the builder `tasks`)"
        )
    write_card(
        context.out, "Tasks by difficulty", {"tasks.jsonl": len(rows)}, [str(settings.tasks)],
        settings.model_dump(mode="json", exclude={"tasks"}) | {"model": str(context.model), "seed": context.seed}, summary,
    )  # fmt: skip
    return summary


def pass_rate(samples: Sequence[SampledAnswer], graded: GradedAnswers) -> float | None:
    """Return the share of passing answers among those that could be graded, or None if none could be graded."""
    passed = sum(sample.ended and sample.text in graded.passing for sample in samples)
    failed = sum(
        sample.text in graded.failing for sample in samples if not (sample.ended and sample.text in graded.passing)
    )
    return passed / (passed + failed) if passed + failed else None


def _reason(rate: float | None, settings: DifficultySettings) -> str:
    """Return why a task is left out, or ""."""
    if rate is None:
        return "ungraded"
    return "too_hard" if rate < settings.min_pass_rate else "too_easy" if rate > settings.max_pass_rate else ""


def _write(context: BuildContext, name: str, rows: Sequence[dict[str, Any]]) -> None:
    with (context.out / name).open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
