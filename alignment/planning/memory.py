"""Predict the peak memory of a training stage from the model's shape and the settings alone.

    predict(shape, MicroBatch(rows=4, length=4096), Layout(devices=8, zero=3)).total     # bytes on one device

The tensors that autograd keeps in a layer for the backward pass are counted one by one (tests compare the sum with the
tensors that PyTorch saves). The loss is TRL's tiled loss (trl/kernels/chunked_logprob.py, 1.16) or this toolkit's loss
(alignment/stages/loss.py). The optimizer is AdamW. This module does not import torch.

Sizes in the formulas: D = hidden size, K = width of the keys of a token, F = feed-forward width, V = vocabulary,
R = LoRA rank. A function whose name ends in `_bytes` returns bytes, and `width` is the size of one number in bytes.

Not covered: fragmentation, NCCL's buffers, `torch.compile`, and kernels that replace layers (they need less).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from alignment.models.shapes import Shape
from alignment.recipe.launch_file import Layout

GIB = 2**30
TRL_TILE_TOKENS, TRL_TILE_COLUMNS = 4096, 32_768
"""Size of a tile in TRL's loss (1.16): number of rows and of vocabulary columns."""
TILE_LOGITS, TILE_MIN_ROWS = 2**18, 256
"""Size of a tile in this toolkit's loss (alignment/stages/loss.py): number of logits, and smallest number of rows.

The number of logits is small enough that a tile fits into a core's cache if the vocabulary is small. Tiles with fewer
rows would be slow, since matrix products would wait for memory.
"""
OVERHEAD = {"cuda": 1.5 * GIB, "cpu": 0.55 * GIB}
"""Bytes of memory that a process needs without a model, by type of device.

On a GPU: the context, cuBLAS's workspaces and unused memory of the allocator. On a CPU: the imports of torch,
transformers, TRL and DeepSpeed, and their first step.
"""
ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
ALL_LINEAR = (*ATTENTION, *FEED_FORWARD)


@dataclass(frozen=True)
class Lora:
    """A LoRA adapter: its rank, its dropout, and the linear layers to which it is added."""

    rank: int
    dropout: float = 0.0
    targets: tuple[str, ...] = ALL_LINEAR


@dataclass(frozen=True)
class MicroBatch:
    """Settings of one forward and backward pass of training on one device."""

    rows: int
    """`per_device_train_batch_size`. In DPO a row is a pair of answers."""
    length: int
    """Number of tokens in a row. In DPO it is the length of prompt and one answer, in GRPO of prompt and completion."""
    kind: str = "sft"
    """Kind of the stage."""
    dtype: str = "bfloat16"
    """Type of the weights."""
    autocast: bool = True
    """Whether to compute in bfloat16 (`bf16: true`)."""
    accumulate: int = 1
    """`gradient_accumulation_steps`."""
    checkpointing: bool = True
    """`gradient_checkpointing`."""
    attention: str = "sdpa"
    masked: bool = False
    """Whether attention gets a mask: for padding, or for packed rows in a kernel that can't take sample lengths."""
    own_loss: bool = False
    """Whether the loss is this toolkit's (alignment/stages/loss.py) instead of TRL's."""
    lora: Lora | None = None
    quantized: bool = False
    """Whether the frozen weights have 4 bits (QLoRA)."""
    offload_activations: bool = False
    optimizer_bytes: int = 8
    """Bytes of AdamW's states per weight: 8 in float32, 2 with an 8-bit optimizer."""
    reference: bool = False
    """Whether a second, frozen model is in memory: in DPO, or in GRPO with beta above 0, if all weights are trained."""
    rollouts: int = 0
    """In GRPO, the number of completions that one device generates at a time."""
    completion: int = 0
    """In GRPO, the largest number of tokens in a completion. The loss covers only the completion."""
    vllm_share: float = 0.0
    """In GRPO with vLLM in the same process, the share of the GPU's memory that vLLM reserves."""
    packed_rollouts: bool = False
    """Whether completions come from the CPU decoder, which keeps a packed copy of the weights (GRPO in 16 bits)."""


@dataclass(frozen=True)
class Memory:
    """Peak memory of a training step, divided by purpose (weights, gradients, activations, ...)."""

    parts: Mapping[str, float] = field(default_factory=dict)
    """Bytes on one device, keyed by purpose."""
    host: float = 0.0
    """Bytes of CPU memory that each process uses for data that is offloaded from its device."""

    @property
    def total(self) -> float:
        """Bytes on one device in total."""
        return sum(self.parts.values())


def adapter_parameters(shape: Shape, lora: Lora) -> int:
    """Count the trainable weights of an adapter: R * (inputs + outputs) for each of its linear layers."""
    sizes = shape.linear_sizes()
    return shape.num_hidden_layers * sum(lora.rank * (sizes[name][0] + sizes[name][1]) for name in lora.targets)


def weight_bytes(shape: Shape, dtype: str, quantized: bool) -> float:
    """Return the bytes of the model's weights.

    Quantized linear layers need 4 bits per weight, plus 0.127 bits for the scales: NF4 with double quantization, in
    blocks of 64 weights (QLoRA, arXiv 2305.14314, section 3). Embeddings and norms are not quantized.
    """
    width = 4 if dtype == "float32" else 2
    if not quantized:
        return shape.parameters * width
    linear = shape.num_hidden_layers * sum(rows * columns for rows, columns in shape.linear_sizes().values())
    return linear * (0.5 + 0.127 / 8) + (shape.parameters - linear) * width


def layer_bytes(shape: Shape, micro: MicroBatch, device: str) -> float:
    """Return the bytes per token that autograd keeps in one decoder layer for the backward pass.

    RMSNorm computes in float32. It keeps its input and, if its weight is trained, the normalized rows. Attention keeps
    q, k, v and its output. The MLP keeps gate, silu(gate), up and their product. Frozen linear layers keep nothing.
    """
    hidden, keys, feed_forward = shape.hidden_size, shape.key_value_size, shape.intermediate_size
    half = micro.autocast or micro.dtype != "float32"  # linear layers compute in 16 bits
    width, stream = (2 if half else 4), (4 if micro.dtype == "float32" else 2)
    # With a mask, keys and values are repeated for every query head.
    expanded = micro.masked and "flash" not in micro.attention
    kept: float = (
        width * ((2 * hidden + 2 * (hidden if expanded else keys)) + 3 * feed_forward)
        + 4 * shape.num_attention_heads
        + 8
    )
    kept += 2 * 4 * hidden  # inputs of both norms, in float32
    if micro.lora is None:
        kept += 2 * stream * hidden  # normalized rows
        # Linear layers keep their input. If the input is in float32, each layer keeps a separate 16-bit copy.
        kept += width * (5 * hidden if half and stream == 4 else 2 * hidden)
        kept += width * feed_forward
    else:
        kept += _adapter_layer_bytes(shape, micro.lora, width, half, device)
    if expanded:
        kept += micro.length * width  # the layer's copy of the mask, as numbers
    return kept


def _adapter_layer_bytes(shape: Shape, lora: Lora, width: int, half: bool, device: str) -> float:
    """Return the bytes per token that autograd keeps in one layer's LoRA adapters for the backward pass.

    Each adapter keeps its input: in 16 bits under autocast, otherwise as a float32 copy. With dropout, it keeps the
    dropout's output and mask instead.
    """
    hidden, feed_forward = shape.hidden_size, shape.intermediate_size
    of_hidden = [name for name in lora.targets if name != "down_proj"]
    down = "down_proj" in lora.targets
    rank = width * lora.rank * len(lora.targets)
    if lora.dropout:
        mask = 1 if device == "cuda" else 4
        return rank + len(of_hidden) * hidden * (width + mask) + (feed_forward * (width + mask) if down else 0)
    if half:
        return rank + width * (len(of_hidden) * hidden + (feed_forward if down else 0))
    # In float32, layers with the same input share one copy: q, k and v share one, gate and up share another.
    groups = any(name in lora.targets for name in ATTENTION[:3]) + any(
        name in lora.targets for name in FEED_FORWARD[:2]
    )
    return rank + width * (groups * hidden + (feed_forward if down else 0))


def predict(shape: Shape, micro: MicroBatch, layout: Layout, device_bytes: float = 0.0) -> Memory:
    """Predict the peak memory of one training step on one device.

    Args:
        shape: shape of the model.
        micro: settings of one forward and backward pass.
        layout: devices and sharding.
        device_bytes: memory of the device in bytes. Only used to compute the share that vLLM reserves.
    """
    trained = adapter_parameters(shape, micro.lora) if micro.lora else shape.parameters
    width = 4 if micro.dtype == "float32" else 2
    weights = weight_bytes(shape, micro.dtype, micro.quantized)
    # PEFT keeps adapters in float32 beside 16-bit weights (autocast_adapter_dtype), except under ZeRO-3 (TRL).
    trained_width = width if micro.lora is None or layout.zero == 3 else 4
    master = 4 if layout.master_weights and trained_width == 2 else 0
    # Without a float32 copy of the weights, AdamW keeps its states in the type of the weights.
    states = micro.optimizer_bytes * (1 if trained_width == 4 or master else 0.5) + master
    parts: dict[str, float] = {}
    shards = {stage: layout.devices if layout.zero >= stage else 1 for stage in (1, 2, 3)}
    parts["weights"] = weights / shards[3] + (trained * trained_width / shards[3] if micro.lora else 0)
    if layout.zero == 3:  # the current layer, the next layer and the embedding are gathered at the same time
        layer = sum(rows * columns for rows, columns in shape.linear_sizes().values()) * width
        parts["gathered"] = 2 * layer + shape.vocab_size * shape.hidden_size * width
    gradients = trained * trained_width / shards[2]
    if layout.zero == 0 and layout.devices > 1:
        gradients *= 2  # DDP's buckets
    parts["gradients"] = gradients
    parts["optimizer"] = trained * states / shards[1]
    host = 0.0
    if layout.offload_optimizer:
        host += parts.pop("optimizer") + gradients
        parts["optimizer"] = 0.0
    if layout.offload_weights:
        host += parts["weights"]
        parts["weights"] = 0.0
    if micro.reference:
        parts["reference model"] = weights / shards[3]
    if micro.packed_rollouts:
        # Weights in float32 need a 16-bit copy of the embedding too. Activations are not reduced here: how many prompts
        # are equal depends on the rows.
        parts["rollout weights"] = 2 * shape.parameters + 2 * shape.vocab_size * shape.hidden_size * (width == 4)
    parts |= _step_bytes(shape, micro, layout, gradients)
    if micro.kind == "grpo" and micro.vllm_share:
        parts["vllm"] = micro.vllm_share * device_bytes
    if micro.offload_activations:
        host += parts.get("activations", 0.0)
        parts["activations"] = 0.0
    parts["process"] = OVERHEAD[layout.device]
    return Memory({name: value for name, value in parts.items() if value}, host)


def _step_bytes(shape: Shape, micro: MicroBatch, layout: Layout, gradients: float) -> dict[str, float]:
    """Return the bytes that a step adds at its peak: activations, and buffers of the loss or the backward pass.

    The peak is at one of two moments. At the end of the forward pass ("top"), all activations are kept. At the end of
    the backward pass ("bottom"), all gradients exist, and the activations of most layers have been freed. With few
    tokens the second moment needs more memory. The function returns the bytes at the moment that needs more memory.
    """
    rows = micro.rows * (2 if micro.kind in ("dpo", "kto") else 1)
    tokens = rows * micro.length / layout.sequence
    stream = 4 if micro.dtype == "float32" else 2
    width = 2 if micro.autocast or micro.dtype != "float32" else 4
    hidden, feed_forward = shape.hidden_size, shape.intermediate_size
    layer = tokens * layer_bytes(shape, micro, layout.device)
    kept = shape.num_hidden_layers * (tokens * hidden * stream if micro.checkpointing else layer)
    if micro.autocast and micro.dtype == "float32":
        kept += 2 * shape.parameters  # autocast's 16-bit copies of the weights, for the whole forward pass
    kept += tokens * hidden * (4 + 2 * stream)  # the last norm, and the rows that go into the loss
    # Without Triton, TRL scores every position, including the prompt.
    scored_length = micro.completion if micro.completion and layout.device == "cuda" else micro.length
    scored = rows * scored_length / layout.sequence
    if micro.own_loss:
        loss = own_loss_bytes(shape, micro, scored)
    else:
        loss = trl_loss_bytes(shape, micro, layout.device, scored)
    temporary = tokens * (3 * feed_forward * width + 4 * hidden * 4)
    backward = temporary + (layer if micro.checkpointing else 0)
    top = kept + max(loss, backward)
    bottom = (
        layer
        + temporary
        + (shape.vocab_size * hidden * stream if micro.lora is None and shape.tie_word_embeddings else 0)
    )
    if micro.checkpointing and micro.masked:
        # Measured: with a mask, the backward pass expands keys, values and mask of a recomputed layer once more.
        bottom += layer
    # Gradients of earlier micro-batches, or DDP's buckets, exist during the whole step.
    waiting = micro.accumulate > 1 or (layout.zero == 0 and layout.devices > 1)
    at_top = top + (gradients if waiting else 0)
    step = {"activations": kept, "loss": max(loss, backward)}
    if at_top < bottom + gradients:
        step = {"activations": layer, "loss": bottom - layer}
    elif not waiting:
        step["loss"] -= gradients  # `predict` counts the gradients, but they do not exist yet at the top
    if micro.kind == "grpo" and not micro.vllm_share:
        generation = rollout_bytes(shape, micro)
        if generation > sum(step.values()) + gradients:
            return {"rollouts": generation - gradients}
    return step


def trl_loss_bytes(shape: Shape, micro: MicroBatch, device: str, tokens: float) -> float:
    """Return the bytes of TRL's tiled loss: gradients of hidden rows and output layer, and one tile of logits.

    Without Triton, torch computes the tile and holds seven copies of the tile in float32.

    Args:
        shape: shape of the model.
        micro: settings of one forward and backward pass.
        device: `cuda` or `cpu`.
        tokens: number of scored positions.
    """
    width = 2 if micro.autocast or micro.dtype != "float32" else 4
    columns = TRL_TILE_COLUMNS if device == "cuda" else min(TRL_TILE_COLUMNS, shape.vocab_size)
    tile = min(tokens, TRL_TILE_TOKENS) * columns
    buffers = tile * width if device == "cuda" else tile * (width + 7.25 * 4)
    head = 0.0 if micro.lora else shape.vocab_size * shape.hidden_size * (4 if micro.dtype == "float32" else 6)
    return buffers + head + tokens * shape.hidden_size * (4 + width)


def own_loss_bytes(shape: Shape, micro: MicroBatch, tokens: float) -> float:
    """Return the bytes of this toolkit's loss: a tile's logits and exponentials in float32, and the gradients.

    This loss is used without Triton.

    Args:
        shape: shape of the model.
        micro: settings of one forward and backward pass.
        tokens: number of scored positions.
    """
    half = micro.autocast or micro.dtype != "float32"
    tile_rows = max(TILE_LOGITS // max(shape.vocab_size, 1), TILE_MIN_ROWS)
    tile = min(tokens, tile_rows) * shape.vocab_size
    copied = 2 if half and micro.dtype == "float32" else 0  # the head's 16-bit copy under autocast
    head = shape.vocab_size * shape.hidden_size * (copied + (0 if micro.lora else 4))
    return tile * (12 if half else 8) + head + tokens * shape.hidden_size * (4 + (2 if half else 4))


def rollout_bytes(shape: Shape, micro: MicroBatch) -> float:
    """Return the bytes of generation in transformers.

    They are the key/value cache of all rollouts, a second copy of one layer's cache, and the logits of one token.
    """
    width = 2 if micro.autocast or micro.dtype != "float32" else 4
    cache = micro.rollouts * micro.length * 2 * shape.key_value_size * width
    return cache * (shape.num_hidden_layers + 1) + micro.rollouts * shape.vocab_size * (width + 12)


def fits(shape: Shape, micro: MicroBatch, layout: Layout, device_bytes: float) -> bool:
    """Whether the peak is within `device_bytes`, the memory of one device."""
    return predict(shape, micro, layout, device_bytes).total <= device_bytes


def largest_batch(shape: Shape, micro: MicroBatch, layout: Layout, device_bytes: float) -> int:
    """Return the largest number of rows in a micro-batch that fits into `device_bytes`, from 0 to 512."""
    rows = 0
    while rows < 512 and fits(shape, replace(micro, rows=rows + 1), layout, device_bytes):
        rows += 1
    return rows
