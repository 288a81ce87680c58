"""Compute log-probabilities of completions for GRPO on CPUs. The prompt of a group is computed only once.

TRL 1.16 computes every completion after a copy of its prompt, including padding. On devices without Triton, it also
computes logits for the positions of the prompt. Here a batch is one row without padding: each distinct prompt is
followed by its completions, and each completion attends to the prompt and to itself. Values and gradients equal those
of the padded batch, up to rounding.

Shapes: B = rows of a batch, P = prompt tokens with padding, C = completion tokens with padding, N = tokens of the
packed row, M = completion tokens, H = query heads, K = key and value heads, S = head size, R = completions of a prompt,
L = longest of them, V = vocabulary, D = model width.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from alignment.stages import loss
from alignment.stages.sample_attention import mask_of_padding
from alignment.stages.token_log_probs import token_log_probs

NAME = "sdpa_shared_prompts"
"""Name under which transformers registers this attention function."""
_VOCABULARY_TILE = 32768  # columns of logits at a time, as in TRL


@dataclass(frozen=True)
class PromptGroup:
    """Lengths of a prompt and of the completions that follow it in the packed row."""

    prompt: int
    """Number of tokens in the prompt."""
    completions: tuple[int, ...]
    """Number of tokens in each completion, which may be 0."""


@dataclass(frozen=True)
class PackedGroups:
    """A batch as one row without padding: each prompt is followed by its completions."""

    ids: torch.Tensor
    """Token ids, [1, N]."""
    positions: torch.Tensor
    """Position ids, [1, N]. Completions continue the positions of their prompt."""
    groups: tuple[PromptGroup, ...]
    sources: torch.Tensor
    """[M], for each token of a completion, the index in the packed row at which the token is predicted. In the order of
    the true values of `learned`."""
    targets: torch.Tensor
    """[M], ids of the tokens of the completions, in the order of `sources`."""
    learned: torch.Tensor
    """[B, C], true for tokens of completions and false for padding."""


def pack_groups(input_ids: torch.Tensor, attention_mask: torch.Tensor, width: int) -> PackedGroups:
    """Pack a batch into one row. Rows with equal prompts share one copy of the prompt.

    Args:
        input_ids: [B, P + C], prompts padded on the left and completions on the right.
        attention_mask: [B, P + C], 0 for padding.
        width: C.
    """
    split = input_ids.shape[1] - width
    real = attention_mask.bool()
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row in range(len(input_ids)):
        rows_of.setdefault(tuple(input_ids[row, :split][real[row, :split]].tolist()), []).append(row)
    learned = real[:, split:]
    lengths = learned.sum(1).tolist()
    ids: list[torch.Tensor] = []
    positions: list[torch.Tensor] = []
    sources: list[torch.Tensor] = [torch.empty(0, dtype=torch.long)] * len(input_ids)
    groups: list[PromptGroup] = []
    start = 0
    for prompt, rows in rows_of.items():
        ids.append(torch.tensor(prompt))
        positions.append(torch.arange(len(prompt)))
        last = start + len(prompt) - 1
        start += len(prompt)
        for row in rows:
            length = lengths[row]
            ids.append(input_ids[row, split:][learned[row]].cpu())
            positions.append(torch.arange(len(prompt), len(prompt) + length))
            sources[row] = torch.tensor([last, *range(start, start + length - 1)][:length], dtype=torch.long)
            start += length
        groups.append(PromptGroup(len(prompt), tuple(lengths[row] for row in rows)))
    device = input_ids.device
    return PackedGroups(
        ids=torch.cat(ids)[None].to(device),
        positions=torch.cat(positions)[None].to(device),
        groups=tuple(groups),
        sources=torch.cat(sources).to(device),
        targets=input_ids[:, split:][learned],
        learned=learned,
    )


def supports(model: Any) -> bool:
    """Whether `enable` works with a model: unsharded Qwen2, full sdpa attention, output layer without bias."""
    config = model.config
    windows = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    return (
        loss.supports(model)
        and not windows
        and not config.attention_dropout
        and config._attn_implementation in ("sdpa", NAME)
        and not loss.is_sharded(model.get_output_embeddings().weight)
    )


def enable(model: Any, temperature: float, *, entropy_gradient: bool = False) -> None:
    """Make `model(packed_groups=packed)` return log-probabilities and entropies of the completions' tokens, [M] each.

    Other calls are unchanged. The computation is in `forward`, so that wrappers (DDP, PEFT, autocast) apply.

    Args:
        model: a model of transformers for which `supports` is true.
        temperature: number by which the logits are divided.
        entropy_gradient: whether the loss has a term for the entropy.
    """
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, mask_of_padding)
    model.set_attn_implementation(NAME)
    original = model.forward

    @functools.wraps(original)
    def forward(self: Any, *arguments: Any, packed_groups: PackedGroups | None = None, **more: Any) -> Any:
        if packed_groups is None:
            return original(*arguments, **more)
        output = self.base_model(
            input_ids=packed_groups.ids,
            position_ids=packed_groups.positions,
            prompt_groups=packed_groups.groups,
            use_cache=False,
        )
        hidden = output.last_hidden_state[0][packed_groups.sources]
        weight = self.get_output_embeddings().weight
        if not (entropy_gradient or weight.requires_grad):
            return token_log_probs(hidden, weight, packed_groups.targets, temperature)
        log_probs, entropies, *_ = ChunkedLogProbFunction.apply(
            hidden,
            weight,
            None,
            packed_groups.targets,
            temperature,
            _VOCABULARY_TILE,
            None,
            1.0,
            ("log_probs", "entropy"),
        )
        return log_probs, entropies

    model.forward = types.MethodType(forward, model)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    prompt_groups: Sequence[PromptGroup] | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention. The signature is that of transformers' attention functions.

    Args:
        module: the attention layer.
        query: [1, H, N, S].
        key: [1, K, N, S].
        value: [1, K, N, S].
        attention_mask: mask, which is used only without `prompt_groups`.
        prompt_groups: the groups of the packed row.
        settings: more arguments of transformers' sdpa attention.

    Returns:
        The output, [1, N, H, S], and None in place of the attention weights.
    """
    if prompt_groups is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    scale = settings["scaling"]
    sizes = [size for group in prompt_groups for size in (group.prompt, *group.completions)]
    # Views; the backward pass of a split is one concatenation.
    queries, keys, values = (tensor[0].transpose(0, 1).split(sizes) for tensor in (query, key, value))
    outputs: list[torch.Tensor] = []
    start = 0
    for group in prompt_groups:
        end = start + 1 + len(group.completions)
        prompt_query, prompt_key, prompt_value = (
            pieces[start].transpose(0, 1)[None] for pieces in (queries, keys, values)
        )
        mixed = functional.scaled_dot_product_attention(
            prompt_query, prompt_key, prompt_value, is_causal=True, scale=scale, enable_gqa=True
        )
        outputs.append(mixed[0].transpose(0, 1))
        if any(group.completions):
            own = tuple(pieces[start + 1 : end] for pieces in (queries, keys, values))
            outputs += _attend_completions(own, prompt_key, prompt_value, group.completions, scale)
        start = end
    return torch.cat(outputs)[None], None


def _attend_completions(
    own: tuple[Sequence[torch.Tensor], ...],
    prompt_key: torch.Tensor,
    prompt_value: torch.Tensor,
    lengths: Sequence[int],
    scale: float,
) -> list[torch.Tensor]:
    """Compute the attention of a prompt's completions. Each completion attends to the prompt and to itself.

    Args:
        own: query, key and value of each completion, [length, heads, S].
        prompt_key: [1, K, P, S].
        prompt_value: [1, K, P, S].
        lengths: number of tokens in each completion.
        scale: factor by which attention scores are multiplied.

    Returns:
        One tensor [length, H, S] for each completion.
    """
    # Padding is on the right, where no earlier token of the completion sees it.
    query, key, value = (pad_sequence(list(pieces), batch_first=True) for pieces in own)  # [R, L, heads, S]
    rows, longest, heads, size = query.shape
    kv_heads = key.shape[2]
    shared = heads // kv_heads
    # The query heads that share keys and values become rows of one head: nothing is repeated.
    query = query.view(rows, longest, kv_heads, shared, size).permute(0, 2, 3, 1, 4).flatten(2, 3)
    keys = torch.cat([prompt_key.expand(rows, -1, -1, -1), key.transpose(1, 2)], dim=2)
    values = torch.cat([prompt_value.expand(rows, -1, -1, -1), value.transpose(1, 2)], dim=2)
    visible = torch.ones((longest, prompt_key.shape[2] + longest), dtype=torch.bool, device=query.device)
    visible = visible.tril(prompt_key.shape[2]).repeat(shared, 1)
    mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=visible, scale=scale)
    mixed = mixed.view(rows, kv_heads, shared, longest, size).permute(0, 3, 1, 2, 4).flatten(2, 3)
    return [row[:length] for row, length in zip(mixed, lengths, strict=True)]
