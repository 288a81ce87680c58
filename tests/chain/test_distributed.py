"""Several processes on the CPU: the trajectory of one with the doubled batch, and DeepSpeed through the real chain."""

import json
import subprocess

import pytest
import tiny
import yaml

pytestmark = pytest.mark.slow


def recipe(folder, *kinds, batch, **train):
    chosen = {kind: tiny.stages()[kind] for kind in kinds}
    for stage in chosen.values():
        stage["train"] |= {"per_device_train_batch_size": batch, "max_steps": 12, **train}
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


@pytest.mark.parametrize("config", ["ddp", "zero2", "zero3"])
def test_two_processes_killed_midway_follow_one_with_the_doubled_batch(config, alone, make_workshop):
    folder = make_workshop()
    path = recipe(folder, "sft", batch=2)
    moment = "sft-*/checkpoints/checkpoint-4/whole-1.json"  # then at least the one before is whole on both ranks
    assert tiny.strike(path, folder, moment, config=config, processes=2), "the run ended before it could be killed"
    done = tiny.launch(path, config=config, processes=2)
    assert done.returncode == 0, tiny.said(done)
    assert "goes on from checkpoint-" in tiny.said(done)
    assert losses(folder) == pytest.approx(alone, rel=2e-3)
    artifact = json.loads((folder / "runs" / "tiny" / "sft" / "artifact.json").read_text())
    assert artifact["world_size"] == 2
    assert artifact["contract"]["tensors"] > 0  # gathered, none empty, and loaded again


@pytest.mark.parametrize("config", ["zero1", "zero3_offload"])
def test_other_ways_to_shard_follow_it_too(config, alone, make_workshop):
    """Offloading compiles DeepSpeed's Adam for CPUs at its first use."""
    folder = make_workshop()
    done = tiny.launch(recipe(folder, "sft", batch=2, max_steps=4), config=config, processes=2)
    assert done.returncode == 0, tiny.said(done)
    assert losses(folder)[:2] == pytest.approx(alone[:2], rel=2e-3)  # the schedule is a shorter one
    artifact = json.loads((folder / "runs" / "tiny" / "sft" / "artifact.json").read_text())
    assert artifact["contract"]["tensors"] > 0


def test_two_processes_share_every_row(make_workshop):
    """Ulysses under ZeRO-3, with the attention that CPUs have; packing needs another, and is refused with this one."""
    folder = make_workshop()
    layout = yaml.safe_load((tiny.ROOT / "accelerate_configs" / "ulysses.yaml").read_text()) | {"num_processes": 2}
    layout["parallelism_config"] |= {
        "parallelism_config_sp_size": 2,
        "parallelism_config_sp_attn_implementation": "sdpa",
    }
    (folder / "ulysses.yaml").write_text(yaml.safe_dump(layout))
    command = tiny.command(recipe(folder, "sft", batch=2, max_steps=2, packing=False), processes=2)
    command[command.index("--config_file") + 1] = str(folder / "ulysses.yaml")
    done = subprocess.run(command, capture_output=True, text=True, env=tiny.environment(), timeout=900)
    assert done.returncode == 0, tiny.said(done)
    artifact = json.loads((folder / "runs" / "tiny" / "sft" / "artifact.json").read_text())
    assert artifact["world_size"] == 2 and artifact["metrics"]["steps"] == 2
    assert artifact["contract"]["tensors"] > 0


def test_zero3_gathers_an_adapter_and_the_merge_is_proven(make_workshop):
    folder = make_workshop()
    path = recipe(folder, "sft", batch=2, max_steps=2)
    done = tiny.launch(path, "--set", "stages.sft.peft={r: 4, lora_alpha: 8}", config="zero3", processes=2)
    assert done.returncode == 0, tiny.said(done)
    artifact = json.loads((folder / "runs" / "tiny" / "sft" / "artifact.json").read_text())
    assert artifact["contract"]["tensors"] > 0 and artifact["metrics"]["merge_logit_difference"] < 1e-4


def test_a_checkpoint_of_two_processes_is_refused_by_one_and_says_why(make_workshop):
    folder = make_workshop()
    path = recipe(folder, "sft", batch=2)
    assert tiny.strike(path, folder, "sft-*/checkpoints/checkpoint-2/whole-1.json", config="ddp", processes=2)
    done = tiny.launch(path)
    said = tiny.said(done)
    assert done.returncode == 1 and "was written by 2 processes and this run has 1. Launch with 2 again" in said
    assert list(folder.glob("runs/tiny/artifacts/sft-*/checkpoints/checkpoint-*")), "nothing may be thrown away"


def test_fsdp_is_refused_on_cpus_where_it_would_not_shard(make_workshop):
    folder = make_workshop()
    done = tiny.launch(recipe(folder, "sft", batch=2), config="fsdp2", processes=2)
    assert done.returncode == 1 and "FSDP shards on accelerators only" in tiny.said(done)
