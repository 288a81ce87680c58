"""Compute what each training stage of a recipe needs: device and host memory, tokens and steps.

    needs, warnings = stage_needs(recipe, index, shape, layout, device_bytes)

The model's shape comes from `model.init`, a local config.json, or the name of a Qwen2.5-Coder model. This module does
not import torch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from alignment.models.precision import resolve_training
from alignment.models.shapes import SHAPES, Shape
from alignment.models.stored_config import stored_config
from alignment.planning import memory
from alignment.planning.memory import Lora, MicroBatch
from alignment.recipe import BaseModelSettings, DpoStage, GrpoStage, KtoStage, Recipe, TrainingStage
from alignment.recipe.launch_file import Layout

_DEFAULT_BATCH, _DEFAULT_LENGTH, _DEFAULT_COMPLETION = 8, 1024, 256  # TRL's defaults
_DEFAULT_PROMPT = 512  # assumed if the recipe sets no limit, since TRL has no limit


class StageNeeds(TypedDict):
    """Memory, tokens and steps of one training stage, as `align plan --json` prints them."""

    stage: str
    peak: int
    """Peak memory on one device, in bytes."""
    parts: dict[str, int]
    """Bytes that add up to `peak`, keyed by purpose."""
    host: int
    """CPU memory in bytes: data that is offloaded from the device, and the merge of an adapter."""
    fits: bool | None
    """Whether `peak` fits into the device's memory. None if that memory is unknown."""
    tokens_per_step: int
    """Largest number of tokens in a step, which is reached if every row has the full length."""
    steps: int | None
    """The recipe's `max_steps`, or None if the recipe does not set it."""


def shape_of(model: BaseModelSettings) -> Shape | None:
    """Return the shape of the recipe's base model, or None if the model would have to be downloaded to find its shape.

    For a model with random weights, the size of the vocabulary is 0 if an earlier stage has yet to build the tokenizer.
    """
    if model.init is not None:
        vocabulary = model.init.vocab_size or 0
        if not vocabulary and model.tokenizer is not None:
            vocabulary = _tokens(model.tokenizer.path() / "tokenizer.json")
        return Shape(
            model.init.hidden_size,
            model.init.num_hidden_layers,
            model.init.num_attention_heads,
            model.init.num_key_value_heads,
            model.init.intermediate_size,
            model.init.tie_word_embeddings,
            vocabulary,
            model.init.rms_norm_eps,
        )
    assert model.path is not None, "a model has a path or is made from random weights"
    config = stored_config(model.path.path())
    if config is not None:
        fields = [field.name for field in dataclasses.fields(Shape)]
        if all(key in config for key in fields):
            return Shape(**{key: config[key] for key in fields})
    match = re.search(r"qwen2\.5(?:-coder)?-(\d+(?:\.\d+)?b)", str(model.path), re.IGNORECASE)
    return SHAPES.get(match.group(1).lower()) if match else None


def _tokens(file: Path) -> int:
    """Count the tokens in a tokenizer.json, including added tokens. Return 0 if the file does not exist."""
    try:
        tokenizer = json.loads(file.read_text())
    except (OSError, ValueError):
        return 0
    return len(tokenizer["model"]["vocab"]) + len(tokenizer.get("added_tokens", []))


def micro_batch_of(stage: TrainingStage, model: BaseModelSettings, layout: Layout) -> MicroBatch:
    """Compute the settings of one forward and backward pass that the stage's trainer will use on the devices of a
    layout.

    The rules for `masked` and `own_loss` are the same as in alignment/stages/sample_attention.py and loss.py.
    """
    train = stage.train
    kind = stage.kind  # type: ignore[attr-defined]
    rows = int(train.get("per_device_train_batch_size", _DEFAULT_BATCH))
    accumulate = int(train.get("gradient_accumulation_steps", 1))
    cuda = layout.device == "cuda"
    attention = train.get("attn_implementation") or model.attn_implementation or "sdpa"
    length, completion, rollouts = int(train.get("max_length") or _DEFAULT_LENGTH), 0, 0
    on_tokens, compiled = kind in ("sft", "pretrain"), bool(train.get("torch_compile"))
    packed = on_tokens and bool(train.get("packing", kind == "pretrain"))
    by_sample = attention == "sdpa" and not compiled and layout.sequence == 1
    plain_loss = train.get("loss_type", "nll") == "nll" and not train.get("label_smoothing_factor")
    own_loss = on_tokens and plain_loss and not cuda and not compiled and layout.zero < 3 and layout.sequence == 1
    if isinstance(stage, GrpoStage):
        completion = int(train.get("max_completion_length", _DEFAULT_COMPLETION))
        length = completion + (stage.max_prompt_length or _DEFAULT_PROMPT)
        rollouts = rows * int(train.get("steps_per_generation", accumulate))
    vllm = bool(train.get("use_vllm")) and train.get("vllm_mode", "colocate") == "colocate" and cuda
    precision = resolve_training(
        model.dtype, layout.device, adapter=stage.peft is not None, master_weights=layout.master_weights
    )
    eight_bit = "8bit" in str(train.get("optim", ""))
    autocast = bool(train.get("bf16", precision.autocast))
    return MicroBatch(
        rows=rows,
        length=length,
        kind=kind,
        dtype=precision.weights,
        autocast=autocast,
        accumulate=accumulate,
        checkpointing=bool(train.get("gradient_checkpointing", True)),
        attention=attention,
        masked=(not on_tokens or (packed and not by_sample)) and "flash" not in attention,
        own_loss=own_loss,
        lora=_lora_of(stage),
        quantized=stage.quantization is not None,
        offload_activations=bool(train.get("activation_offloading")) and cuda,
        optimizer_bytes=2 if eight_bit else 8,
        reference=_has_reference_model(stage),
        rollouts=rollouts,
        completion=completion,
        vllm_share=float(train.get("vllm_gpu_memory_utilization", 0.3)) if vllm else 0.0,
        packed_rollouts=isinstance(stage, GrpoStage)
        and layout.device == "cpu"
        and (autocast or precision.weights == "bfloat16")
        and stage.rollout_engine != "transformers"
        and not train.get("use_vllm"),
    )


def _lora_of(stage: TrainingStage) -> Lora | None:
    """Return the adapter of a stage, or None if the stage trains all weights.

    If no entry of `target_modules` is a linear layer of Qwen2, all linear layers are assumed to have an adapter.
    """
    if stage.peft is None:
        return None
    targets = stage.peft.get("target_modules", "all-linear")
    names = tuple(name for name in memory.ALL_LINEAR if targets == "all-linear" or name in targets)
    return Lora(int(stage.peft.get("r", 8)), float(stage.peft.get("lora_dropout", 0.0)), names or memory.ALL_LINEAR)


def _has_reference_model(stage: TrainingStage) -> bool:
    """Whether a second, frozen model is in memory.

    With LoRA, no second model is needed: the reference is the same model without its adapter.
    """
    if stage.peft is not None:
        return False
    if isinstance(stage, DpoStage | KtoStage):
        return not stage.train.get("precompute_ref_log_probs", False)
    return isinstance(stage, GrpoStage) and float(stage.train.get("beta", 0.0)) > 0


def training_stages(recipe: Recipe) -> Iterator[int]:
    """Yield the indices of the training stages in `recipe.stages`."""
    return (index for index, stage in enumerate(recipe.stages) if isinstance(stage, TrainingStage))


def stage_needs(
    recipe: Recipe, index: int, shape: Shape, layout: Layout, device_bytes: float | None
) -> tuple[StageNeeds, list[str]]:
    """Return the needs of one training stage, and warnings for the user.

    Args:
        recipe: the recipe.
        index: index of the stage in `recipe.stages`.
        shape: shape of the base model.
        layout: devices and sharding.
        device_bytes: memory of one device, or None if unknown.
    """
    stage = recipe.stages[index]
    assert isinstance(stage, TrainingStage)
    micro = micro_batch_of(stage, recipe.model, layout)
    peak = memory.predict(shape, micro, layout, device_bytes or 0.0)
    rows = micro.rows * (2 if micro.kind in ("dpo", "kto") else 1) * micro.accumulate * layout.replicas
    fits = None if device_bytes is None else peak.total <= device_bytes
    warnings = list(_warnings(stage, micro, layout))
    if fits is False:
        batch = memory.largest_batch(shape, micro, layout, device_bytes or 0.0)
        advice = (
            f"set per_device_train_batch_size to {batch} and raise gradient_accumulation_steps"
            if batch
            else "shard more (zero3.yaml), train an adapter (`peft:`), or shorten max_length"
        )
        warnings.append(f"stage {stage.name!r} does not fit: {advice}")
    steps = stage.train.get("max_steps")
    needs: StageNeeds = {
        "stage": stage.name,
        "peak": round(peak.total),
        "parts": {name: round(value) for name, value in peak.parts.items()},
        "host": round(peak.host + merge_bytes(shape, micro)),
        "fits": fits,
        "tokens_per_step": rows * micro.length,
        "steps": steps if isinstance(steps, int) and steps > 0 else None,
    }
    return needs, warnings


def merge_bytes(shape: Shape, micro: MicroBatch) -> float:
    """Return the CPU memory for merging an adapter: weights in float32, and in the type that is saved."""
    if micro.lora is None:
        return 0.0
    return shape.parameters * (4.0 + (0 if micro.dtype == "float32" else 2))


def _warnings(stage: TrainingStage, micro: MicroBatch, layout: Layout) -> Iterator[str]:
    name = f"stage {stage.name!r}"
    if micro.lora is None and micro.dtype != "float32" and not layout.master_weights:
        yield (
            f"{name} trains all weights in {micro.dtype} without float32 copies, so small updates are lost: use "
            "`model: {dtype: float32}` (with bf16: true), or a launch file of DeepSpeed or FSDP2, which keep copies"
        )
    if micro.masked and micro.length >= 8192 and layout.device == "cuda":
        mask = micro.rows * micro.length**2 * 3 / memory.GIB
        yield (
            f"{name} has rows of {micro.length} tokens and attention with a mask of {mask:.1f} GiB: install flash-attn, "
            "which needs no mask and is used if it is installed"
        )


def device_bytes(layout: Layout) -> float | None:
    """Return the memory of one device of this machine, or None if the layout needs an NVIDIA GPU and this machine has
    no NVIDIA GPU.
    """
    if layout.device == "cpu":
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(card_bytes(), default=None)


def card_bytes() -> list[float]:
    """Return the memory in bytes of each NVIDIA card of this machine. The list is empty if there is no card."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return [float(line) * 2**20 for line in done.stdout.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
