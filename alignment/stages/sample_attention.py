"""Attention without a mask for sdpa: in packed rows each sample by itself, in padded ones as if padding were text.

With the block-diagonal mask that transformers builds from positions, sdpa computes all pairs of a row's tokens, repeats keys
and values for every query head, and holds the mask. Sample by sample it computes only the pairs that count. Flash attention
does that by itself, and flex attention skips empty blocks; this is for where neither is installed, and for CPUs.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_by_sample"


def use(model: Any, *, compiled: bool = False) -> None:
    """Let a model of the Qwen2 family that attends by sdpa attend sample by sample; others keep what they have.

    Others, since it takes that a layer hands its positions on, and that no window cuts what it sees.

    Args:
        model: a causal language model of transformers.
        compiled: whether training compiles it. Then the mask stays: the number of samples differs from batch to batch,
            and each would be compiled anew.
    """
    config = model.config
    windows = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    if config.model_type != "qwen2" or config._attn_implementation != "sdpa" or windows or compiled:
        return
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, _mask)
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
    """An attention function of transformers.

    Args:
        module: the attention layer.
        query: [batch, heads, length, size]; `key` and `value` alike, with as many heads as the model has for them.
        attention_mask: where there is one (padding to the left, generation), it is obeyed and positions are not looked at.
        position_ids: [batch or 1, length]; a sample starts where they don't go on by one.

    Returns:
        [batch, length, heads, size], and no weights.
    """
    rows, length = query.shape[0], query.shape[2]
    sizes: list[int] = []
    if attention_mask is None and position_ids is not None and length == key.shape[2]:
        sizes = sample_sizes(position_ids) * (rows // position_ids.shape[0])
    if len(sizes) <= rows:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    # Pieces of a split are views, and its backward is one concatenation: nothing is gathered or padded.
    pieces = [tensor.transpose(1, 2).flatten(0, 1).split(sizes) for tensor in (query, key, value)]
    found = []
    for sample in zip(*pieces, strict=True):
        own_query, own_key, own_value = (piece.transpose(0, 1)[None] for piece in sample)
        found.append(sdpa_attention_forward(module, own_query, own_key, own_value, None, **settings)[0][0])
    return torch.cat(found).view(rows, length, *found[0].shape[1:]), None


def sample_sizes(position_ids: torch.Tensor) -> list[int]:
    """Tokens of each sample, in the order in which they lie in the rows; the same tensor is looked at once.

    Args:
        position_ids: [batch, length]
    """
    known, sizes = _last
    if known() is not position_ids:
        starts = torch.ones_like(position_ids, dtype=torch.bool)
        starts[:, 1:] = position_ids.diff(dim=-1) != 1
        begins = starts.flatten().nonzero().flatten()
        sizes = begins.diff(append=begins.new_tensor([position_ids.numel()])).tolist()
        _last[:] = weakref.ref(position_ids), sizes
    return sizes


# Every layer of a forward asks for the same positions, and on a device each answer is a wait for it.
_last: list[Any] = [lambda: None, []]


def _mask(**settings: Any) -> torch.Tensor | None:
    """No mask where positions say all, nor where padding is to the right: no token before it sees it."""
    padding = settings.get("attention_mask")
    whole = settings["q_length"] == settings["kv_length"] and settings.get("local_size") is None
    if whole and (padding is None or bool((padding[:, 1:] <= padding[:, :-1]).all())):
        return None
    return sdpa_mask(**settings)
