"""Tasks whose verdict a program can forge are left out of rewards unless the recipe allows them; the tier reaches the reward."""

import asyncio
import json
import logging

import pytest
from datasets import load_from_disk

from alignment.evaluation.results import write_results
from alignment.evaluation.scoring import Outcome
from alignment.grading.task import tier_of
from alignment.recipe.stage_request import StageRequest
from alignment.rewards.combination import RewardPart, combined, log_by_tier
from alignment.stages import grpo
from alignment.stages.rollout_rows import RolloutRows, read_rollouts
from data_builders import preferences
from data_builders.builder import BuildContext
from data_builders.builder_registry import find_builder

TARGET = {"file": "a.py", "qualname": "f"}
SAFE = {
    "id": "safe",
    "prompt": "f?",
    "kind": "calls",
    "tests": '{"cases": [{"args": [1], "expected": 1}]}',
    "entry_point": "f",
}


def repository_row(name, tier, kind="pytest", language="python"):
    tests = {"suite": "0" * 32, "tier": tier, "target": TARGET, "visible": ["a"], "hidden": ["b"]}
    return {
        "id": name,
        "prompt": "f?",
        "kind": kind,
        "language": language,
        "tests": json.dumps(tests),
        "entry_point": "f",
    }


ROWS = [
    SAFE, repository_row("apart", "A"), repository_row("together", "B"), repository_row("node", "B", "node", "javascript"),
    {"id": "own", "prompt": "f?", "kind": "program", "language": "bash", "tests": "{}"}, {**SAFE, "id": "marked", "forgeable": True},
    {**SAFE, "id": "not marked", "forgeable": False},
]  # fmt: skip


def test_the_tier_of_each_kind_of_task():
    assert [tier_of(row) for row in ROWS] == ["A", "A", "B", "B", "B", "B", "A"]
    assert tier_of({**ROWS[2], "tests": json.loads(ROWS[2]["tests"])}) == "B"


def prepare(rows, tokenizer, out, **settings):
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = {"name": "rl", "kind": "grpo", "data": [{"data": str(out / "rows.jsonl")}], **settings}
    return grpo.prepare_tasks(StageRequest.for_stage(stage, out), tokenizer, out)


def test_forgeable_tasks_are_dropped_counted_and_named(tiny_tokenizer, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        counts = prepare(ROWS, tiny_tokenizer, tmp_path)
    rows = load_from_disk(str(tmp_path / "train"))
    assert sorted(rows["id"]) == ["apart", "not marked", "safe"] and set(rows["tier"]) == {"A"}
    assert (counts["rows"], counts["tasks"], counts["dropped_forgeable"]) == (7, 3, 4)
    assert "4 of 7 tasks are dropped" in caplog.text and "forgeable: allow" in caplog.text


def test_allowed_tasks_keep_their_tier(tiny_tokenizer, tmp_path):
    counts = prepare(ROWS, tiny_tokenizer, tmp_path, forgeable="allow")
    rows = load_from_disk(str(tmp_path / "train"))
    assert dict(zip(rows["id"], rows["tier"], strict=True)) == {row["id"]: tier_of(row) for row in ROWS}
    assert "dropped_forgeable" not in counts


def test_a_stage_with_forgeable_tasks_only_says_what_to_do(tiny_tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"no task is left.*forgeable: allow"):
        prepare([ROWS[2]], tiny_tokenizer, tmp_path)


def test_the_reward_is_logged_by_tier_and_reaches_rewards_and_rollouts(tmp_path):
    logged, seen = {}, []

    async def score(prompts, completions, **columns):
        seen.extend(columns["tier"])
        return [1.0, 0.0, None, 0.5]

    reward = RolloutRows(tmp_path, 0).recording(combined([RewardPart("score", score, 2.0)]))
    tiers = ["A", "B", "B", "A"]
    asyncio.run(reward(["p"] * 4, ["c"] * 4, tier=tiers, id=list("wxyz"), log_metric=logged.__setitem__))
    assert (logged["reward_by_tier/A"], logged["reward_by_tier/B"]) == (1.5, 0.0) and seen == tiers
    assert [row["tier"] for row in read_rollouts(tmp_path / "rollouts" / "rank-0.jsonl")] == tiers


@pytest.mark.parametrize(("rewards", "tiers"), [([1.0], []), ([], []), ([None], ["B"]), ([1.0, 2.0], ["A"])])
def test_nothing_is_logged_without_tiers_or_rewards(rewards, tiers):
    log_by_tier(rewards, tiers, lambda name, value: pytest.fail(name))
    log_by_tier(rewards, tiers, None)


def test_pairs_are_not_made_of_forgeable_tasks(tmp_path, monkeypatch):
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps({"language": "python", **row}) + "\n" for row in ROWS))
    asked = []

    def sample(settings, context, rows):
        asked.append([row["id"] for row in rows])
        return [[preferences.SampledAnswer("x", True)] for _ in rows]

    def grade(context, tasks, answers):
        return [preferences.GradedAnswers(["a"], ["b"]) for _ in tasks], {"passed": len(tasks)}

    monkeypatch.setattr(preferences, "sample_answers", sample)
    monkeypatch.setattr(preferences, "grade_answers", grade)
    builder = find_builder("preferences")
    for forgeable in ("refuse", "allow"):
        settings = builder.validate({"tasks": tmp_path / "tasks.jsonl", "forgeable": forgeable})
        counts = builder.run(settings, BuildContext(tmp_path, seed=1))
        assert counts.get("dropped_forgeable") == (4 if forgeable == "refuse" else None)
    assert asked == [["safe", "apart", "not marked"], [row["id"] for row in ROWS]]
    (tmp_path / "tasks.jsonl").write_text(json.dumps(ROWS[2]) + "\n")
    with pytest.raises(ValueError, match=r"forge.*forgeable: allow"):
        builder.run(builder.validate({"tasks": tmp_path / "tasks.jsonl"}), BuildContext(tmp_path, seed=1))


def test_verdicts_of_an_evaluation_are_marked(tmp_path):
    outcomes = [Outcome(name, 0, "", "stop", 1, "", "passed", "", "", {}, forgeable=name == "b") for name in "ab"]
    write_results(tmp_path, [], {"tasks": outcomes}, {"tasks": "chat"})
    rows = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [row.get("forgeable") for row in rows] == [None, True]
