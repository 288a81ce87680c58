"""A run that is killed at any moment and started again ends with the same weights as a run without interruption."""

import hashlib
import random

import pytest
import tiny

pytestmark = pytest.mark.slow

# The run is killed a random moment after one of these files appears, in this order, also late in a stage.
MOMENTS = {
    ("pretrain", "sft"): [
        "../prepared/pretrain-*/counts.json",
        "pretrain-*/checkpoints/checkpoint-2/whole-0.json",
        "pretrain-*/result.json",
        "sft-*/checkpoints/checkpoint-2",
        "sft-*/checkpoints/checkpoint-5/whole-0.json",
    ],
    ("dpo", "grpo"): [
        "../prepared/dpo-*/counts.json",
        "dpo-*/checkpoints/checkpoint-4/whole-0.json",
        "grpo-*/logs/rank0.log",
        "grpo-*/checkpoints/checkpoint-2/whole-0.json",
        "grpo-*/checkpoints/checkpoint-4/whole-0.json",
    ],
}


def recipe(folder, names):
    chosen = {name: tiny.stages()[name] for name in names}
    for name, stage in chosen.items():
        # An odd number of steps ends in the middle of an epoch; GRPO's ten tasks make it see a second one.
        stage["train"] |= {"max_steps": 12 if name == "grpo" else 5, "save_steps": 2}
    return tiny.write_recipe(folder, chosen)


def weights(folder, names):
    """Return a digest of the final weights of each stage."""
    run = folder / "runs" / "tiny"
    return {
        name: hashlib.sha256((run / name / "model" / "model.safetensors").read_bytes()).hexdigest() for name in names
    }


@pytest.fixture(scope="module", params=MOMENTS, ids="-".join)
def undisturbed(request, make_workshop):
    """The names of the stages, and their weights after a run without interruption."""
    folder = make_workshop()
    done = tiny.launch(recipe(folder, request.param))
    assert done.returncode == 0, tiny.output(done)
    return request.param, weights(folder, request.param)


def test_a_run_that_is_killed_several_times_ends_with_the_same_weights(undisturbed, make_workshop):
    names, expected = undisturbed
    folder = make_workshop()
    path = recipe(folder, names)
    kills = []
    for moment in MOMENTS[names]:
        delay = random.random() * 0.3
        kills.append((moment, round(delay, 3), tiny.kill_during(path, folder, moment, delay=delay)))
    assert all(alive for _, _, alive in kills), f"the run ended before some moments came: {kills}"
    done = tiny.launch(path)
    assert done.returncode == 0, tiny.output(done)
    assert weights(folder, names) == expected, kills
