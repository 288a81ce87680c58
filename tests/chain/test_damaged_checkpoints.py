"""A run whose newest checkpoint is damaged resumes from the one before, says why, and ends with the same weights."""

import pytest
import tiny
from damaged_files import DAMAGE

pytestmark = pytest.mark.slow


def recipe(folder, kind, **settings):
    stage = tiny.stages()[kind]
    stage["train"] |= {"max_steps": 6, "save_steps": 2, "per_device_train_batch_size": 2}
    return tiny.write_recipe(folder, {kind: {**stage, **settings}})


def weights(folder, kind):
    return (folder / "runs" / "tiny" / kind / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("kind", "settings", "file", "damage"),
    [
        ("sft", {}, "optimizer.pt", "deleted"),
        ("sft", {}, "optimizer.pt", "flipped"),
        ("sft", {}, "trainer_state.json", "half"),
        ("sft", {}, "model.safetensors", "flipped"),
        ("sft", {"peft": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1}}, "rng_state.pth", "deleted"),
        ("dpo", {}, "optimizer.pt", "deleted"),
    ],
)
def test_the_checkpoint_before_a_damaged_one_is_resumed(make_workshop, kind, settings, file, damage):
    undisturbed = make_workshop()
    assert tiny.launch(recipe(undisturbed, kind, **settings)).returncode == 0
    folder = make_workshop()
    path = recipe(folder, kind, **settings)
    assert tiny.kill_during(path, folder, f"{kind}-*/checkpoints/checkpoint-4/whole-0.json")
    (newest,) = folder.glob(f"runs/tiny/artifacts/{kind}-*/checkpoints/checkpoint-4")
    DAMAGE[damage](newest / file)
    done = tiny.launch(path)
    output = tiny.output(done)
    assert done.returncode == 0, output
    assert "checkpoint-4 is not used" in output and file in output and "resumes from checkpoint-2" in output
    assert weights(folder, kind) == weights(undisturbed, kind)
