"""One step of every stage with LoRA, on random weights in the exact shape of Qwen2.5-Coder-0.5B."""

import json
import shutil

import pytest
import tiny

from alignment.models import loading
from alignment.models.shapes import MAX_POSITION_EMBEDDINGS, ROPE_THETA, SHAPES
from alignment.models.source import ModelSource, RandomInit

pytestmark = pytest.mark.slow
SHAPE = SHAPES["0.5b"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, data_dir):
    """A folder with rows, and a checkpoint of the shape with the real tokenizer."""
    folder = tmp_path_factory.mktemp("exact")
    tiny.write_rows(folder)
    init = {**vars(SHAPE), "max_position_embeddings": MAX_POSITION_EMBEDDINGS, "rope_theta": ROPE_THETA}
    tokenizer = loading.load_tokenizer(ModelSource(path=str(data_dir / "qwen2.5-coder-tokenizer")))
    loading.write_random(ModelSource(init=RandomInit(**init)), tokenizer, 0, folder / "base")
    yield folder
    shutil.rmtree(folder)  # gigabytes


@pytest.mark.parametrize("kind", tiny.stages())
def test_one_step_at_the_exact_shape(kind, workshop):
    stage = tiny.stages()[kind]
    stage["peft"] = {"r": 4, "lora_alpha": 8}
    stage["train"] |= {"max_steps": 1, "save_strategy": "no", "max_length": 64, "per_device_train_batch_size": 1}
    del stage["train"]["save_steps"]
    if kind == "grpo":
        stage["train"] |= {"num_generations": 2, "per_device_train_batch_size": 2, "max_completion_length": 4}
    done = tiny.launch(tiny.write_recipe(workshop, {kind: stage}, model={"path": "./base", "dtype": "bfloat16"}))
    assert done.returncode == 0, tiny.output(done)
    artifact = json.loads((workshop / "runs" / "tiny" / kind / "artifact.json").read_text())
    assert artifact["metrics"]["steps"] == 1
    assert artifact["contract"]["parameters"] == SHAPE.parameters
    assert artifact["metrics"]["merge_logit_difference"] <= loading.MERGE_TOLERANCE
    shutil.rmtree(workshop / "runs")
