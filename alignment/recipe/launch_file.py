"""What an Accelerate file says of the layout, read without importing accelerate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Layout:
    """How the work is spread: one of `accelerate_configs/`."""

    devices: int = 1
    zero: int = 0
    """0 is DDP (or one device); 1, 2, 3 shard optimizer states, gradients, weights. FSDP2 counts as 3."""
    offload_optimizer: bool = False
    offload_weights: bool = False
    master_weights: bool = False
    """DeepSpeed and FSDP2 keep float32 copies of weights in 16 bits."""
    sequence: int = 1
    """Devices that share one sequence (Ulysses)."""
    device: str = "cuda"
    nodes: int = 1

    @property
    def replicas(self) -> int:
        """How many batches are trained on at once."""
        return self.devices // self.sequence


def read(file: Path) -> dict[str, Any]:
    """The file's values. Raises ValueError that names it."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{file}: not an Accelerate file: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file}: an Accelerate file is a mapping")
    return found


def layout_of(file: Path | None) -> Layout:
    """The layout of an Accelerate file; without one, a single device."""
    if file is None:
        return Layout()
    value = read(file)
    devices = int(value.get("num_processes", 1))
    deepspeed = value.get("deepspeed_config") or {}
    parallel = value.get("parallelism_config") or {}
    kind = str(value.get("distributed_type", "NO"))
    zero = 3 if kind == "FSDP" else int(deepspeed.get("zero_stage", 0)) if kind == "DEEPSPEED" else 0
    offload = str((value.get("fsdp_config") or {}).get("fsdp_offload_params", False)).lower() == "true"
    return Layout(
        devices=devices,
        zero=zero,
        offload_optimizer=offload or deepspeed.get("offload_optimizer_device", "none") not in ("none", None),
        offload_weights=offload or deepspeed.get("offload_param_device", "none") not in ("none", None),
        master_weights=kind in ("DEEPSPEED", "FSDP"),
        sequence=int(parallel.get("parallelism_config_sp_size", 1)),
        device="cpu" if value.get("use_cpu") else "cuda",
        nodes=int(value.get("num_machines", 1)),
    )
