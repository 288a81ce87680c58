"""Compute attention by sdpa without a mask: for each sample of a packed row separately, and for padded rows as plain
causal attention.

For packed rows, transformers builds a block-diagonal mask from the positions. With this mask, sdpa computes all pairs
of a row's tokens, repeats keys and values for every query head, and stores the mask. When sdpa is called once per
sample, it computes only the pairs within a sample. Flash attention also computes only these pairs, and flex attention
skips the empty blocks of the mask. This module is for CPUs, and for GPUs that have neither flash nor flex attention.

Shapes: B = rows of a batch, T = tokens of a row, H = query heads, K = key and value heads, S = head size.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_by_sample"
"""Name under which transformers registers this attention function."""
_SIZES = "_align_sample_sizes"  # attribute of the positions tensor that caches the sample sizes


def enable(model: Any, *, compiled: bool = False) -> None:
    """Switch a Qwen2 model from transformers' sdpa attention to `attend`.

    Models of other families, with other attention, or with sliding windows are left unchanged: `attend` needs full
    attention and layers that pass on `position_ids`.

    Args:
        model: a causal language model of transformers.
        compiled: whether the model is compiled. A compiled model is left unchanged: the number of samples differs from
            batch to batch, and each new number would trigger a compilation.
    """
    config = model.config
    windows = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    if config.model_type != "qwen2" or config._attn_implementation != "sdpa" or windows or compiled:
        return
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, mask_of_padding)
    model.set_attn_implementation(NAME)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention sample by sample. The signature is that of transformers' attention functions.

    Args:
        module: the attention layer.
        query: [B, H, T, S].
        key: [B, K, T, S].
        value: [B, K, T, S].
        attention_mask: if given (padding on the left, generation), the mask is used and positions are ignored.
        position_ids: [B or 1, T]; a new sample starts wherever a position is not the previous position plus 1.
        settings: further arguments of transformers' sdpa attention.

    Returns:
        The output, [B, T, H, S], and None in place of the attention weights.
    """
    rows, length = query.shape[0], query.shape[2]
    sizes: list[int] = []
    if attention_mask is None and position_ids is not None and length == key.shape[2]:
        sizes = sample_sizes(position_ids) * (rows // position_ids.shape[0])
    if len(sizes) <= rows:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    # `split` returns views, and its backward pass is one concatenation: nothing is gathered or padded.
    pieces = [tensor.transpose(1, 2).flatten(0, 1).split(sizes) for tensor in (query, key, value)]
    outputs = []
    for sample in zip(*pieces, strict=True):
        sample_query, sample_key, sample_value = (piece.transpose(0, 1)[None] for piece in sample)
        outputs.append(sdpa_attention_forward(module, sample_query, sample_key, sample_value, None, **settings)[0][0])
    return torch.cat(outputs).view(rows, length, *outputs[0].shape[1:]), None


def sample_sizes(position_ids: torch.Tensor) -> list[int]:
    """Return the number of tokens of each sample, in the order of the rows.

    The list is cached as an attribute of the tensor: every layer of a forward pass asks for the same positions, and
    computing the list on a device makes the CPU wait.

    Args:
        position_ids: [B, T]
    """
    sizes: list[int] | None = getattr(position_ids, _SIZES, None)
    if sizes is None:
        starts = torch.ones_like(position_ids, dtype=torch.bool)
        starts[:, 1:] = position_ids.diff(dim=-1) != 1
        begins = starts.flatten().nonzero().flatten()
        sizes = begins.diff(append=begins.new_tensor([position_ids.numel()])).tolist()
        setattr(position_ids, _SIZES, sizes)
    return sizes


def mask_of_padding(**settings: Any) -> torch.Tensor | None:
    """Return transformers' sdpa mask, or None if no mask is needed.

    No mask is needed where positions separate the samples, or where padding is on the right: with causal attention no
    token attends to padding after it.
    """
    padding = settings.get("attention_mask")
    full = settings["q_length"] == settings["kv_length"] and settings.get("local_size") is None
    if full and (padding is None or bool((padding[:, 1:] <= padding[:, :-1]).all())):
        return None
    return sdpa_mask(**settings)
