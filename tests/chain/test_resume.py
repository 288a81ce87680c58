"""Killed at any moment, the same command goes on and ends with the weights of a run that was never interrupted."""

import hashlib
import random

import pytest
import tiny

pytestmark = pytest.mark.slow

# Where to strike, a random moment after a file appears: in the order of the run, the last chances of a stage too.
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
    """Digests of the final weights, by stage."""
    run = folder / "runs" / "tiny"
    return {
        name: hashlib.sha256((run / name / "model" / "model.safetensors").read_bytes()).hexdigest() for name in names
    }


@pytest.fixture(scope="module", params=MOMENTS, ids="-".join)
def undisturbed(request, make_workshop):
    """The names of the stages, and the weights of a run that nothing interrupted."""
    folder = make_workshop()
    done = tiny.launch(recipe(folder, request.param))
    assert done.returncode == 0, tiny.said(done)
    return request.param, weights(folder, request.param)


def test_a_run_killed_again_and_again_ends_with_the_weights_of_an_undisturbed_one(undisturbed, make_workshop):
    names, expected = undisturbed
    folder = make_workshop()
    path = recipe(folder, names)
    strikes = []
    for moment in MOMENTS[names]:
        delay = random.random() * 0.3
        strikes.append((moment, round(delay, 3), tiny.strike(path, folder, moment, delay=delay)))
    assert all(alive for _, _, alive in strikes), f"the run ended before some moments came: {strikes}"
    done = tiny.launch(path)
    assert done.returncode == 0, tiny.said(done)
    assert weights(folder, names) == expected, strikes
