"""TRL's and PEFT's own config objects, built from a recipe's `train:` and `peft:`.

python -m alignment.stages.configs < request.json     # build them all once, to find what they refuse
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment import logs
from alignment.recipe import CONFIGS, TrainingStage

NO_BITSANDBYTES = "`quantization: 4bit` needs bitsandbytes: pip install 'code-alignment[qlora]'"


def training_config(stage: TrainingStage, seed: int, out: Path, *, wandb: bool, run_name: str) -> Any:
    """The stage's SFTConfig, DPOConfig or GRPOConfig. Raises ValueError with what TRL says of a bad setting.

    Defaults that differ from TRL's: no bfloat16 and no CUDA where there is no accelerator; two checkpoints kept, since
    the newest may be half-written when a machine dies; no progress bar in the log.
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
        settings.setdefault("bf16", False)
        settings["use_cpu"] = True
    if kind == "pretrain":
        settings.setdefault("packing", True)
    if kind in ("pretrain", "sft"):
        # Rows are packed when the trainer gets them. What it should know is that their samples don't touch.
        if settings.get("packing_strategy", "fill") == "fill":
            settings["packing_strategy"] = "bfd"
        settings["dataset_kwargs"] = {**(settings.get("dataset_kwargs") or {}), "skip_prepare_dataset": True}
        if (devices := int(os.environ.get("PARALLELISM_CONFIG_SP_SIZE", "1"))) > 1:
            settings.setdefault("pad_to_multiple_of", devices)  # DeepSpeed 0.19 shares out only what divides evenly
    try:
        with warnings.catch_warnings():
            # transformers 5.23 renames gradient_checkpointing, which TRL 1.16 still sets by its old name.
            warnings.simplefilter("ignore", FutureWarning)
            return getattr(trl, CONFIGS[kind])(**settings)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise ValueError(f"{CONFIGS[kind]} refuses the settings of stage {stage.name!r}: {error}") from None


def lora_config(stage: TrainingStage) -> Any:
    """The stage's LoraConfig, or None for full weights."""
    if stage.peft is None:
        return None
    from peft import LoraConfig

    try:
        return LoraConfig(**{"target_modules": "all-linear", **stage.peft, "task_type": "CAUSAL_LM"})
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"LoraConfig refuses the settings of stage {stage.name!r}: {error}") from None


def refusals(stages: Sequence[TrainingStage]) -> list[str]:
    """Build the config objects of all stages, and say what they refuse."""
    refused = []
    with tempfile.TemporaryDirectory() as folder:
        for stage in stages:
            try:
                training_config(stage, 0, Path(folder), wandb=False, run_name=stage.name)
                lora_config(stage)
            except ValueError as error:
                refused.append(str(error))
    return refused


def missing_packages(stages: Sequence[TrainingStage]) -> list[str]:
    """What stages need and this environment lacks: told before the first of them, not when their turn comes."""
    from alignment.stages.rollouts import check_vllm

    missing = []
    for stage in stages:
        if stage.quantization and importlib.util.find_spec("bitsandbytes") is None:
            missing.append(f"stage {stage.name!r}: {NO_BITSANDBYTES}")
        try:
            check_vllm(stage.train)
        except ValueError as error:
            missing.append(f"stage {stage.name!r}: {error}")
    return missing


def launch_refusals(fsdp: bool, processes: int = 1) -> list[str]:
    """What this machine can't do of how the recipe is launched.

    accelerate 1.15.0 (state.py, lines 986 to 1013) makes FSDP of MULTI_GPU and its like, and leaves MULTI_CPU as it is:
    on CPUs every process would train a whole copy, and nothing would say so.
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
        "FSDP shards on accelerators only, and there is none here: accelerate 1.15 would train a whole copy in every "
        "process. Launch with accelerate_configs/zero3.yaml, which shards on CPUs too, or with ddp.yaml."
    ]


def main() -> int:
    from pydantic import TypeAdapter

    from alignment.recipe import AnyStage

    logs.configure()
    request = json.load(sys.stdin)
    adapter: TypeAdapter[Any] = TypeAdapter(AnyStage)
    refused = launch_refusals(request["fsdp"], request["processes"])
    stages = [adapter.validate_python(value) for value in request["stages"]]
    refused += missing_packages(stages) + refusals(stages)
    for problem in refused:
        print(problem, file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    raise SystemExit(main())
