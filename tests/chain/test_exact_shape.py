"""The exact shape of Qwen2.5-Coder-0.5B, random weights and the real tokenizer: one step of every stage with LoRA."""

import json
import shutil

import pytest
import tiny

from alignment.shapes import MAX_POSITION_EMBEDDINGS, ROPE_THETA, SHAPES

pytestmark = pytest.mark.nightly


def test_one_step_of_every_stage_at_the_exact_shape(tmp_path, data_dir):
    shape = SHAPES["0.5b"]
    tiny.write_rows(tmp_path)
    shutil.copytree(data_dir / "qwen2.5-coder-tokenizer", tmp_path / "tokenizer")
    init = {**vars(shape), "max_position_embeddings": MAX_POSITION_EMBEDDINGS, "rope_theta": ROPE_THETA}
    chosen = tiny.stages()
    for stage in chosen.values():
        stage["peft"] = {"r": 4, "lora_alpha": 8}
        stage["train"] |= {"max_steps": 1, "save_strategy": "no", "max_length": 64, "per_device_train_batch_size": 1}
        stage["train"].pop("save_steps")
    chosen["grpo"]["train"] |= {"num_generations": 2, "per_device_train_batch_size": 2, "max_completion_length": 4}
    recipe = tiny.write_recipe(tmp_path, chosen, model={"init": init, "tokenizer": "tokenizer", "dtype": "bfloat16"})
    done = tiny.launch(recipe)
    assert done.returncode == 0, tiny.said(done)
    for name in chosen:
        artifact = json.loads((tmp_path / "runs" / "tiny" / name / "artifact.json").read_text())
        assert artifact["metrics"]["steps"] == 1
        assert artifact["contract"]["parameters"] == shape.parameters
        assert artifact["metrics"]["merge_logit_difference"] <= 3e-2
