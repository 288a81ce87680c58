"""Build the config objects of TRL and PEFT from a stage's `train:` and `peft:`.

`alignment.stages.config_trial` builds them before the first stage runs, to find settings that TRL or PEFT refuses. This
module must import quickly, since `align check` waits for that trial: importing `alignment.recipe` takes half a second.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.models.trainer_classes import CONFIGS
from alignment.settings import Settings
from alignment.stages.vllm_check import check_vllm

if TYPE_CHECKING:
    from peft import LoraConfig
    from trl import DPOConfig, GRPOConfig, KTOConfig, SFTConfig

    from alignment.recipe import TrainingStage

    TrainerConfig = SFTConfig | DPOConfig | KTOConfig | GRPOConfig

# Types of settings that take a float: as types, or as text if the class's module postpones the evaluation of types.
_FLOATS = (float, float | None, "float", "float | None", "Optional[float]")
NO_BITSANDBYTES = "`quantization: 4bit` needs bitsandbytes: pip install 'code-alignment[qlora]'"


class TrainerSettings(Settings):
    """The settings of a training stage from which the config objects are built."""

    name: str
    kind: str
    train: dict[str, Any]
    peft: dict[str, Any] | None
    quantization: str | None

    @classmethod
    def of(cls, stage: TrainingStage) -> TrainerSettings:
        """Return the settings of a stage of a recipe."""
        return cls.model_validate(stage.model_dump(mode="json", include=set(cls.model_fields)))


def training_config(
    stage: TrainingStage | TrainerSettings, seed: int, out: Path, *, wandb: bool, run_name: str, autocast: bool = False
) -> TrainerConfig:
    """Build the stage's SFTConfig, DPOConfig, KTOConfig or GRPOConfig.

    Three defaults differ from TRL's. Without an accelerator, bfloat16 and CUDA are off. Two checkpoints are kept, since
    the newest may be half-written when a machine dies. The progress bar is off, since it would fill the log.

    Args:
        stage: the stage; its `train:` overrides all defaults.
        seed: seed of weights, data order and dropout.
        out: the artifact's folder; checkpoints go to `checkpoints/` in it.
        wandb: whether to report to Weights & Biases.
        run_name: name of the run in Weights & Biases.
        autocast: whether to compute in bfloat16 on a CPU, unless `train:` sets `bf16` or `fp16`.

    Raises:
        ValueError: TRL refuses a setting. The error contains TRL's message.
    """
    import torch
    import trl

    kind = stage.kind  # type: ignore[union-attr]
    config_class = getattr(trl, CONFIGS[kind])
    floats = {field.name for field in dataclasses.fields(config_class) if field.type in _FLOATS}
    settings: dict[str, Any] = {
        "output_dir": str(out / "checkpoints"),
        "seed": seed,
        "data_seed": seed,
        "report_to": ["wandb"] if wandb else [],
        "run_name": run_name,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "logging_first_step": True,
        # transformers refuses `temperature: 1` in generation, since it is no float.
        **{
            name: float(value) if type(value) is int and name in floats else value
            for name, value in stage.train.items()
        },
    }
    if not torch.accelerator.is_available():
        settings.setdefault("bf16", autocast and not settings.get("fp16"))
        settings["use_cpu"] = True
    if kind == "pretrain":
        settings.setdefault("packing", True)
    if kind in ("pretrain", "sft"):
        # The trainer gets rows that are packed already. The setting "bfd" only makes it keep the samples of a row
        # apart, which rows packed by "fill" need too.
        if settings.get("packing_strategy", "fill") == "fill":
            settings["packing_strategy"] = "bfd"
        given = settings.get("dataset_kwargs") or {}
        if not isinstance(given, Mapping):
            raise ValueError(f"stage {stage.name!r}: dataset_kwargs must be a mapping, not {given!r}")
        settings["dataset_kwargs"] = {**given, "skip_prepare_dataset": True}
        if (devices := int(os.environ.get("PARALLELISM_CONFIG_SP_SIZE", "1"))) > 1:
            settings.setdefault("pad_to_multiple_of", devices)  # DeepSpeed 0.19 shards only lengths that divide evenly
    try:
        return _constructed(config_class, settings)
    except Exception as error:  # the constructors do not check types: a wrong value may raise anything
        text = str(error)
        if not any(key in text for key in stage.train):
            text = f"{_refused_key(config_class, settings, stage.train)}{type(error).__name__}: {text}"
        raise ValueError(f"{CONFIGS[kind]} refuses the settings of stage {stage.name!r}: {text}") from None


def _constructed(config_class: Any, settings: Mapping[str, Any]) -> Any:
    with warnings.catch_warnings():
        # transformers 5.23 renames gradient_checkpointing, which TRL 1.16 still sets by its old name.
        warnings.simplefilter("ignore", FutureWarning)
        return config_class(**settings)


def _refused_key(config_class: Any, settings: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return `KEY: ` for the first key without which the settings are accepted. Empty if no single key is at fault."""
    for key in keys:
        try:
            _constructed(config_class, {name: value for name, value in settings.items() if name != key})
        except Exception:
            continue
        return f"{key}: "
    return ""


def lora_config(stage: TrainingStage | TrainerSettings) -> LoraConfig | None:
    """Build the stage's LoraConfig, or return None if the stage trains all weights.

    Raises:
        ValueError: PEFT refuses a setting. The error contains PEFT's message.
    """
    if stage.peft is None:
        return None
    from peft import LoraConfig

    settings = {"target_modules": "all-linear", **stage.peft, "task_type": "CAUSAL_LM"}
    if settings["target_modules"] == "all-linear" and settings.get("layers_to_transform") is not None:
        from alignment.recipe.adapter_targets import LINEAR

        settings["target_modules"] = list(LINEAR)  # PEFT chooses layers only for a list of names
    try:
        return LoraConfig(**settings)
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"LoraConfig refuses the settings of stage {stage.name!r}: {error}") from None


def missing_packages(stages: Sequence[TrainingStage | TrainerSettings]) -> list[str]:
    """Return messages about missing packages and unusable vLLM settings of the stages."""
    messages = []
    for stage in stages:
        if stage.quantization and importlib.util.find_spec("bitsandbytes") is None:
            messages.append(f"stage {stage.name!r}: {NO_BITSANDBYTES}")
        try:
            check_vllm(stage.train)
        except ValueError as error:
            messages.append(f"stage {stage.name!r}: {error}")
    return messages


def launch_refusals(fsdp: bool, processes: int = 1) -> list[str]:
    """Return messages about a launch that this machine can't run.

    Args:
        fsdp: whether Accelerate was launched with FSDP. accelerate 1.15.0 (state.py, lines 986 to 1013) applies FSDP to
            MULTI_GPU and similar launches but not to MULTI_CPU. On CPUs every process would train all weights, without
            a warning.
        processes: number of processes on this machine.
    """
    import torch

    if torch.accelerator.is_available():
        devices = torch.accelerator.device_count()
        if processes <= devices:
            return []
        return [
            f"{processes} processes were launched, and this machine has {devices} accelerator{'s' if devices > 1 else ''}: "
            f"add --num_processes {devices} to accelerate launch, or set num_processes in the launch file."
        ]
    if not fsdp:
        return []
    return [
        "FSDP shards on accelerators only, and this machine has none: accelerate 1.15 would train all weights in every "
        "process. Launch with accelerate_configs/zero3.yaml, which shards on CPUs too, or with ddp.yaml."
    ]
