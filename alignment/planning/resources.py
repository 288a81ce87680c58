"""What a recipe needs: memory of each device and of the host, disk, tokens and steps of every training stage.

    rows = needs(recipe)        # one row a training stage, from the recipe and its launch file alone

Nothing here imports torch. The shape comes from `model.init`, a local config.json, or the name of a Qwen2.5-Coder.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.models.shapes import SHAPES, Shape
from alignment.planning import memory
from alignment.planning.memory import Lora, Work
from alignment.recipe import BaseModelSettings, DpoStage, GrpoStage, Recipe, TrainingStage
from alignment.recipe.launch_file import Layout

# Bytes a weight of llama.cpp's levels, from its own block formats; anything else is taken as 16 bits.
_EXPORTED = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 1.0625, "q6_k": 0.82, "q5_k_m": 0.71, "q4_k_m": 0.61}
_DEFAULT_LENGTH, _DEFAULT_COMPLETION, _DEFAULT_PROMPT = 1024, 256, 512  # TRL's own, and ours where it has none
_DEFAULT_BATCH = 8


def shape_of(model: BaseModelSettings) -> Shape | None:
    """The shape of the recipe's base; None where only a download could tell."""
    if model.init is not None:
        rows = model.init.vocab_size or 0
        if not rows and model.tokenizer is not None:
            rows = _tokens(model.tokenizer.path() / "tokenizer.json")
        return Shape(
            model.init.hidden_size,
            model.init.num_hidden_layers,
            model.init.num_attention_heads,
            model.init.num_key_value_heads,
            model.init.intermediate_size,
            model.init.tie_word_embeddings,
            rows,
            model.init.rms_norm_eps,
        )
    assert model.path is not None, "a model has a path or is made from random weights"
    file = model.path.path() / "config.json"
    if file.is_file():
        config = json.loads(file.read_text())
        fields = [field.name for field in dataclasses.fields(Shape)]
        if all(key in config for key in fields):
            return Shape(**{key: config[key] for key in fields})
    found = re.search(r"qwen2\.5(?:-coder)?-(\d+(?:\.\d+)?b)", str(model.path), re.IGNORECASE)
    return SHAPES.get(found.group(1).lower()) if found else None


def _tokens(file: Path) -> int:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return 0
    return len(found["model"]["vocab"]) + len(found.get("added_tokens", []))


def work_of(stage: TrainingStage, model: BaseModelSettings, layout: Layout) -> Work:
    """One micro-batch of a stage, as its trainer would run it on that layout."""
    train = stage.train
    kind = stage.kind  # type: ignore[attr-defined]
    batch, accumulate = (
        int(train.get("per_device_train_batch_size", _DEFAULT_BATCH)),
        int(train.get("gradient_accumulation_steps", 1)),
    )
    cuda = layout.device == "cuda"
    attention = train.get("attn_implementation") or model.attn_implementation or "sdpa"
    lora = None
    if stage.peft is not None:
        targets = stage.peft.get("target_modules", "all-linear")
        names = (
            memory.ALL_LINEAR
            if targets == "all-linear"
            else tuple(name for name in memory.ALL_LINEAR if name in targets)
        )
        lora = Lora(int(stage.peft.get("r", 8)), float(stage.peft.get("lora_dropout", 0.0)), names or memory.ALL_LINEAR)
    length, completion, rollouts = int(train.get("max_length") or _DEFAULT_LENGTH), 0, 0
    on_tokens, compiled = kind in ("sft", "pretrain"), bool(train.get("torch_compile"))
    packed = on_tokens and bool(train.get("packing", kind == "pretrain"))
    # See alignment/stages/sample_attention.py and loss.py.
    by_sample = attention == "sdpa" and not compiled and layout.sequence == 1
    plain = train.get("loss_type", "nll") == "nll" and not train.get("label_smoothing_factor")
    own_loss = on_tokens and plain and not cuda and not compiled and layout.zero < 3 and layout.sequence == 1
    if isinstance(stage, GrpoStage):
        completion = int(train.get("max_completion_length", _DEFAULT_COMPLETION))
        length = completion + (stage.max_prompt_length or _DEFAULT_PROMPT)
        rollouts = batch * int(train.get("steps_per_generation", accumulate))
    vllm = bool(train.get("use_vllm")) and train.get("vllm_mode", "colocate") == "colocate" and cuda
    eight_bit = "8bit" in str(train.get("optim", ""))
    return Work(
        batch=batch,
        length=length,
        kind=kind,
        dtype=model.dtype,
        autocast=bool(train.get("bf16", True)) if cuda else bool(train.get("bf16", False)),
        accumulate=accumulate,
        checkpointing=bool(train.get("gradient_checkpointing", True)),
        attention=attention,
        masked=(not on_tokens or (packed and not by_sample)) and "flash" not in attention,
        own_loss=own_loss,
        lora=lora,
        quantized=stage.quantization is not None,
        offload_activations=bool(train.get("activation_offloading")) and cuda,
        optimizer_bytes=2 if eight_bit else 8,
        reference=_reference(stage),
        rollouts=rollouts,
        completion=completion,
        vllm_share=float(train.get("vllm_gpu_memory_utilization", 0.3)) if vllm else 0.0,
    )


def _reference(stage: TrainingStage) -> bool:
    """Whether a second, frozen model is in memory. With LoRA it is the model without its adapter."""
    if stage.peft is not None:
        return False
    if isinstance(stage, DpoStage):
        return not stage.train.get("precompute_ref_log_probs", False)
    return isinstance(stage, GrpoStage) and float(stage.train.get("beta", 0.0)) > 0


def training(recipe: Recipe) -> Iterator[int]:
    """Where the training stages stand."""
    return (index for index, stage in enumerate(recipe.stages) if isinstance(stage, TrainingStage))


def needs(recipe: Recipe, index: int, shape: Shape, layout: Layout, available: float | None) -> dict[str, Any]:
    """Peak memory by parts, tokens of a step, steps where the recipe says them, and warnings, of one training stage."""
    stage = recipe.stages[index]
    assert isinstance(stage, TrainingStage)
    work = work_of(stage, recipe.model, layout)
    found = memory.predict(shape, work, layout, available or 0.0)
    rows = work.batch * (2 if work.kind == "dpo" else 1) * work.accumulate * layout.replicas
    fits = None if available is None else found.total <= available
    warnings = list(_warnings(stage, work, layout))
    if fits is False:
        best = memory.largest_batch(shape, work, layout, available or 0.0)
        advice = (
            f"set per_device_train_batch_size to {best} and raise gradient_accumulation_steps"
            if best
            else "shard more (zero3.yaml), train an adapter (`peft:`), or shorten max_length"
        )
        warnings.append(f"stage {stage.name!r} does not fit: {advice}")
    steps = stage.train.get("max_steps")
    return {
        "stage": stage.name,
        "peak": round(found.total),
        "parts": {name: round(value) for name, value in found.parts.items()},
        "host": round(found.host + merge_bytes(shape, work)),
        "fits": fits,
        "tokens_per_step": rows * work.length,
        "steps": steps if isinstance(steps, int) and steps > 0 else None,
        "warnings": warnings,
    }


def merge_bytes(shape: Shape, work: Work) -> float:
    """Host memory of rank 0 while it merges an adapter: the weights in float32, and as they are stored."""
    if work.lora is None:
        return 0.0
    return shape.parameters * (4.0 + (0 if work.dtype == "float32" else 2))


def _warnings(stage: TrainingStage, work: Work, layout: Layout) -> Iterator[str]:
    name = f"stage {stage.name!r}"
    if work.lora is None and work.dtype != "float32" and not layout.master_weights:
        yield (
            f"{name} trains all weights in {work.dtype} without float32 copies, so small updates are lost: use "
            "`model: {dtype: float32}` (with bf16: true), or a launch file of DeepSpeed or FSDP2, which keep copies"
        )
    if work.masked and work.length >= 8192 and layout.device == "cuda":
        size = work.batch * work.length**2 * 3 / memory.GIB
        yield (
            f"{name} has rows of {work.length} tokens for attention that needs a mask, of {size:.1f} GiB: install "
            "flash-attn, which is chosen by itself where it is there"
        )


def device_bytes(layout: Layout) -> float | None:
    """The memory of one device of this machine; None where it has none of the kind that the recipe asks for."""
    if layout.device == "cpu":
        import os

        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return min(float(line) for line in done.stdout.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
