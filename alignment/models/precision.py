"""Choose the number format of weights and computation for `dtype: auto`.

bfloat16 is chosen if the processor multiplies bfloat16 in hardware (Intel AMX, AVX512-BF16 of Intel and AMD, the BF16
extension of Arm). Matrix products in bfloat16 then take a half to a fifth of the time of float32. On other CPUs
bfloat16 is emulated and slower than float32.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignment.models.source import DType

NumberFormat = Literal["float32", "bfloat16", "float16"]

_FEATURES = (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16"), ("bf16", "BF16 of Armv8.6"))
"""Flags in /proc/cpuinfo and the names of their instruction sets, fastest first."""


@dataclass(frozen=True)
class Precision:
    """A number format and the reason why it was chosen."""

    dtype: NumberFormat
    reason: str

    def __str__(self) -> str:
        return f"{self.dtype} ({self.reason})"


def resolve_dtype(setting: DType, device: str) -> Precision:
    """Choose the number format to compute in.

    Args:
        setting: `dtype` of the recipe or the command line. Any value except `auto` is used as it is.
        device: a torch device type, such as `cpu` or `cuda`.
    """
    if setting != "auto":
        return Precision(setting, "as set")
    if device != "cpu":
        return Precision("bfloat16", f"the default on {device}")
    feature = bfloat16_feature()
    if feature is None:
        return Precision("float32", "this CPU has no bfloat16 instructions")
    return Precision("bfloat16", f"this CPU has {feature}")


@dataclass(frozen=True)
class TrainingPrecision:
    """Number formats with which a stage trains."""

    weights: NumberFormat
    """Type of the weights. PEFT keeps adapter weights in float32."""
    autocast: bool
    """Whether matrix products are computed in bfloat16 by autocast.

    `bf16` or `fp16` in `train:` overrides this value.
    """
    reason: str


def resolve_training(setting: DType, device: str, *, adapter: bool, master_weights: bool) -> TrainingPrecision:
    """Choose the number formats with which a stage trains.

    Args:
        setting: the recipe's `model.dtype`.
        device: a torch device type, such as `cpu` or `cuda`.
        adapter: whether an adapter is trained and the other weights are frozen.
        master_weights: whether the launcher keeps float32 copies of the weights (DeepSpeed, FSDP2).
    """
    precision = resolve_dtype(setting, device)
    if setting != "auto" or precision.dtype == "float32":
        return TrainingPrecision(precision.dtype, device != "cpu", precision.reason)
    if adapter:
        return TrainingPrecision(precision.dtype, device != "cpu", f"{precision.reason}; the adapter is in float32")
    if master_weights:
        return TrainingPrecision(precision.dtype, True, f"{precision.reason}; the launcher keeps float32 copies")
    return TrainingPrecision("float32", True, f"all weights are trained; products are in bfloat16: {precision.reason}")


@functools.cache
def bfloat16_feature(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Return the name of the instruction set that multiplies bfloat16 on this CPU, or None if none is detected."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = {
        flag for line in lines if line.startswith(("flags", "Features")) for flag in line.partition(":")[2].split()
    }
    return next((name for flag, name in _FEATURES if flag in flags), None)
