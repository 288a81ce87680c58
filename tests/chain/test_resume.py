"""Killed at any moment, the same command goes on and ends with the weights of a run that was never interrupted."""

import hashlib
import os
import signal
import subprocess
import time

import pytest
import tiny

pytestmark = pytest.mark.nightly

# Where to strike: a file that appears while the run goes on, in the order of the run; the last chances of a stage too.
MOMENTS = [
    "pretrain-*/prepared/counts.json",
    "pretrain-*/checkpoints/checkpoint-2/whole-0.json",
    "pretrain-*/result.json",
    "sft-*/checkpoints/checkpoint-2",
    "sft-*/checkpoints/checkpoint-5/whole-0.json",
    "dpo-*/prepared/counts.json",
    "dpo-*/checkpoints/checkpoint-4/whole-0.json",
    "grpo-*/logs/rank0.log",
    "grpo-*/checkpoints/checkpoint-2/whole-0.json",
    "grpo-*/checkpoints/checkpoint-4/whole-0.json",
]


def recipe(folder):
    chosen = tiny.stages()
    for name, stage in chosen.items():
        # An odd number of steps ends in the middle of an epoch; GRPO's ten tasks make it see a second one.
        stage["train"] |= {"max_steps": 12 if name == "grpo" else 5, "save_steps": 2}
    return tiny.write_recipe(folder, chosen)


def weights(folder):
    """Digests of the final weights, by stage."""
    run = folder / "runs" / "tiny"
    return {
        name: hashlib.sha256((run / name / "model" / "model.safetensors").read_bytes()).hexdigest()
        for name in tiny.stages()
    }


def strike(path, folder, moment):
    """Start the run, kill its whole process group at the moment, and say whether that came before the end."""
    process = subprocess.Popen(
        tiny.command(path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=tiny.environment(),
        start_new_session=True,
    )
    artifacts = folder / "runs" / "tiny" / "artifacts"
    while process.poll() is None and not any(artifacts.glob(moment)):
        time.sleep(0.02)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return alive


def test_a_run_killed_ten_times_ends_with_the_weights_of_an_undisturbed_one(make_workshop):
    undisturbed, killed = make_workshop(), make_workshop()
    done = tiny.launch(recipe(undisturbed))
    assert done.returncode == 0, tiny.said(done)
    path = recipe(killed)
    strikes = [strike(path, killed, moment) for moment in MOMENTS]
    assert sum(strikes) == len(MOMENTS), f"the run ended before some moments came: {strikes}"
    done = tiny.launch(path)
    assert done.returncode == 0, tiny.said(done)
    assert weights(killed) == weights(undisturbed)
