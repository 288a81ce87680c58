"""A decoder for Qwen2 models on CPUs, with packed weights, a static cache, and prompts that several samples share.

Three things make the decoder faster than the generic forward pass of transformers with the same weights:

- Weights are packed once for oneDNN, torch's matrix library on CPUs. `torch.nn.functional.linear` packs the weights
  anew at every call. Query, key and value projections are one matrix product, and so are gate and up projections.
- The cache is allocated once and written in place. Keys and values are not repeated for the query heads that share
  them.
- All samples of a prompt share the keys and values of the prompt: a prompt is computed once for any number of samples.

The products of a LoRA adapter of PEFT are added to those of the packed weights, in float32 (`low_rank`).

Shapes: G = groups (prompts), R = samples of a prompt, P = longest prompt, S = columns for generated tokens, D = model
width, K = key/value heads, C = width of a head, T = tokens, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from alignment.evaluation.engines.low_rank import LowRank, adapter_reason, base_layer


def unsupported_reason(model: Any) -> str | None:
    """Return the reason why `CpuDecoder` can't run a model of transformers or PEFT, or None if it can."""
    config = model.config
    if config.model_type != "qwen2":
        return f"model type {config.model_type}"
    if getattr(config, "use_sliding_window", False):
        return "sliding-window attention"
    if config.hidden_act != "silu":
        return f"activation {config.hidden_act}"
    if next(model.parameters()).device.type != "cpu":
        return "the model is not on a CPU"
    if config.rope_parameters.get("rope_type", "default") not in ("default", "yarn"):
        return f"position embedding {config.rope_parameters['rope_type']}"
    return adapter_reason(model)


class PackedLinear:
    """A linear layer whose weight is packed once for oneDNN. The output equals `functional.linear` plus the adapter."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, adapter: LowRank | None = None) -> None:
        self.packed = _pack(weight) if weight.dtype == torch.bfloat16 else None
        self.weight = weight if self.packed is None else weight[:0]
        self.bias = bias
        self.adapter = adapter

    @classmethod
    def joined(cls, layers: Sequence[Any], dtype: torch.dtype) -> PackedLinear:
        """Join several layers with the same input to one layer. The outputs of the layers are concatenated."""
        bases = [base_layer(layer) for layer in layers]
        weight = torch.cat([base.weight.detach() for base in bases]) if len(bases) > 1 else bases[0].weight.detach()
        biases = [base.bias.detach() for base in bases if base.bias is not None]
        bias = torch.cat(biases).to(dtype) if biases else None
        return cls(weight.to(dtype), bias, LowRank.of(layers))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.packed is None:
            output = functional.linear(x, self.weight, self.bias)
        else:
            output = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return output if self.adapter is None else self.adapter.add(output, x)


def _pack(weight: torch.Tensor) -> torch.Tensor | None:
    """Return the weight in oneDNN's layout, or None if this torch build or CPU does not support that layout."""
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 64)
    except (AttributeError, RuntimeError, NotImplementedError):
        return None


@dataclass
class _Layer:
    """Weights of one decoder layer."""

    input_norm: torch.Tensor
    qkv: PackedLinear
    output: PackedLinear
    post_norm: torch.Tensor
    gate_up: PackedLinear
    down: PackedLinear


@dataclass
class GroupCache:
    """Keys and values of G prompts (groups) with R samples each.

    A step writes the new tokens of all rows into the same column. A group that joins later starts at a later column;
    earlier columns are masked for that group.
    """

    samples: int
    prompt_keys: list[torch.Tensor]
    """Keys of the prompts: one tensor per layer, padded on the right. Shape of each: (G, K, P, C)."""
    prompt_values: list[torch.Tensor]
    prompt_lengths: torch.Tensor
    """Number of tokens of each prompt. Shape: (G,)."""
    keys: list[torch.Tensor]
    """Keys of the generated tokens: one tensor per layer. Shape of each: (G, K, R, S, C)."""
    values: list[torch.Tensor]
    starts: torch.Tensor
    """For each group, the index of the first column that holds its generated tokens. Shape: (G,)."""
    column: int = 0
    """Index of the column into which the next step writes."""

    @property
    def groups(self) -> int:
        return len(self.prompt_lengths)

    def select(self, groups: torch.Tensor, rows: torch.Tensor) -> None:
        """Keep the given samples of the given groups, and drop all others.

        Args:
            groups: indices of the groups to keep. Shape: (G',).
            rows: indices of the samples to keep in each of these groups. Shape: (G', R').
        """
        longest = int(self.prompt_lengths[groups].max())
        first = int(self.starts[groups].min())
        self.prompt_keys = [tensor[groups, :, :longest].contiguous() for tensor in self.prompt_keys]
        self.prompt_values = [tensor[groups, :, :longest].contiguous() for tensor in self.prompt_values]
        picked = (groups[:, None], slice(None), rows)
        # Indexing with a slice between two index tensors puts the indexed dimensions first: (G', R', K, S, C).
        self.keys = [tensor[picked][..., first:, :].transpose(1, 2).contiguous() for tensor in self.keys]
        self.values = [tensor[picked][..., first:, :].transpose(1, 2).contiguous() for tensor in self.values]
        self.prompt_lengths, self.starts = self.prompt_lengths[groups], self.starts[groups] - first
        self.column -= first
        self.samples = rows.shape[1]

    def join(self, other: GroupCache) -> None:
        """Append the groups of another cache, which must not contain generated tokens."""
        assert other.samples == self.samples and other.column == 0
        width = max(self.prompt_keys[0].shape[2], other.prompt_keys[0].shape[2])
        for name in ("prompt_keys", "prompt_values"):
            pairs = zip(getattr(self, name), getattr(other, name), strict=True)
            setattr(self, name, [torch.cat([_widen(a, 2, width), _widen(b, 2, width)]) for a, b in pairs])
        room = max(self.keys[0].shape[3], self.column + other.keys[0].shape[3])
        for name in ("keys", "values"):
            pairs = zip(getattr(self, name), getattr(other, name), strict=True)
            setattr(self, name, [torch.cat([_widen(a, 3, room), _widen(b, 3, room)]) for a, b in pairs])
        self.starts = torch.cat([self.starts, torch.full_like(other.starts, self.column)])
        self.prompt_lengths = torch.cat([self.prompt_lengths, other.prompt_lengths])


def _widen(tensor: torch.Tensor, dimension: int, size: int) -> torch.Tensor:
    """Append zeros along a dimension until its length is `size`."""
    missing = size - tensor.shape[dimension]
    if missing <= 0:
        return tensor
    shape = [missing if number == dimension else length for number, length in enumerate(tensor.shape)]
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=dimension)


class CpuDecoder:
    """Runs a Qwen2 model on prompts, and on one new token of each sample per step."""

    def __init__(self, model: Any, dtype: torch.dtype | None = None) -> None:
        """Pack the weights of a model for which `unsupported_reason` is None.

        Args:
            model: a model of transformers or PEFT.
            dtype: the type to compute in; by default the type of the weights.
        """
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        config = model.config
        self.heads = int(config.num_attention_heads)
        self.kv_heads = int(config.num_key_value_heads)
        self.head_width = int(getattr(config, "head_dim", None) or config.hidden_size // self.heads)
        self.epsilon = float(config.rms_norm_eps)
        self.rotary = model.model.rotary_emb
        self.dtype: torch.dtype = dtype or model.model.embed_tokens.weight.dtype
        self.embedding = model.model.embed_tokens.weight.detach().to(self.dtype)
        self.final_norm = model.model.norm.weight.detach().to(self.dtype)
        self.output_layer = PackedLinear.joined([model.lm_head], self.dtype)
        self.layers = [self._layer(layer) for layer in model.model.layers]
        self.bytes_per_token = 2 * len(self.layers) * self.kv_heads * self.head_width * self.dtype.itemsize

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp, dtype = layer.self_attn, layer.mlp, self.dtype
        return _Layer(
            input_norm=layer.input_layernorm.weight.detach().to(dtype),
            qkv=PackedLinear.joined([attention.q_proj, attention.k_proj, attention.v_proj], dtype),
            output=PackedLinear.joined([attention.o_proj], dtype),
            post_norm=layer.post_attention_layernorm.weight.detach().to(dtype),
            gate_up=PackedLinear.joined([mlp.gate_proj, mlp.up_proj], dtype),
            down=PackedLinear.joined([mlp.down_proj], dtype),
        )

    def _adapters(self) -> list[LowRank]:
        """Return the LoRA adapters of all layers. Layers without an adapter are left out."""
        linears = [linear for layer in self.layers for linear in (layer.qkv, layer.output, layer.gate_up, layer.down)]
        return [linear.adapter for linear in linears if linear.adapter is not None]

    @property
    def adapted(self) -> bool:
        """Whether an adapter is added to the packed weights."""
        return bool(self._adapters())

    def refresh_adapters(self) -> None:
        """Read the weights of LoRA adapters again, after a training step. The frozen weights stay packed."""
        for adapter in self._adapters():
            adapter.refresh()

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]], samples: int, room: int) -> tuple[GroupCache, torch.Tensor]:
        """Run the model on prompts, and create the cache of their keys and values.

        Args:
            prompts: G lists of token ids. Shorter prompts are padded, so lists of similar length are best.
            samples: R, the number of samples of each prompt.
            room: number of columns to allocate for generated tokens.

        Returns:
            The cache, and the logits of the token after each prompt, shape (G, V), in float32.
        """
        groups, longest = len(prompts), max(map(len, prompts))
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        ids = torch.zeros((groups, longest), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        x = functional.embedding(ids, self.embedding)
        cos, sin = self.rotary(x, torch.arange(longest)[None])
        cache = GroupCache(samples, [], [], lengths, [], [], torch.zeros_like(lengths))
        picked = (torch.arange(groups), lengths - 1)
        for number, layer in enumerate(self.layers):
            query, key, value = self._project(layer, x, cos, sin)
            cache.prompt_keys.append(key.contiguous())
            cache.prompt_values.append(value.contiguous())
            # Padding is on the right and attention is causal: no mask is needed.
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            mixed = mixed.transpose(1, 2)
            if number == len(self.layers) - 1:  # the output needs the last position of each prompt only
                mixed, x = mixed[picked], x[picked]
            x = self._finish(layer, x, mixed.reshape(*x.shape[:-1], -1))
            shape = (groups, self.kv_heads, samples, room, self.head_width)
            cache.keys.append(torch.zeros(shape, dtype=self.dtype))
            cache.values.append(torch.zeros(shape, dtype=self.dtype))
        return cache, self._logits(x)

    @torch.inference_mode()
    def step(self, cache: GroupCache, tokens: torch.Tensor) -> torch.Tensor:
        """Run the model on the last token of every row.

        Args:
            cache: keys and values of the earlier tokens. Keys and values of the last tokens are added.
            tokens: the tokens that were chosen last. Shape: (G, R).

        Returns:
            Logits of the next tokens, shape (G, R, V), in float32.
        """
        groups, samples = tokens.shape
        x = functional.embedding(tokens.reshape(-1), self.embedding)[:, None]
        positions = cache.prompt_lengths + cache.column - cache.starts
        cos, sin = self.rotary(x, positions.repeat_interleave(samples)[:, None])
        end = cache.column + 1
        bias = self._bias(cache, end)
        for number, layer in enumerate(self.layers):
            query, key, value = self._project(layer, x, cos, sin)
            cache.keys[number][:, :, :, cache.column] = self._by_group(key, groups)[:, :, :, 0]
            cache.values[number][:, :, :, cache.column] = self._by_group(value, groups)[:, :, :, 0]
            mixed = self._attend(self._by_group(query, groups), cache, number, end, bias)
            x = self._finish(layer, x, mixed.reshape(groups * samples, 1, -1))
        cache.column = end
        return self._logits(x[:, 0]).view(groups, samples, -1)

    def _by_group(self, projected: torch.Tensor, groups: int) -> torch.Tensor:
        """Reshape a tensor from (G * R, heads, 1, C) to (G, K, R, heads / K, C)."""
        samples, heads = projected.shape[0] // groups, projected.shape[1]
        shape = (groups, samples, self.kv_heads, heads // self.kv_heads, self.head_width)
        return projected.reshape(shape).transpose(1, 2)

    def _bias(self, cache: GroupCache, end: int) -> torch.Tensor | None:
        """Return the attention bias in float32, or None if nothing is masked. Shape: (G, 1, 1, 1, P + end).

        The bias is -inf for the padding of a prompt and for columns before a group's start, and 0 elsewhere.
        """
        width = cache.prompt_keys[0].shape[2]
        hidden = torch.cat(
            [
                torch.arange(width)[None] >= cache.prompt_lengths[:, None],
                torch.arange(end)[None] < cache.starts[:, None],
            ],
            dim=1,
        )
        if not bool(hidden.any()):
            return None
        return torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))[:, None, None, None]

    def _attend(
        self, query: torch.Tensor, cache: GroupCache, number: int, end: int, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Compute the attention of each row's last token over the row's prompt and generated tokens.

        Args:
            query: shape (G, K, R, heads / K, C).
            cache: keys and values.
            number: index of the layer.
            end: number of columns of generated tokens.
            bias: the result of `_bias`.

        Returns:
            The attention output. Shape: (G, R, heads * C).
        """
        groups, kv_heads, samples, shared, width = query.shape
        query = (query * width**-0.5).contiguous()
        prompt_keys = cache.prompt_keys[number].flatten(0, 1)
        keys = cache.keys[number].flatten(0, 2)[:, :end]
        longest = prompt_keys.shape[1]
        to_prompt = torch.bmm(query.view(-1, samples * shared, width), prompt_keys.transpose(1, 2))
        to_own = torch.bmm(query.view(-1, shared, width), keys.transpose(1, 2))
        scores = torch.cat(
            [
                to_prompt.view(groups, kv_heads, samples, shared, longest),
                to_own.view(groups, kv_heads, samples, shared, end),
            ],
            dim=-1,
        ).float()
        weights = (scores if bias is None else scores.add_(bias)).softmax(-1).to(query.dtype)
        prompt_weights = weights[..., :longest].reshape(-1, samples * shared, longest)
        own_weights = weights[..., longest:].reshape(-1, shared, end)
        mixed = torch.bmm(prompt_weights, cache.prompt_values[number].flatten(0, 1)).view(query.shape)
        mixed = mixed + torch.bmm(own_weights, cache.values[number].flatten(0, 2)[:, :end]).view(query.shape)
        return mixed.transpose(1, 2).reshape(groups, samples, -1)

    def _project(
        self, layer: _Layer, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute query, key and value of x (rows, T, D), each (rows, heads, T, C). Rotate query and key."""
        rows, length, _ = x.shape
        normed = functional.rms_norm(x, (x.shape[-1],), layer.input_norm, self.epsilon)
        projected = layer.qkv(normed.view(rows * length, -1)).view(rows, length, -1, self.head_width).transpose(1, 2)
        turned = self.heads + self.kv_heads
        rotated, value = projected[:, :turned], projected[:, turned:]
        half = self.head_width // 2
        swapped = torch.cat([-rotated[..., half:], rotated[..., :half]], dim=-1)
        rotated = rotated * cos[:, None] + swapped * sin[:, None]
        return rotated[:, : self.heads], rotated[:, self.heads :], value

    def _finish(self, layer: _Layer, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Compute the output projection and the MLP of a layer, with residual connections; x and mixed are (..., D)."""
        shape, width = x.shape, x.shape[-1]
        x = x.reshape(-1, width) + layer.output(mixed.reshape(-1, mixed.shape[-1]))
        normed = functional.rms_norm(x, (width,), layer.post_norm, self.epsilon)
        gate, up = layer.gate_up(normed).chunk(2, dim=-1)
        return (x + layer.down(functional.silu(gate) * up)).view(shape)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.output_layer(functional.rms_norm(x, (x.shape[-1],), self.final_norm, self.epsilon)).float()
