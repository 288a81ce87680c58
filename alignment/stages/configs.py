"""Build the config objects of TRL and PEFT from a stage's `train:` and `peft:`.

`python -m alignment.stages.configs < request.json` builds the objects of all stages before the first stage runs, to
find settings that TRL or PEFT refuses.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment import logs
from alignment.cache import cache_root
from alignment.fingerprints import fingerprint, package_versions
from alignment.processes import ProcessRequest
from alignment.recipe import CONFIGS, AnyStage, TrainingStage
from alignment.stages.vllm_check import check_vllm

if TYPE_CHECKING:
    from peft import LoraConfig
    from trl import DPOConfig, GRPOConfig, SFTConfig

    TrainerConfig = SFTConfig | DPOConfig | GRPOConfig

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
    """Build the stage's SFTConfig, DPOConfig or GRPOConfig.

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
    settings: dict[str, Any] = {
        "output_dir": str(out / "checkpoints"),
        "seed": seed,
        "data_seed": seed,
        "report_to": ["wandb"] if wandb else [],
        "run_name": run_name,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "logging_first_step": True,
        **stage.train,
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
        settings["dataset_kwargs"] = {**(settings.get("dataset_kwargs") or {}), "skip_prepare_dataset": True}
        if (devices := int(os.environ.get("PARALLELISM_CONFIG_SP_SIZE", "1"))) > 1:
            settings.setdefault("pad_to_multiple_of", devices)  # DeepSpeed 0.19 shards only lengths that divide evenly
    try:
        with warnings.catch_warnings():
            # transformers 5.23 renames gradient_checkpointing, which TRL 1.16 still sets by its old name.
            warnings.simplefilter("ignore", FutureWarning)
            return getattr(trl, CONFIGS[kind])(**settings)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise ValueError(f"{CONFIGS[kind]} refuses the settings of stage {stage.name!r}: {error}") from None


def lora_config(stage: TrainingStage) -> LoraConfig | None:
    """Build the stage's LoraConfig, or return None if the stage trains all weights.

    Raises:
        ValueError: PEFT refuses a setting. The error contains PEFT's message.
    """
    if stage.peft is None:
        return None
    from peft import LoraConfig

    try:
        return LoraConfig(**{"target_modules": "all-linear", **stage.peft, "task_type": "CAUSAL_LM"})
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"LoraConfig refuses the settings of stage {stage.name!r}: {error}") from None


def refusals(stages: Sequence[TrainingStage]) -> list[str]:
    """Build the config objects of all stages; return the messages of TRL and PEFT, one for each refused stage."""
    messages = []
    with tempfile.TemporaryDirectory() as folder:
        for stage in stages:
            try:
                training_config(stage, 0, Path(folder), wandb=False, run_name=stage.name)
                lora_config(stage)
            except ValueError as error:
                messages.append(str(error))
    return messages


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


def new_refusals(stages: Sequence[TrainingStage]) -> list[str]:
    """Do the same as `refusals`, but skip settings that were accepted before: importing TRL takes seconds."""
    messages = []
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
    messages = launch_refusals(request.fsdp, request.processes) + missing_packages(stages) + refusals(stages)
    for message in messages:
        print(message, file=sys.stderr)
    return 1 if messages else 0


if __name__ == "__main__":
    raise SystemExit(main())
