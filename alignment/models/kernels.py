"""Choose the attention kernel and fused kernels of a training stage: the kernels that the recipe names, or else the
fastest installed kernels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from alignment.models.source import AttentionKernel, ModelSource

# Compute capability that the kernels need according to their documentation. FlashAttention 3 runs only on Hopper (9.0).
_FLASH_2, _FLASH_3 = (8, 0), (9, 0)


def choose_attention(source: ModelSource, train: Mapping[str, Any]) -> ModelSource:
    """Return the model source with `attn_implementation` filled in.

    None means that transformers chooses the kernel (sdpa).

    Args:
        source: the model source. If it already names an attention kernel, that kernel is kept.
        train: the stage's TRL settings. Flash attention needs weights or autocast in 16 bits.
    """
    if source.attn_implementation is not None:
        return source
    half = source.dtype in ("bfloat16", "float16") or bool(train.get("bf16") or train.get("fp16"))
    return source.model_copy(update={"attn_implementation": installed_attention() if half else None})


def fused_kernels(source: ModelSource) -> dict[str, bool]:
    """Return the arguments of `from_pretrained` that enable fused kernels.

    Empty if the recipe does not set `use_kernels`.

    Raises:
        ValueError: there is no accelerator, or the package `kernels` is missing.
    """
    if not source.use_kernels:
        return {}
    import torch

    if not torch.accelerator.is_available():
        raise ValueError(
            "model.use_kernels: fused kernels need an accelerator, and this machine has none: remove `use_kernels`"
        )
    from transformers.utils import import_utils

    if not import_utils.is_kernels_available():
        raise ValueError(
            f"model.use_kernels needs the package `kernels`, from {import_utils.KERNELS_MIN_VERSION} and below "
            f"{import_utils.KERNELS_MAX_VERSION} for this version of transformers"
        )
    return {"use_kernels": True}


def installed_attention() -> AttentionKernel | None:
    """Return `flash_attention_3` or `flash_attention_2` if its package is installed and the GPU supports it, else
    None.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    capability = torch.cuda.get_device_capability()
    if capability[0] == _FLASH_3[0] and importlib.util.find_spec("flash_attn_interface") is not None:
        return "flash_attention_3"
    if capability >= _FLASH_2 and importlib.util.find_spec("flash_attn") is not None:
        return "flash_attention_2"
    return None
