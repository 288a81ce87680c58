"""The builder `difficulty`: pass rates of a model, and the tasks that it solves sometimes, the easiest first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import run_builder

from data_builders import difficulty
from data_builders.difficulty import pass_rate
from data_builders.models.sampled_answers import GradedAnswers, SampledAnswer

TASKS = ["never", "always", "seldom", "often", "ungraded"]


def sampled(passing: int, failing: int = 0, cut_off: int = 0) -> list[SampledAnswer]:
    return (
        [SampledAnswer("good", True)] * passing
        + [SampledAnswer("bad", True)] * failing
        + [SampledAnswer("good", False)] * cut_off
    )


def build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    answers = [sampled(0, 4), sampled(4), sampled(1, 2, 1), sampled(3, 1), sampled(0, 4)]
    graded = [GradedAnswers([], ["bad"]), *[GradedAnswers(["good"], ["bad", "good"])] * 3, GradedAnswers()]
    graded[1] = GradedAnswers(["good"], [])
    monkeypatch.setattr(difficulty, "sample_answers", lambda *_: answers)
    monkeypatch.setattr(difficulty, "grade_answers", lambda *_: (graded, {"sampled": 20}))
    rows = [{"id": name, "prompt": "p", "language": "python", "tests": "{}"} for name in TASKS]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = run_builder("difficulty", tmp_path / "out", tasks=tmp_path / "tasks.jsonl", n=4, **settings)
    return counts, [json.loads(line) for line in (tmp_path / "out" / "tasks.jsonl").read_text().splitlines()]


def test_tasks_that_are_solved_sometimes_are_kept_and_the_easiest_are_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, rows = build(tmp_path, monkeypatch)
    assert [(row["id"], row["pass_rate"], row["pass_samples"]) for row in rows] == [
        ("often", 0.75, 4),
        ("seldom", 0.25, 4),
    ]
    assert counts["kept"] == 2 and counts["removed"] == {"too_easy": 1, "too_hard": 1, "ungraded": 1}
    rates = [json.loads(line) for line in (tmp_path / "out" / "pass-rates.jsonl").read_text().splitlines()]
    assert {row["id"]: row["pass_rate"] for row in rates} == dict(zip(TASKS, [0.0, 1.0, 0.25, 0.75, None], strict=True))


def test_the_bounds_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, rows = build(tmp_path, monkeypatch, min_pass_rate=0.5, max_pass_rate=1.0)
    assert [row["id"] for row in rows] == ["always", "often"]


def test_without_a_task_between_the_bounds_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"no task has a pass rate from 0\.4 to 0\.6 .*sample more answers"):
        build(tmp_path, monkeypatch, min_pass_rate=0.4, max_pass_rate=0.6)
    with pytest.raises(ValueError, match="must not be above"):
        build(tmp_path, monkeypatch, min_pass_rate=0.9, max_pass_rate=0.1)


def test_an_answer_that_was_cut_off_counts_as_failed_although_its_text_passes() -> None:
    graded = GradedAnswers(["good"], ["good", "bad"])
    assert pass_rate(sampled(1, 1, 2), graded) == 0.25
    assert pass_rate(sampled(0, 3), GradedAnswers()) is None
