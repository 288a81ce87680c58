"""A world whose values are hidden behind a tool: SFT teaches calls, GRPO rolls them out with the environment."""

import json
import random
from pathlib import Path

import pytest
from trl import GRPOTrainer

from alignment.models.source import ModelSource, RandomInit
from alignment.recipe.stage_request import StageRequest
from alignment.stages import grpo, sft
from alignment.stages.rollout_rows import read_rollouts
from data_builders.synthetic.tokenizer import train_tokenizer

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "environment.py"
KEYS = "abcd"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": "string", "description": text}},
                "required": [key],
            },
            "return": {"type": "string"},
        },
    }
    for name, description, key, text in (
        ("lookup", "Look into a box.", "key", "The box's name."),
        ("report", "Report the value that was asked for.", "value", "The value."),
    )
]
INIT = RandomInit(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=1024,
)  # fmt: skip


def call(name, **arguments):
    return {"role": "assistant", "content": "", "tool_calls": [{"name": name, "arguments": arguments}]}


def conversation(draw):
    key, value = draw.choice(KEYS), str(draw.randrange(10))
    return {
        "messages": [
            {"role": "user", "content": f"What is in box {key}?"},
            call("lookup", key=key),
            {"role": "tool", "content": value},
            call("report", value=value),
            {"role": "tool", "content": "reported"},
            {"role": "assistant", "content": "Done."},
        ],
        "tools": TOOLS,
    }


def task(number, draw):
    boxes = {key: str(draw.randrange(10)) for key in KEYS}
    wanted = draw.choice(KEYS)
    return {"id": str(number), "prompt": f"What is in box {wanted}?", "environment": {"boxes": boxes, "wanted": wanted}}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{"data": str(path)}]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A model that SFT taught to call the tools, and tasks."""
    folder = tmp_path_factory.mktemp("lookup")
    draw = random.Random(0)
    rows = [conversation(draw) for _ in range(400)]
    train_tokenizer([json.dumps(row) for row in rows[:40]] * 3, 600, folder / "tokenizer")
    data = write(folder / "rows.jsonl", rows)
    train = {"max_steps": 150, "per_device_train_batch_size": 16, "learning_rate": 0.004, "max_length": 1024,
             "save_strategy": "no", "gradient_checkpointing": False}  # fmt: skip
    model = ModelSource(init=INIT, tokenizer=str(folder / "tokenizer"), dtype="float32")
    stage = {"name": "sft", "kind": "sft", "data": data, "train": train}
    sft.run(StageRequest.for_stage(stage, folder / "sft", model, tracking={"wandb": "disabled"}))
    write(folder / "tasks.jsonl", [task(number, draw) for number in range(16)])
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])  # generation by transformers, and by the CPU decoder
def test_rollouts_call_the_tools_results_carry_no_loss_and_the_reward_flows(workshop, monkeypatch, dtype):
    batches = []
    original = GRPOTrainer._generate_and_score_completions

    def spied(self, inputs):
        batches.append(original(self, inputs))
        tokenizers.append(self.processing_class)
        return batches[-1]

    tokenizers = []
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", spied)
    stage = {
        "name": "rl", "kind": "grpo", "data": [{"data": str(workshop / "tasks.jsonl")}], "rewards": [{"name": "environment"}],
        "environment": {"path": f"{EXAMPLE}:Boxes", "turns": 2},
        "train": {"max_steps": 3, "per_device_train_batch_size": 8, "num_generations": 8, "max_completion_length": 160,
                  "learning_rate": 0.0001, "save_strategy": "no", "gradient_checkpointing": False, "logging_steps": 1},
    }  # fmt: skip
    model = ModelSource(path=str(workshop / "sft" / "model"), dtype=dtype)
    out = workshop / dtype
    result = grpo.run(StageRequest.for_stage(stage, out, model, tracking={"wandb": "disabled"}))
    assert result["metrics"]["steps"] == 3
    (file,) = (out / "rollouts").iterdir()
    rows = list(read_rollouts(file))
    assert [sum(row["step"] == step for row in rows) for step in range(3)] == [8, 8, 8]
    called = [row for row in rows if any(turn["role"] == "tool" for turn in row["turns"])]
    assert len(called) > 12, "SFT taught calls, and the environment answered them"
    assert all(row["environment"]["calls"] <= 2 * 8 and row["problem"] is None for row in rows)
    rewards = {row["reward"] for row in rows}
    assert rewards == {0.0, 1.0}, "some rollouts report the right value, others do not"
    assert all(row["environment"]["calls"] for row in rows if row["reward"]), "no reward without a call"
    for batch, tokenizer in zip(batches, tokenizers, strict=True):
        seen = batch["completion_mask"].bool()
        learned, ignored = (
            tokenizer.decode(batch["completion_ids"][seen & (batch["tool_mask"] == value)]) for value in (1, 0)
        )
        assert "<tool_response>" not in learned and ("<tool_response>" in ignored) == ("</tool_response>" in ignored)
    assert any((batch["tool_mask"] == 0).any() for batch in batches)
