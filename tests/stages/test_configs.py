"""TRL's and PEFT's own config objects: our defaults, what they refuse, and all refusals at once."""

import json
import subprocess
import sys

import pytest
import torch

from alignment.recipe import DpoStage, GrpoStage, PretrainStage, SftStage
from alignment.stages.configs import launch_refusals, lora_config, missing_packages, refusals, training_config

KINDS = {"pretrain": PretrainStage, "sft": SftStage, "dpo": DpoStage, "grpo": GrpoStage}


def stage(kind, **settings):
    return KINDS[kind](name=kind, kind=kind, data=[{"data": "rows.jsonl"}], **settings)


def config(kind, folder, **train):
    return training_config(stage(kind, train=train), 7, folder, wandb=False, run_name="r/x")


@pytest.mark.parametrize("kind", KINDS)
def test_seed_folder_and_tracking_are_the_chains(kind, tmp_path):
    found = config(kind, tmp_path)
    assert (found.seed, found.data_seed, found.report_to, found.run_name) == (7, 7, [], "r/x")
    assert found.output_dir == str(tmp_path / "checkpoints") and found.save_total_limit == 2


@pytest.mark.skipif(torch.accelerator.is_available(), reason="for machines without an accelerator")
def test_without_an_accelerator_training_is_on_the_cpu_in_float32_unless_asked(tmp_path):
    assert config("sft", tmp_path).use_cpu and not config("sft", tmp_path).bf16
    assert config("sft", tmp_path, bf16=True).bf16


def test_pretraining_packs_by_itself_and_sft_only_when_asked(tmp_path):
    assert config("pretrain", tmp_path).packing and config("pretrain", tmp_path).packing_strategy == "bfd"
    assert not config("pretrain", tmp_path, packing=False).packing
    assert not config("sft", tmp_path).packing


def test_prepared_rows_are_not_prepared_again_whatever_else_is_set(tmp_path):
    own = config("sft", tmp_path, dataset_kwargs={"add_special_tokens": False}).dataset_kwargs
    assert own == {"add_special_tokens": False, "skip_prepare_dataset": True}


def test_lora_covers_all_linear_layers_unless_told_and_full_weights_need_none():
    assert lora_config(stage("sft")) is None
    assert lora_config(stage("sft", peft={"r": 4})).target_modules == "all-linear"
    assert lora_config(stage("sft", peft={"r": 4, "target_modules": ["q_proj"]})).target_modules == {"q_proj"}


def test_what_the_dataclasses_refuse_comes_all_at_once_with_the_stage():
    found = refusals(
        [
            stage("sft", train={"eval_strategy": "sometimes"}),
            stage("dpo", train={"beta": 0.1}),
            stage("grpo", train={"num_generations": 3, "per_device_train_batch_size": 4}),
            stage("pretrain", peft={"r": 4, "use_rslora": True, "use_dora": True, "lora_bias": True, "bias": "all"}),
        ]
    )
    names = [text.split("'")[1] for text in found]
    assert names[:2] == ["sft", "grpo"] and "dpo" not in names
    assert found[0].startswith("SFTConfig refuses the settings of stage 'sft'")


def test_fsdp_without_accelerators_is_refused_and_without_fsdp_nothing_is(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    (found,) = launch_refusals(fsdp=True)
    assert "accelerate_configs/zero3.yaml" in found
    assert launch_refusals(fsdp=False) == []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    assert launch_refusals(fsdp=True) == []


def test_more_processes_than_accelerators_are_refused_and_on_cpus_they_share(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    (found,) = launch_refusals(fsdp=False, processes=8)
    assert found.startswith("8 processes were launched, and this machine has 2 accelerators: add --num_processes 2")
    assert launch_refusals(fsdp=False, processes=2) == []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert launch_refusals(fsdp=False, processes=8) == []


def test_packages_that_a_later_stage_lacks_are_named_before_the_first(monkeypatch):
    stages = [stage("sft", quantization="4bit", peft={"r": 4}), stage("grpo", train={"use_vllm": True}), stage("dpo")]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    quantized, sampled = missing_packages(stages)
    assert "'sft'" in quantized and "code-alignment[qlora]" in quantized
    assert "'grpo'" in sampled and "code-alignment[vllm]" in sampled
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert missing_packages(stages) == []


def test_the_check_as_a_process_ends_with_one_and_the_refusals():
    request = {
        "stages": [stage("sft", train={"eval_strategy": "sometimes"}).model_dump(mode="json")],
        "fsdp": False,
        "processes": 1,
    }
    command = [sys.executable, "-m", "alignment.stages.configs"]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("SFTConfig refuses")
    assert "Traceback" not in done.stderr


def test_rows_that_several_devices_share_come_out_even(tmp_path, monkeypatch):
    """DeepSpeed's Ulysses refuses a batch whose length the devices of a row don't divide."""
    assert config("sft", tmp_path).pad_to_multiple_of is None
    monkeypatch.setenv("PARALLELISM_CONFIG_SP_SIZE", "4")
    assert config("sft", tmp_path).pad_to_multiple_of == 4
    assert config("sft", tmp_path, pad_to_multiple_of=64).pad_to_multiple_of == 64
