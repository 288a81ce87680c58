"""Training in two processes on the CPU has the losses of one process with twice the batch, also with DeepSpeed."""

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
    assert done.returncode == 0, tiny.output(done)
    return losses(folder)


@pytest.mark.parametrize("config", ["ddp", "zero2", "zero3"])
def test_two_processes_killed_and_resumed_have_the_losses_of_one_process(config, alone, make_workshop):
    folder = make_workshop()
    path = recipe(folder, "sft", batch=2)
    moment = "sft-*/checkpoints/checkpoint-4/whole-1.json"  # the checkpoint before it is then whole on both ranks
    assert tiny.kill_during(path, folder, moment, config=config, processes=2), "the run ended before it could be killed"
    done = tiny.launch(path, config=config, processes=2)
    assert done.returncode == 0, tiny.output(done)
    assert "resumes from checkpoint-" in tiny.output(done)
    assert losses(folder) == pytest.approx(alone, rel=2e-3)
    artifact = json.loads((folder / "runs" / "tiny" / "sft" / "artifact.json").read_text())
    assert artifact["world_size"] == 2
    assert artifact["contract"]["tensors"] > 0  # gathered, none empty, and loaded again


@pytest.mark.parametrize("config", ["zero1", "zero3_offload"])
def test_zero1_and_offloading_have_the_losses_of_one_process(config, alone, make_workshop):
    """At its first use, offloading compiles DeepSpeed's Adam for CPUs."""
    folder = make_workshop()
    done = tiny.launch(recipe(folder, "sft", batch=2, max_steps=4), config=config, processes=2)
    assert done.returncode == 0, tiny.output(done)
    assert losses(folder)[:2] == pytest.approx(alone[:2], rel=2e-3)  # the schedule is a shorter one
    artifact = json.loads((folder / "runs" / "tiny" / "sft" / "artifact.json").read_text())
    assert artifact["contract"]["tensors"] > 0


def test_sequence_parallelism_trains_on_the_cpu(make_workshop):
    """Ulysses with ZeRO-3 and sdpa. Packing is off: it needs flash attention, and is refused with sdpa."""
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
    assert done.returncode == 0, tiny.output(done)
    artifact = json.loads((folder / "runs" / "tiny" / "sft" / "artifact.json").read_text())
    assert artifact["world_size"] == 2 and artifact["metrics"]["steps"] == 2
    assert artifact["contract"]["tensors"] > 0


def test_zero3_gathers_an_adapter_and_merges_it(make_workshop):
    folder = make_workshop()
    path = recipe(folder, "sft", batch=2, max_steps=2)
    done = tiny.launch(path, "--set", "stages.sft.peft={r: 4, lora_alpha: 8}", config="zero3", processes=2)
    assert done.returncode == 0, tiny.output(done)
    artifact = json.loads((folder / "runs" / "tiny" / "sft" / "artifact.json").read_text())
    assert artifact["contract"]["tensors"] > 0 and artifact["metrics"]["merge_logit_difference"] < 1e-4


def test_a_checkpoint_of_two_processes_is_refused_by_one_process(make_workshop):
    folder = make_workshop()
    path = recipe(folder, "sft", batch=2)
    assert tiny.kill_during(path, folder, "sft-*/checkpoints/checkpoint-2/whole-1.json", config="ddp", processes=2)
    done = tiny.launch(path)
    output = tiny.output(done)
    assert done.returncode == 1 and "was written by 2 processes and this run has 1. Launch with 2 again" in output
    assert list(folder.glob("runs/tiny/artifacts/sft-*/checkpoints/checkpoint-*")), "nothing may be thrown away"


def test_fsdp_is_refused_on_cpus(make_workshop):
    folder = make_workshop()
    done = tiny.launch(recipe(folder, "sft", batch=2), config="fsdp2", processes=2)
    assert done.returncode == 1 and "FSDP shards on accelerators only" in tiny.output(done)
