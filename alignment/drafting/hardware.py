"""Parse hardware as the user names it (`cpu`, `1x24GB`, `8xH100`), and find batch sizes with which training fits.

hardware = parse("1x24GB")
fit = choose_training(shapes.SHAPES["7b"], hardware, ["pretrain", "sft"])
fit.stages["sft"].rows      # per_device_train_batch_size
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.installation import shipped
from alignment.models.shapes import Shape
from alignment.planning import memory, resources
from alignment.planning.cards import CARDS
from alignment.recipe import launch_file
from alignment.recipe.launch_file import Layout
from alignment.recipe.schema import STAGES, TrainingStage
from alignment.recipe.stage_parts import BaseModelSettings

LORA = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.1, "target_modules": "all-linear"}
CPU_LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
"""The adapter of `recipes/qwen2.5-coder/0.5b-cpu.yaml`, whose gain is in docs/results.md."""
LENGTHS = {"pretrain": 8192, "sft": 4096, "dpo": 4096, "grpo": 3840}
"""Length of a training row in tokens in drafted recipes for GPUs, keyed by kind of stage. For GRPO: prompt and
completion together."""
CPU_LENGTHS = {"pretrain": 1024, "sft": 1024, "dpo": 1024, "grpo": 1024}
TOKENS_PER_STEP = {"pretrain": 65_536, "sft": 65_536, "dpo": 131_072}
"""Largest number of tokens in an optimizer step on GPUs. A LoRA adapter for one repository needs no larger batches."""
COMPLETIONS_PER_STEP, GENERATIONS = 64, 8
"""Number of completions that GRPO samples for one optimizer step, and number of completions for one prompt."""
CPU_STEP_ROWS = 2
"""Number of rows in an optimizer step on a CPU. With a fixed number of tokens, more and smaller steps taught a 0.5B model
more than few large ones."""
RESERVE = 0.92
"""A stage fits if its predicted memory is at most this share of a card's memory."""


@dataclass(frozen=True)
class Hardware:
    """Devices to train on."""

    devices: int
    card_gb: float | None
    """Memory of one card in GB (10^9 bytes), or None for a CPU."""
    card: str | None = field(default=None, compare=False)
    """Name of the card in `planning.cards.CARDS`, or None if only its memory is known."""

    @property
    def text(self) -> str:
        """The hardware as the user writes it."""
        return "cpu" if self.card_gb is None else f"{self.devices}x{self.card_gb:g}GB"


def parse(text: str) -> Hardware:
    """Parse `cpu`, `1x24GB`, `8x80` or `8xH100`.

    Raises:
        ValueError: the text has another form, or names an unknown card.
    """
    if text.strip().lower() == "cpu":
        return Hardware(1, None)
    match = re.fullmatch(
        r"(?:(\d+)\s*x\s*)?(?:(\d+(?:\.\d+)?)\s*(?:gb|gib)?|([a-z]?[\w-]+))", text.strip(), re.IGNORECASE
    )
    count = int(match[1] or 1) if match else 0
    if match and count and match[3] and match[3].upper() in CARDS:
        return Hardware(count, CARDS[match[3].upper()].memory_gb, match[3].upper())
    if match and count and match[2]:
        if match[2] in CARDS:
            return Hardware(count, CARDS[match[2]].memory_gb, match[2])
        if 4 <= float(match[2]) <= 1000:
            return Hardware(count, float(match[2]))
    raise ValueError(
        f"{text!r} is no hardware: write cpu, 1x24GB, 8x80GB (cards x memory of one card), or one of "
        f"{', '.join(f'8x{name}' for name in CARDS)}"
    )


def detected() -> Hardware:
    """Return the hardware of this machine: its NVIDIA cards, or the CPU."""
    sizes = resources.card_bytes()
    return Hardware(len(sizes), round(min(sizes) / 1e9)) if sizes else Hardware(1, None)


@dataclass(frozen=True)
class StageFit:
    """Sizes of rows and batches with which a training stage fits into memory."""

    length: int
    rows: int
    """`per_device_train_batch_size`."""
    accumulate: int
    """`gradient_accumulation_steps`."""
    checkpointing: bool = True
    """`gradient_checkpointing`: takes less memory and a third more time."""


@dataclass(frozen=True)
class TrainingFit:
    """Launch file, quantization and batch sizes with which all training stages of a recipe fit into memory."""

    launch: str
    """Name of the Accelerate config file, without `.yaml`."""
    quantized: bool
    """Whether the frozen weights are in 4 bits (QLoRA)."""
    stages: dict[str, StageFit]
    """Maps the kind of a stage to its sizes."""


def choose_training(shape: Shape | None, hardware: Hardware, kinds: Sequence[str]) -> TrainingFit:
    """Return the first way to train with LoRA with which all stages fit into memory.

    The ways are tried in this order: replicated weights, sharded weights, weights in 4 bits, shorter rows.

    Args:
        shape: shape of the model. If it is unknown (None), batches have one row.
        hardware: devices to train on.
        kinds: kinds of the training stages.

    Raises:
        ValueError: the model does not fit.
    """
    for launch, quantized, shrink in _ways(hardware):
        layout = _layout(launch, hardware)
        stages: dict[str, StageFit] = {}
        for kind in kinds:
            length = (CPU_LENGTHS if hardware.card_gb is None else LENGTHS)[kind] // shrink
            if shape is None:
                stages[kind] = StageFit(length, 1, _accumulate(kind, length, 1, layout))
            elif fit := _fit(kind, length, shape, layout, hardware, quantized):
                stages[kind] = fit
        if len(stages) == len(kinds):
            return TrainingFit(launch, quantized, stages)
    assert shape is not None, "every way fits a model of unknown shape"
    size = f"{shape.parameters / 1e9:.1f} billion weights"
    raise ValueError(
        f"a model with {size} does not fit on {hardware.text}, not even in 4 bits: choose a smaller model or more memory"
    )


def _ways(hardware: Hardware) -> Iterator[tuple[str, bool, int]]:
    """Yield (Accelerate config, whether weights are in 4 bits, divisor of row lengths), in the order of trial."""
    if hardware.card_gb is None:
        yield from (("cpu", False, shrink) for shrink in (1, 2))
        return
    several = hardware.devices > 1
    for shrink in (1, 2, 4):
        yield "ddp" if several else "gpu", False, shrink
        if several:
            yield "zero3", False, shrink
    for shrink in (1, 2, 4):
        yield "ddp" if several else "gpu", True, shrink


def _layout(launch: str, hardware: Hardware) -> Layout:
    layout = launch_file.layout_of(shipped() / "accelerate_configs" / f"{launch}.yaml")
    return Layout(hardware.devices, layout.zero, master_weights=layout.master_weights, device=layout.device)


def _fit(kind: str, length: int, shape: Shape, layout: Layout, hardware: Hardware, quantized: bool) -> StageFit | None:
    """Return the first fit of `_candidates` that fits into memory, or None if not even one row fits."""
    available = (resources.device_bytes(layout) or 0) if hardware.card_gb is None else hardware.card_gb * 1e9
    for fit in _candidates(kind, length, layout):
        micro = resources.micro_batch_of(training_stage(kind, fit, quantized), BaseModelSettings(dtype="auto"), layout)
        if memory.predict(shape, micro, layout, available).total <= RESERVE * available:
            return fit
    return None


def _candidates(kind: str, length: int, layout: Layout) -> Iterator[StageFit]:
    """Yield sizes in the order of preference: the fastest first, then those that take less memory."""
    if layout.device == "cpu":
        for rows, checkpointing in ((CPU_STEP_ROWS, False), (1, False), (1, True)):
            yield StageFit(length, rows, CPU_STEP_ROWS // rows, checkpointing)
        return
    for rows in (16, 8, 4, 2, 1):
        accumulate = _accumulate(kind, length, rows, layout)
        if kind == "grpo":
            # TRL generates whole groups: completions of a step must be a multiple of GENERATIONS.
            suitable = rows <= 8 and rows * layout.devices * accumulate % GENERATIONS == 0
        else:
            suitable = rows <= max(1, TOKENS_PER_STEP[kind] // (length * layout.devices))
        if suitable:
            yield StageFit(length, rows, accumulate)


def _accumulate(kind: str, length: int, rows: int, layout: Layout) -> int:
    if layout.device == "cpu":
        return CPU_STEP_ROWS
    if kind == "grpo":
        return max(1, COMPLETIONS_PER_STEP // (rows * layout.devices))
    return max(1, TOKENS_PER_STEP[kind] // (rows * length * layout.devices))


def training_stage(kind: str, fit: StageFit, quantized: bool) -> TrainingStage:
    """Return a stage with the settings that determine its memory, for the memory prediction."""
    settings: dict[str, Any] = {"name": kind, "kind": kind, "data": [{"data": "rows.jsonl"}], "peft": LORA}
    if quantized:
        settings["quantization"] = "4bit"
    train = {
        "per_device_train_batch_size": fit.rows,
        "gradient_accumulation_steps": fit.accumulate,
        "gradient_checkpointing": fit.checkpointing,
    }
    if kind == "grpo":
        completion = completion_length(fit)
        settings["max_prompt_length"] = fit.length - completion
        train |= {"max_completion_length": completion} | ({} if quantized else VLLM)
    else:
        train["max_length"] = fit.length
    stage = STAGES[kind].model_validate(settings | {"train": train})
    assert isinstance(stage, TrainingStage)
    return stage


VLLM: dict[str, Any] = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.35}
"""GRPO's settings for rollouts by vLLM, which are used on GPUs unless the weights are in 4 bits."""


def completion_length(fit: StageFit) -> int:
    """Return the largest number of tokens in a GRPO completion: a fifth of `fit.length`."""
    return fit.length // 5
