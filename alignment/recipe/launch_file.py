"""Read the layout of a training run from an Accelerate config file, without importing Accelerate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Layout:
    """Distribution of training over devices: number of devices, sharding and offloading."""

    devices: int = 1
    """Number of processes. Each process uses one device."""
    zero: int = 0
    """ZeRO stage: 0 shards nothing (DDP, or one device), 1 shards optimizer states, 2 also gradients, 3 also weights.

    FSDP2 counts as 3.
    """
    offload_optimizer: bool = False
    """Whether optimizer states are in the host's memory."""
    offload_weights: bool = False
    """Whether weights are in the host's memory."""
    master_weights: bool = False
    """Whether the optimizer keeps float32 copies of 16-bit weights, as in DeepSpeed and FSDP2."""
    sequence: int = 1
    """Number of devices that share one sequence (Ulysses sequence parallelism)."""
    device: str = "cuda"
    """`cuda` or `cpu`."""
    nodes: int = 1
    """Number of machines."""

    @property
    def replicas(self) -> int:
        """Number of micro-batches that are trained on at the same time."""
        return self.devices // self.sequence


def read(file: Path) -> dict[str, Any]:
    """Read an Accelerate config file. Raise ValueError if the file can't be read or is not a mapping."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{file}: not an Accelerate config file: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file}: not an Accelerate config file: it must be a mapping (`key: value`)")
    return config


def layout_of(file: Path | None) -> Layout:
    """Read the layout from an Accelerate config file. Without a file, the layout is a single device."""
    if file is None:
        return Layout()
    config = read(file)
    deepspeed = config.get("deepspeed_config") or {}
    parallel = config.get("parallelism_config") or {}
    kind = str(config.get("distributed_type", "NO"))
    zero = 3 if kind == "FSDP" else int(deepspeed.get("zero_stage", 0)) if kind == "DEEPSPEED" else 0
    offload = str((config.get("fsdp_config") or {}).get("fsdp_offload_params", False)).lower() == "true"
    return Layout(
        devices=int(config.get("num_processes", 1)),
        zero=zero,
        offload_optimizer=offload or deepspeed.get("offload_optimizer_device", "none") not in ("none", None),
        offload_weights=offload or deepspeed.get("offload_param_device", "none") not in ("none", None),
        master_weights=kind in ("DEEPSPEED", "FSDP"),
        sequence=int(parallel.get("parallelism_config_sp_size", 1)),
        device="cpu" if config.get("use_cpu") else "cuda",
        nodes=int(config.get("num_machines", 1)),
    )
