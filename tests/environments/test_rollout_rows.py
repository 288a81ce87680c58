"""Rollouts are kept as rows with verdict, reward and turns, and `align rollouts` shows those that are asked for."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from alignment.cli import main
from alignment.environments.rollout_environment import RolloutOutcome
from alignment.recipe.stage_parts import Reward
from alignment.rewards import build_rewards
from alignment.stages.rollout_rows import RolloutRows, read_rollouts

PROMPT = [{"role": "user", "content": "Write f."}]
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "lookup", "arguments": {"key": "a"}}}]}


def scored(rows, step, completions, **columns):
    """Score a batch with `parses` and record it."""
    logged = {}

    async def with_verdict(prompts, completions, **columns):
        columns["log_extra"]("verdict", ["passed"] * len(completions))
        return await build_rewards([Reward(name="parses")], None)[0](prompts, completions, **columns)

    count = len(completions)
    columns = {"id": [f"t{n}" for n in range(count)], "completion_ids": [[1, 2, 3]] * count, **columns}
    state = SimpleNamespace(global_step=step)
    reward = rows.recording(with_verdict)
    scores = asyncio.run(
        reward([PROMPT] * count, completions, trainer_state=state, log_extra=logged.__setitem__, **columns)
    )
    assert logged["verdict"] == ["passed"] * count, "TRL's table of completions gets the column too"
    return scores


def answer(text):
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def run(tmp_path):
    rows = RolloutRows(tmp_path / "rl", 0)
    for step in range(3):
        assert scored(rows, step, [answer(f"x = {step}"), answer("x =")]) == [1.0, 0.0]
    return tmp_path


def steps(run):
    return [row["step"] for row in read_rollouts(run / "rl" / "rollouts" / "rank-0.jsonl")]


def test_a_row_has_prompt_turns_verdict_reward_and_tokens(run):
    row = next(read_rollouts(run / "rl" / "rollouts" / "rank-0.jsonl"))
    assert row == {
        "step": 0, "task": "t0", "reward": 1.0, "verdict": "passed", "tokens": 3, "prompt": PROMPT, "turns": answer("x = 0")
    }  # fmt: skip


def test_a_resumed_run_writes_the_steps_after_its_checkpoint_again(run):
    with (run / "rl" / "rollouts" / "rank-0.jsonl").open("a") as file:
        file.write('{"step": 3, "cut')
    scored(RolloutRows(run / "rl", 0), 1, [answer("y = 1")])
    assert steps(run) == [0, 0, 1]


def test_rollouts_with_an_environment_have_its_counts(tmp_path):
    outcome = RolloutOutcome(submission="x = 1", problem="broken")
    environment = SimpleNamespace(outcome=outcome, score=None)
    rows = RolloutRows(tmp_path, 1)
    assert scored(
        rows, 0, [[CALL, {"role": "tool", "content": "7"}, *answer("x = 7")]], environments=[environment]
    ) == [None]
    (row,) = read_rollouts(tmp_path / "rollouts" / "rank-1.jsonl")
    assert row["problem"] == "broken" and row["submission"] == "x = 1" and row["environment"]["calls"] == 0
    assert [turn["role"] for turn in row["turns"]] == ["assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("options", "tasks"),
    [
        ([], [(1, "t1"), (2, "t0"), (2, "t1")]),
        (["--step", "0"], [(0, "t0"), (0, "t1")]),
        (["--above", "0.5"], [(0, "t0"), (1, "t0"), (2, "t0")]),
        (["--below", "0.5", "--step", "1"], [(1, "t1")]),
        (["--task", "t0", "-n", "1"], [(2, "t0")]),
    ],
)
def test_the_command_filters_by_step_task_and_reward(run, options, tasks, capsys):
    assert main(["rollouts", str(run), "-n", "3", "--json", *options]) == 0
    assert [(row["step"], row["task"]) for row in json.loads(capsys.readouterr().out)] == tasks


def test_the_command_shows_turns_and_calls_as_text(tmp_path, capsys):
    scored(RolloutRows(tmp_path, 0), 0, [[CALL, {"role": "tool", "content": "7"}, *answer("x = 7")]])
    assert main(["rollouts", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for text in ('-> lookup({"key": "a"})', "--- turns: tool\n7", "x = 7", "reward: 1.0", "verdict: passed"):
        assert text in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--step", "9"], "6 rollouts of the steps 0 to 2"),
        (["--ungraded"], "no rollout is selected"),
        (["-n", "0"], "at least 1"),
    ],
)
def test_a_selection_of_nothing_is_an_error(run, options, message, capsys):
    assert main(["rollouts", str(run), *options]) == 1
    assert message in capsys.readouterr().err


def test_a_folder_without_rollouts_is_an_error(tmp_path, capsys):
    assert main(["rollouts", str(tmp_path)]) == 1
    assert "has no rollouts" in capsys.readouterr().err
