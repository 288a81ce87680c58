"""How much memory a training stage takes at its peak, from the shape of the model and the settings alone.

    predict(shape, Work(batch=4, length=4096), Layout(devices=8, zero=3)).total     # bytes on one device

What autograd keeps of a layer is counted tensor by tensor (tests compare it with what PyTorch saves); the loss is TRL's
own in tiles (trl/kernels/chunked_logprob.py, 1.16), or ours (alignment/stages/loss.py), the optimizer AdamW. Nothing here
imports torch.

Not covered: fragmentation, NCCL's buffers, `torch.compile`, kernels that replace layers (they take less).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from alignment.models.shapes import Shape
from alignment.recipe.launch_file import Layout

GIB = 2**30
TILE_TOKENS, TILE_COLUMNS = 4096, 32_768  # of the loss (TRL 1.16)
# Of ours, which takes them from here: logits that are worked on at a time, so that small vocabularies stay in a core's cache,
# and rows of a tile, however large the vocabulary: with fewer the products wait for memory.
OWN_TILE, OWN_LEAST_ROWS = 2**18, 256
# What the process takes before there is a model: on a GPU the context, cuBLAS's workspaces and the allocator's slack;
# on a CPU the imports of torch, transformers, TRL and DeepSpeed, and their first step.
OVERHEAD = {"cuda": 1.5 * GIB, "cpu": 0.55 * GIB}
ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
ALL_LINEAR = (*ATTENTION, *FEED_FORWARD)


@dataclass(frozen=True)
class Lora:
    """An adapter: its rank, and which linear layers it is on."""

    rank: int
    dropout: float = 0.0
    targets: tuple[str, ...] = ALL_LINEAR


@dataclass(frozen=True)
class Work:
    """One micro-batch of training."""

    batch: int
    length: int
    """Tokens of a row; for DPO of one answer with its prompt, for GRPO of prompt and completion together."""
    kind: str = "sft"
    dtype: str = "bfloat16"
    """Of the weights."""
    autocast: bool = True
    """bf16 arithmetic (`bf16: true`)."""
    accumulate: int = 1
    checkpointing: bool = True
    attention: str = "sdpa"
    masked: bool = False
    """Whether attention gets a mask: packed rows or padding without a kernel that takes lengths."""
    own_loss: bool = False
    """Whether the loss is ours (alignment/stages/loss.py) and not TRL's."""
    lora: Lora | None = None
    quantized: bool = False
    offload_activations: bool = False
    optimizer_bytes: int = 8
    """Of AdamW's states a weight, in float32; 8-bit optimizers take 2."""
    reference: bool = False
    """DPO with a second model in memory, or GRPO with beta above 0, for full weights."""
    rollouts: int = 0
    """GRPO: completions that are generated at a time on one device."""
    completion: int = 0
    """GRPO: longest completion, in tokens; the loss is over these alone."""
    vllm_share: float = 0.0
    """GRPO with vLLM in the same process: the share of the card it takes for itself."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the peak, by what they are for."""

    parts: Mapping[str, float] = field(default_factory=dict)
    host: float = 0.0
    """Bytes in the memory of the CPU, for each process: what is offloaded."""

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def adapter_parameters(shape: Shape, lora: Lora) -> int:
    """Trainable weights of the adapter over all layers."""
    sizes = shape.linear_sizes()
    return shape.num_hidden_layers * sum(lora.rank * (sizes[name][0] + sizes[name][1]) for name in lora.targets)


def weight_bytes(shape: Shape, dtype: str, quantized: bool) -> float:
    """Bytes of the frozen or trained weights; 4 bits are NF4 with double quantization (QLoRA, arXiv 2305.14314)."""
    size = 4 if dtype == "float32" else 2
    if not quantized:
        return shape.parameters * size
    linear = shape.num_hidden_layers * sum(rows * columns for rows, columns in shape.linear_sizes().values())
    return linear * (0.5 + 0.127 / 8) + (shape.parameters - linear) * size


def layer_bytes(shape: Shape, work: Work, device: str) -> float:
    """What autograd keeps of one decoder layer, in bytes for one token.

    RMSNorm computes in float32 and keeps its input and, where its weight is trained, the normalized rows; attention keeps
    q, k, v and its output; the MLP gate, silu(gate), up and their product. Frozen linear layers keep nothing.
    """
    h, kv, f = shape.hidden_size, shape.key_value_size, shape.intermediate_size
    half = work.autocast or work.dtype != "float32"  # what linear layers compute in
    act, stream = (2 if half else 4), (4 if work.dtype == "float32" else 2)
    expanded = work.masked and "flash" not in work.attention  # keys and values are repeated for every query head
    kept: float = act * ((2 * h + 2 * (h if expanded else kv)) + 3 * f) + 4 * shape.num_attention_heads + 8
    kept += 2 * 4 * h  # the float32 input of both norms
    if work.lora is None:
        kept += 2 * stream * h  # normalized rows
        # Linear layers keep their input; where it is in float32 each keeps its own copy in 16 bits.
        kept += act * (5 * h if half and stream == 4 else 2 * h)
        kept += act * f
    else:
        kept += _adapter_layer_bytes(shape, work, act, half, device)
    if expanded:
        kept += work.length * act  # the mask, as numbers, of every layer's own
    return kept


def _adapter_layer_bytes(shape: Shape, work: Work, act: int, half: bool, device: str) -> float:
    """LoRA computes in float32 copies of its inputs, or in 16 bits under autocast; dropout keeps output and mask."""
    assert work.lora is not None
    lora, h, f = work.lora, shape.hidden_size, shape.intermediate_size
    of_hidden = [name for name in lora.targets if name != "down_proj"]
    down = "down_proj" in lora.targets
    rank = act * lora.rank * len(lora.targets)
    if lora.dropout:
        mask = 1 if device == "cuda" else 4
        return rank + len(of_hidden) * h * (act + mask) + (f * (act + mask) if down else 0)
    if half:
        return rank + act * (len(of_hidden) * h + (f if down else 0))
    groups = any(name in lora.targets for name in ATTENTION[:3]) + any(
        name in lora.targets for name in FEED_FORWARD[:2]
    )
    return rank + act * (groups * h + (f if down else 0))


def predict(shape: Shape, work: Work, layout: Layout, device_bytes: float = 0.0) -> Memory:
    """The peak on one device. `device_bytes` is the card's size, which only vLLM's share needs."""
    trained = adapter_parameters(shape, work.lora) if work.lora else shape.parameters
    size = 4 if work.dtype == "float32" else 2
    weights = weight_bytes(shape, work.dtype, work.quantized)
    # Adapters are kept in float32 beside 16-bit weights (PEFT's autocast_adapter_dtype), but not under ZeRO-3 (TRL).
    own = size if work.lora is None or layout.zero == 3 else 4
    master = 4 if layout.master_weights and own == 2 else 0
    # Without a float32 copy AdamW keeps its states in the type of the weights.
    states = work.optimizer_bytes * (1 if own == 4 or master else 0.5) + master
    parts: dict[str, float] = {}
    sharded = {stage: layout.devices if layout.zero >= stage else 1 for stage in (1, 2, 3)}
    parts["weights"] = weights / sharded[3] + (trained * own / sharded[3] if work.lora else 0)
    if layout.zero == 3:  # gathered: the layer at work and the next one, and the embedding
        layer = sum(rows * columns for rows, columns in shape.linear_sizes().values()) * size
        parts["gathered"] = 2 * layer + shape.vocab_size * shape.hidden_size * size
    gradients = trained * own / sharded[2]
    if layout.zero == 0 and layout.devices > 1:
        gradients *= 2  # DDP's buckets
    parts["gradients"] = gradients
    parts["optimizer"] = trained * states / sharded[1]
    host = 0.0
    if layout.offload_optimizer:
        host += parts.pop("optimizer") + gradients
        parts["optimizer"] = 0.0
    if layout.offload_weights:
        host += parts["weights"]
        parts["weights"] = 0.0
    if work.reference:
        parts["reference model"] = weights / sharded[3]
    parts |= _step_bytes(shape, work, layout, gradients)
    if work.kind == "grpo" and work.vllm_share:
        parts["vllm"] = work.vllm_share * device_bytes
    if work.offload_activations:
        host += parts.get("activations", 0.0)
        parts["activations"] = 0.0
    parts["process"] = OVERHEAD[layout.device]
    return Memory({name: value for name, value in parts.items() if value}, host)


def _step_bytes(shape: Shape, work: Work, layout: Layout, gradients: float) -> dict[str, float]:
    """What a step adds to what stays: activations, and the larger of the loss's buffers and a layer's backward."""
    rows = work.batch * (2 if work.kind == "dpo" else 1)
    tokens = rows * work.length / layout.sequence
    stream = 4 if work.dtype == "float32" else 2
    act = 2 if work.autocast or work.dtype != "float32" else 4
    h, f = shape.hidden_size, shape.intermediate_size
    layer = tokens * layer_bytes(shape, work, layout.device)
    kept = shape.num_hidden_layers * (tokens * h * stream if work.checkpointing else layer)
    if work.autocast and work.dtype == "float32":
        kept += 2 * shape.parameters  # autocast's 16-bit copies of the weights, for the whole forward
    kept += tokens * h * (4 + 2 * stream)  # the last norm, and the rows that go into the loss
    # Without Triton TRL scores every position, those of the prompt too.
    last = work.completion if work.completion and layout.device == "cuda" else work.length
    scored = rows * last / layout.sequence
    loss = own_loss_bytes(shape, work, scored) if work.own_loss else loss_bytes(shape, work, layout.device, scored)
    temporary = tokens * (3 * f * act + 4 * h * 4)
    backward = temporary + (layer if work.checkpointing else 0)
    # Backward frees a layer as it makes its gradients: with few tokens the gradients are the larger part, and what is
    # kept is gone when they are all there. The parts are shown as they are at the peak.
    top = kept + max(loss, backward)
    bottom = (
        layer + temporary + (shape.vocab_size * h * stream if work.lora is None and shape.tie_word_embeddings else 0)
    )
    if work.checkpointing and work.masked:
        bottom += layer  # as measured: behind a mask a remade layer's backward expands keys, values and mask once more
    waiting = work.accumulate > 1 or (layout.zero == 0 and layout.devices > 1)
    at_top = top + (gradients if waiting else 0)
    step = {"activations": kept, "loss": max(loss, backward)}
    if at_top < bottom + gradients:
        step = {"activations": layer, "loss": bottom - layer}
    elif not waiting:
        step["loss"] -= gradients  # which are not there yet at the top
    if work.kind == "grpo" and not work.vllm_share:
        rolled = rollout_bytes(shape, work)
        if rolled > sum(step.values()) + gradients:
            return {"rollouts": rolled - gradients}
    return step


def loss_bytes(shape: Shape, work: Work, device: str, tokens: float) -> float:
    """TRL's loss in tiles: gradients of the hidden rows and of the head in float32, and the tile itself.

    On devices without Triton a tile is worked on in torch, with seven copies of it in float32.
    """
    act = 2 if work.autocast or work.dtype != "float32" else 4
    columns = TILE_COLUMNS if device == "cuda" else min(TILE_COLUMNS, shape.vocab_size)
    tile = min(tokens, TILE_TOKENS) * columns
    buffers = tile * act if device == "cuda" else tile * (act + 7.25 * 4)
    head = 0.0 if work.lora else shape.vocab_size * shape.hidden_size * (4 if work.dtype == "float32" else 6)
    return buffers + head + tokens * shape.hidden_size * (4 + act)


def own_loss_bytes(shape: Shape, work: Work, tokens: float) -> float:
    """Ours, where there is no Triton: a tile's logits and their powers in float32, and the gradients of rows and head."""
    half = work.autocast or work.dtype != "float32"
    tile = min(tokens, max(OWN_TILE // shape.vocab_size, OWN_LEAST_ROWS)) * shape.vocab_size
    copied = 2 if half and work.dtype == "float32" else 0  # the head, under autocast
    head = shape.vocab_size * shape.hidden_size * (copied + (0 if work.lora else 4))
    return tile * (12 if half else 8) + head + tokens * shape.hidden_size * (4 + (2 if half else 4))


def rollout_bytes(shape: Shape, work: Work) -> float:
    """Generation in transformers: keys and values of all rollouts, one layer of them twice, and the logits of a token."""
    act = 2 if work.autocast or work.dtype != "float32" else 4
    cache = work.rollouts * work.length * 2 * shape.key_value_size * act
    return cache * (shape.num_hidden_layers + 1) + work.rollouts * shape.vocab_size * (act + 12)


def fits(shape: Shape, work: Work, layout: Layout, device_bytes: float) -> bool:
    """Whether the peak stays below the card's size."""
    return predict(shape, work, layout, device_bytes).total <= device_bytes


def largest_batch(shape: Shape, work: Work, layout: Layout, device_bytes: float) -> int:
    """The largest micro-batch that fits, 0 where none does."""
    batch = 0
    while batch < 512 and fits(shape, replace(work, batch=batch + 1), layout, device_bytes):
        batch += 1
    return batch
