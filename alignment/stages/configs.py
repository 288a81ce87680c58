"""Build the config objects of TRL and PEFT from a stage's `train:` and `peft:`.

`python -m alignment.stages.configs < request.json` builds the objects of all stages before the first stage runs, to
find settings that TRL or PEFT refuses.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
import os
import platform
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignment import logs
from alignment.cache import cache_root
from alignment.fingerprints import fingerprint, package_versions
from alignment.processes import ProcessRequest
from alignment.recipe import CONFIGS, AnyStage, TrainingStage, trainer_fields
from alignment.recipe.adapter_targets import LINEAR
from alignment.stages.vllm_check import check_vllm

if TYPE_CHECKING:
    from peft import LoraConfig
    from trl import DPOConfig, GRPOConfig, KTOConfig, SFTConfig

    TrainerConfig = SFTConfig | DPOConfig | KTOConfig | GRPOConfig

_FLOATS = ("float", "float | None", "Optional[float]")
NO_BITSANDBYTES = "`quantization: 4bit` needs bitsandbytes: pip install 'code-alignment[qlora]'"


class ConfigsRequest(ProcessRequest):
    """Training stages to check, and the launch that they will run under."""

    stages: list[AnyStage]
    fsdp: bool
    """Whether Accelerate was launched with FSDP."""
    processes: int
    """Number of processes on this machine."""


def training_config(
    stage: TrainingStage, seed: int, out: Path, *, wandb: bool, run_name: str, autocast: bool = False
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

    kind = stage.kind  # type: ignore[attr-defined]
    fields = trainer_fields.fields(CONFIGS[kind])
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
            name: float(value) if type(value) is int and fields[name].annotation in _FLOATS else value
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
    config_class = getattr(trl, CONFIGS[kind])
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


def lora_config(stage: TrainingStage) -> LoraConfig | None:
    """Build the stage's LoraConfig, or return None if the stage trains all weights.

    Raises:
        ValueError: PEFT refuses a setting. The error contains PEFT's message.
    """
    if stage.peft is None:
        return None
    from peft import LoraConfig

    settings = {"target_modules": "all-linear", **stage.peft, "task_type": "CAUSAL_LM"}
    if settings["target_modules"] == "all-linear" and settings.get("layers_to_transform") is not None:
        settings["target_modules"] = list(LINEAR)  # PEFT chooses layers only for a list of names
    try:
        return LoraConfig(**settings)
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"LoraConfig refuses the settings of stage {stage.name!r}: {error}") from None


class Refusal(NamedTuple):
    """A setting of a stage that a class of TRL, transformers or PEFT refuses."""

    stage: str
    place: tuple[str, ...]
    """The keys that lead to the setting, from the stage down."""
    message: str


def refusals(stages: Sequence[TrainingStage]) -> list[Refusal]:
    """Build the config objects of all stages, their optimizers and schedules; returns what is refused."""
    refused = []
    with tempfile.TemporaryDirectory() as folder:
        for stage in stages:
            try:
                args = training_config(stage, 0, Path(folder), wandb=False, run_name=stage.name)
            except ValueError as error:
                text = str(error)
                if "generation_batch_size" in text:
                    text += " (generation_batch_size is per_device_train_batch_size x processes x steps_per_generation)"
                refused.append(Refusal(stage.name, _place("train", stage.train, text), text))
            else:
                refused += [Refusal(stage.name, ("train", key), text) for key, text in _schedule_refusals(stage, args)]
            try:
                lora_config(stage)
            except ValueError as error:
                refused.append(Refusal(stage.name, _place("peft", stage.peft or {}, str(error)), str(error)))
    return refused


def _place(section: str, settings: Mapping[str, Any], message: str) -> tuple[str, ...]:
    """The setting that a message names; the section if it names none."""
    named = [key for key in settings if re.search(rf"(?<![\w]){re.escape(key)}(?![\w])", message)]
    return (section, max(named, key=len)) if named else (section,)


_NEEDS_MODEL = ("galore", "apollo", "lomo", "adalomo")
"""Beginnings of optimizers that are made for a whole model."""


def _schedule_refusals(stage: TrainingStage, args: Any) -> Iterator[tuple[str, str]]:
    """Make the stage's optimizer and schedule for one parameter; yields (setting, message) for what is refused or senseless."""
    import torch
    from transformers import Trainer, get_scheduler

    if str(stage.train.get("optim", "")).startswith(_NEEDS_MODEL):
        return
    try:
        optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(args)
        optimizer = optimizer_class([torch.nn.Parameter(torch.zeros(2, 2))], **settings)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        setting = _place("train", stage.train, str(error).replace("beta parameter at index 1", "adam_beta2"))[-1]
        yield setting if setting != "train" else "optim", f"the optimizer can't be made: {error}"
        return
    steps = args.max_steps if args.max_steps > 0 else 1000
    warmup = args.get_warmup_steps(steps)
    if warmup >= steps and args.max_steps > 0:
        yield "warmup_steps", f"the warmup takes {warmup} steps, and the stage has {steps}"
        return
    key = "lr_scheduler_kwargs" if stage.train.get("lr_scheduler_kwargs") else "lr_scheduler_type"
    try:
        schedule = get_scheduler(args.lr_scheduler_type, optimizer, warmup, steps, args.lr_scheduler_kwargs or {})
        rates = [
            factor(step) for factor in getattr(schedule, "lr_lambdas", []) for step in (0, steps // 2, steps - 1, steps)
        ]
    except (ValueError, TypeError, ArithmeticError, KeyError) as error:
        yield (
            key,
            f"can't make the schedule {args.lr_scheduler_type.value} of {stage.train.get('lr_scheduler_kwargs')}: {error}",
        )
        return
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
        settings_text = stage.train.get("lr_scheduler_kwargs")
        yield key, f"{settings_text} gives a learning rate below 0, or none at all, at some step"


def _unchecked(stages: Sequence[TrainingStage], accepted: Path) -> Iterator[tuple[TrainingStage, Path]]:
    """Yield each stage whose settings were never accepted before, and the file that will mark them as accepted.

    Args:
        stages: the stages.
        accepted: folder with one file for each accepted combination. The file's name is a hash of the stage's settings,
            the package versions, this module and the machine.
    """
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    machine = [platform.node(), os.environ.get("CUDA_VISIBLE_DEVICES")]
    for stage in stages:
        settings = stage.model_dump(mode="json", include={"kind", "train", "peft"})
        mark = accepted / fingerprint([settings, package_versions(), code, machine])
        if not mark.exists():
            yield stage, mark


def new_refusals(stages: Sequence[TrainingStage]) -> list[Refusal]:
    """Do the same as `refusals`, but skip settings that were accepted before: importing TRL takes seconds."""
    messages: list[Refusal] = []
    for stage, mark in _unchecked(stages, cache_root() / "accepted-settings"):
        refused = refusals([stage])
        messages += refused
        if not refused:
            with contextlib.suppress(OSError):  # a cache that can't be written costs only time
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
    return messages


def missing_packages(stages: Sequence[TrainingStage]) -> list[str]:
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


def main() -> int:
    logs.configure()
    request = ConfigsRequest.from_json(sys.stdin.read())
    stages = [stage for stage in request.stages if isinstance(stage, TrainingStage)]
    messages = launch_refusals(request.fsdp, request.processes) + missing_packages(stages)
    messages += [f"stage {refusal.stage!r}: {refusal.message}" for refusal in refusals(stages)]
    for message in messages:
        print(message, file=sys.stderr)
    return 1 if messages else 0


if __name__ == "__main__":
    raise SystemExit(main())
