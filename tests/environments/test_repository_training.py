"""GRPO with the environment `repository`: tool calls change a repository, and an interrupted run ends with the same bits."""

import hashlib
import json
import random
import shutil

import pytest
from shop_repository import FILE, RIGHT, WRONG

from alignment.environments.environment_registry import build_environment
from alignment.environments.rollout_environment import tool_schemas
from alignment.models.source import ModelSource, RandomInit
from alignment.recipe.stage_parts import GrpoEnvironment
from alignment.recipe.stage_request import StageRequest
from alignment.stages import grpo, sft
from alignment.stages.rollout_rows import read_rollouts
from data_builders.synthetic.tokenizer import train_tokenizer

pytestmark = pytest.mark.slow
PROMPT = "Discounts are added, not taken off."
INIT = RandomInit(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=4096,
)  # fmt: skip


def call(name, **arguments):
    return {"role": "assistant", "content": "", "tool_calls": [{"name": name, "arguments": arguments}]}


def conversation(draw, tools):
    """A repair that is right, wrong, or of a test file; a test file can't be changed."""
    path, search, replace, result = draw.choice(
        [
            ("shop/prices.py", WRONG, RIGHT, "shop/prices.py is changed."),
            ("shop/prices.py", WRONG, "0", "shop/prices.py is changed."),
            (FILE, "== 1.5", "== 53", f"error: {FILE}: test files can't be changed"),
        ]
    )
    return {
        "messages": [
            {"role": "user", "content": PROMPT},
            call("edit_file", path=path, search=search, replace=replace),
            {"role": "tool", "content": result},
            {"role": "assistant", "content": "Done."},
        ],
        "tools": tools,
    }


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{"data": str(path)}]


@pytest.fixture(scope="module")
def taught(tmp_path_factory, grader):
    """A model that SFT taught to call `edit_file`."""
    folder = tmp_path_factory.mktemp("taught")
    tools = tool_schemas(build_environment(GrpoEnvironment(name="repository"), grader))
    draw = random.Random(0)
    rows = [conversation(draw, tools) for _ in range(120)]
    train_tokenizer([json.dumps(row) for row in rows[:20]] * 3, 900, folder / "tokenizer")
    train = {"max_steps": 300, "per_device_train_batch_size": 4, "learning_rate": 0.004, "max_length": 2048,
             "save_strategy": "no", "gradient_checkpointing": False}  # fmt: skip
    model = ModelSource(init=INIT, tokenizer=str(folder / "tokenizer"), dtype="float32")
    stage = {"name": "sft", "kind": "sft", "data": write(folder / "rows.jsonl", rows), "train": train}
    sft.run(StageRequest.for_stage(stage, folder / "sft", model, tracking={"wandb": "disabled"}))
    return folder / "sft" / "model"


def trained(taught, tasks, out):
    """Run the GRPO stage and return a digest of the weights."""
    stage = {
        "name": "rl", "kind": "grpo", "data": tasks, "rewards": [{"name": "tests_passed"}], "forgeable": "allow",
        "environment": {"name": "repository", "turns": 2},
        "train": {"max_steps": 4, "per_device_train_batch_size": 6, "num_generations": 6, "max_completion_length": 200,
                  "learning_rate": 0.0001, "save_strategy": "steps", "save_steps": 2, "gradient_checkpointing": False,
                  "logging_steps": 1},
    }  # fmt: skip
    model = ModelSource(path=str(taught), dtype="float32")
    grpo.run(StageRequest.for_stage(stage, out, model, tracking={"wandb": "disabled"}))
    return hashlib.sha256((out / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_rollouts_change_the_repository_and_a_resumed_run_has_the_same_bits(taught, repository_task, tmp_path):
    tasks = write(tmp_path / "tasks.jsonl", [{**repository_task, "prompt": PROMPT}])
    weights = trained(taught, tasks, tmp_path / "whole")
    (file,) = (tmp_path / "whole" / "rollouts").iterdir()
    rows = list(read_rollouts(file))
    assert [sum(row["step"] == step for row in rows) for step in range(4)] == [6] * 4
    assert {row["reward"] for row in rows} == {0.0, 1.0}, "some rollouts repair the bug, others do not"
    for row in rows:
        assert row["problem"] is None
        if row["reward"]:
            assert RIGHT in row["submission"] and row["environment"]["calls"]
        assert FILE not in row["submission"]
    cheated = [row for row in rows if "test files can't be changed" in json.dumps(row["turns"])]
    assert cheated and all(row["environment"]["wrong_calls"] and row["reward"] == 0 for row in cheated)

    again = tmp_path / "again"
    (again / "checkpoints").mkdir(parents=True)
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "checkpoint-2", again / "checkpoints" / "checkpoint-2")
    assert trained(taught, tasks, again) == weights
    (file,) = (again / "rollouts").iterdir()
    resumed = list(read_rollouts(file))
    assert [row["step"] for row in resumed] == [2] * 6 + [3] * 6
    assert [row["turns"] for row in resumed] == [row["turns"] for row in rows[12:]]
