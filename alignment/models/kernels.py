"""The kernels of a training stage: what the recipe says, else the best attention that is installed and that the card runs."""

from __future__ import annotations

import importlib.util
from typing import Any

# Compute capability that the kernels need, by their own documentation; FlashAttention 3 is for Hopper alone.
_FLASH_2, _FLASH_3 = (8, 0), (9, 0)


def choose(source: dict[str, Any], stage: Any) -> dict[str, Any]:
    """The model source with `attn_implementation` filled in; None leaves the choice to transformers (sdpa)."""
    if source.get("attn_implementation") is not None:
        return source
    half = source.get("dtype") in ("bfloat16", "float16") or bool(stage.train.get("bf16") or stage.train.get("fp16"))
    return {**source, "attn_implementation": installed() if half else None}


def kernels(source: dict[str, Any]) -> dict[str, bool]:
    """`use_kernels` for `from_pretrained`, where the recipe wants fused kernels. Raises ValueError where there are none."""
    if not source.get("use_kernels"):
        return {}
    import torch

    if not torch.accelerator.is_available():
        raise ValueError("model.use_kernels: fused kernels are for accelerators, and there is none here: leave it out")
    from transformers.utils import import_utils

    if not import_utils.is_kernels_available():
        raise ValueError(
            f"model.use_kernels needs the package `kernels`, from {import_utils.KERNELS_MIN_VERSION} and below "
            f"{import_utils.KERNELS_MAX_VERSION} for this version of transformers"
        )
    return {"use_kernels": True}


def installed() -> str | None:
    """`flash_attention_3` or `flash_attention_2` where package and card are there; else None."""
    import torch

    if not torch.cuda.is_available():
        return None
    capability = torch.cuda.get_device_capability()
    if capability[0] == _FLASH_3[0] and importlib.util.find_spec("flash_attn_interface") is not None:
        return "flash_attention_3"
    if capability >= _FLASH_2 and importlib.util.find_spec("flash_attn") is not None:
        return "flash_attention_2"
    return None
