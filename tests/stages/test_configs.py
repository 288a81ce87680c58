"""TRL's and PEFT's config objects: the toolkit's defaults, and all settings that they refuse, reported at once."""

import itertools
import subprocess
import sys

import pytest
import torch

from alignment.recipe import DpoStage, GrpoStage, KtoStage, PretrainStage, SftStage
from alignment.stages.config_trial import LORA_WITHOUT_CONFLICTS, ConfigsRequest, refusals
from alignment.stages.configs import TrainerSettings, launch_refusals, lora_config, missing_packages, training_config

KINDS = {"pretrain": PretrainStage, "sft": SftStage, "dpo": DpoStage, "kto": KtoStage, "grpo": GrpoStage}


def stage(kind, **settings):
    return KINDS[kind](name=kind, kind=kind, data=[{"data": "rows.jsonl"}], **settings)


def config(kind, folder, **train):
    return training_config(stage(kind, train=train), 7, folder, wandb=False, run_name="r/x")


@pytest.mark.parametrize("kind", KINDS)
def test_seed_folder_and_tracking_come_from_the_request(kind, tmp_path):
    args = config(kind, tmp_path)
    assert (args.seed, args.data_seed, args.report_to, args.run_name) == (7, 7, [], "r/x")
    assert args.output_dir == str(tmp_path / "checkpoints") and args.save_total_limit == 2


@pytest.mark.skipif(torch.accelerator.is_available(), reason="for machines without an accelerator")
def test_without_an_accelerator_training_is_on_the_cpu_in_float32_unless_asked(tmp_path):
    assert config("sft", tmp_path).use_cpu and not config("sft", tmp_path).bf16
    assert config("sft", tmp_path, bf16=True).bf16


def test_pretraining_packs_by_default_and_sft_does_not(tmp_path):
    assert config("pretrain", tmp_path).packing and config("pretrain", tmp_path).packing_strategy == "bfd"
    assert not config("pretrain", tmp_path, packing=False).packing
    assert not config("sft", tmp_path).packing


def test_the_trainer_does_not_prepare_rows_again_and_other_dataset_kwargs_are_kept(tmp_path):
    own = config("sft", tmp_path, dataset_kwargs={"add_special_tokens": False}).dataset_kwargs
    assert own == {"add_special_tokens": False, "skip_prepare_dataset": True}


def test_lora_covers_all_linear_layers_by_default_and_full_weights_have_no_lora_config():
    assert lora_config(stage("sft")) is None
    assert lora_config(stage("sft", peft={"r": 4})).target_modules == "all-linear"
    assert lora_config(stage("sft", peft={"r": 4, "target_modules": ["q_proj"]})).target_modules == {"q_proj"}


def test_peft_accepts_every_combination_of_the_settings_that_the_trial_skips():
    values = {
        "r": (1, 8), "lora_alpha": (1, 16), "lora_dropout": (0.0, 0.5), "target_modules": ("all-linear", ["q_proj"]),
        "bias": ("none", "all", "lora_only"), "use_rslora": (True, False),
    }  # fmt: skip
    assert set(values) == LORA_WITHOUT_CONFLICTS
    for chosen in itertools.product(*values.values()):
        lora_config(stage("sft", peft=dict(zip(values, chosen, strict=True))))


def test_all_refused_settings_are_reported_at_once_with_their_stages():
    refused = refusals(
        [
            stage("sft", train={"eval_strategy": "sometimes"}),
            stage("dpo", train={"beta": 0.1}),
            stage("grpo", train={"num_generations": 3, "per_device_train_batch_size": 4}),
            stage("pretrain", peft={"r": 4, "use_rslora": True, "use_dora": True, "lora_bias": True, "bias": "all"}),
        ]
    )
    names = [refusal.stage for refusal in refused]
    assert names[:2] == ["sft", "grpo"] and "dpo" not in names
    assert refused[0].message.startswith("SFTConfig refuses the settings of stage 'sft'")
    # transformers' message does not name eval_strategy: it is the key without which the settings are accepted.
    assert [refusal.place for refusal in refused[:2]] == [
        ("train", "eval_strategy"),
        ("train", "per_device_train_batch_size"),
    ]


def test_the_optimizer_and_the_schedule_are_made_too():
    settings = [
        {"lr_scheduler_kwargs": {"zzz": 1}}, {"adam_beta2": 1.0}, {"optim": "schedule_free_adamw"},
        {"warmup_steps": 30, "max_steps": 20}, {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 0.1}},
    ]  # fmt: skip
    places = [refusals([stage("sft", train=train)])[0].place for train in settings]
    assert [place[1] for place in places] == [
        "lr_scheduler_kwargs", "adam_beta2", "optim", "warmup_steps", "lr_scheduler_kwargs",
    ]  # fmt: skip


def test_whole_numbers_are_given_to_trl_as_floats_where_it_takes_floats(tmp_path):
    """transformers' generation refuses a temperature that is no float."""
    built = config("grpo", tmp_path, temperature=1, learning_rate=1, num_generations=4)
    assert (
        isinstance(built.temperature, float) and isinstance(built.learning_rate, float) and built.num_generations == 4
    )


def test_fsdp_is_refused_only_without_accelerators(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    (message,) = launch_refusals(fsdp=True)
    assert "accelerate_configs/zero3.yaml" in message
    assert launch_refusals(fsdp=False) == []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    assert launch_refusals(fsdp=True) == []


def test_more_processes_than_accelerators_are_refused_but_not_on_cpus(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    (message,) = launch_refusals(fsdp=False, processes=8)
    assert message.startswith("8 processes were launched, and this machine has 2 accelerators: add --num_processes 2")
    assert launch_refusals(fsdp=False, processes=2) == []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert launch_refusals(fsdp=False, processes=8) == []


def test_missing_packages_of_all_stages_are_reported(monkeypatch):
    stages = [stage("sft", quantization="4bit", peft={"r": 4}), stage("grpo", train={"use_vllm": True}), stage("dpo")]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    quantized, sampled = missing_packages(stages)
    assert "'sft'" in quantized and "code-alignment[qlora]" in quantized
    assert "'grpo'" in sampled and "code-alignment[vllm]" in sampled
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert missing_packages(stages) == []


def test_the_check_as_a_process_prints_refused_settings_and_ends_with_1():
    request = ConfigsRequest(stages=[TrainerSettings.of(stage("sft", train={"eval_strategy": "sometimes"}))])
    command = [sys.executable, "-m", "alignment.stages.config_trial"]
    done = subprocess.run(command, input=request.to_json(), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "SFTConfig refuses" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_rows_are_padded_to_a_multiple_of_the_devices_that_share_them(tmp_path, monkeypatch):
    """DeepSpeed's Ulysses refuses a batch whose length is no multiple of the number of devices per row."""
    assert config("sft", tmp_path).pad_to_multiple_of is None
    monkeypatch.setenv("PARALLELISM_CONFIG_SP_SIZE", "4")
    assert config("sft", tmp_path).pad_to_multiple_of == 4
    assert config("sft", tmp_path, pad_to_multiple_of=64).pad_to_multiple_of == 64
