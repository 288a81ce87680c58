"""Several processes on the CPU: the trajectory of one with the doubled batch, and DeepSpeed through the real chain."""

import json

import pytest
import tiny

pytestmark = pytest.mark.slow


def recipe(folder, *kinds, batch, **train):
    chosen = {kind: tiny.stages()[kind] for kind in kinds}
    for stage in chosen.values():
        stage["train"] |= {"per_device_train_batch_size": batch, **train}
    return tiny.write_recipe(folder, chosen)


def losses(folder, stage="sft"):
    lines = (folder / "runs" / "tiny" / stage / "metrics.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


@pytest.fixture(scope="module")
def alone(make_workshop):
    """The losses of one process with a batch of 4."""
    folder = make_workshop()
    done = tiny.launch(recipe(folder, "sft", batch=4))
    assert done.returncode == 0, tiny.said(done)
    return losses(folder)


@pytest.mark.parametrize(
    "config",
    ["ddp", pytest.param("zero2", marks=pytest.mark.nightly), pytest.param("zero3", marks=pytest.mark.nightly)],
)
def test_two_processes_follow_one_with_the_doubled_batch(config, alone, make_workshop):
    folder = make_workshop()
    done = tiny.launch(recipe(folder, "sft", batch=2), config=config, processes=2)
    assert done.returncode == 0, tiny.said(done)
    assert losses(folder) == pytest.approx(alone, rel=2e-3)
    artifact = json.loads((folder / "runs" / "tiny" / "sft" / "artifact.json").read_text())
    assert artifact["world_size"] == 2
    assert artifact["contract"]["tensors"] > 0  # gathered, and sound
