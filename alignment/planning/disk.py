"""Predict the largest disk space that a recipe needs at any time, and compare it with the free space.

`alignment.chain` checks the space before the first stage, and a training stage checks it before each checkpoint, so
that no run stops on a full disk. Checkpoints exist only while their stage trains. They contain trained weights,
optimizer and random states, and are separate from the model in the artifact. Models of finished stages are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TypedDict

from alignment.models.shapes import Shape
from alignment.planning import memory
from alignment.planning.memory import GIB
from alignment.planning.resources import micro_batch_of, shape_of
from alignment.recipe import ExportStage, MergeStage, Recipe, TrainingStage
from alignment.recipe.launch_file import Layout

LEVEL_BYTES = {"f32": 4.0, "q8_0": 1.0625, "q6_k": 0.82, "q5_k_m": 0.71, "q4_k_m": 0.61, "q4_0": 0.57, "q2_k": 0.37}
"""Bytes per weight of llama.cpp's quantization levels, from their block formats. Other formats count as 2 bytes."""
FULL_BYTES = 64_000_000
"""A disk with less free space than this counts as full."""
MARGIN = 0.05
"""Predictions are increased by this share, for tokenizers, logs, rows, and the free space that file systems need."""


class StageSpace(TypedDict):
    """Disk space of one stage, in bytes."""

    artifact: int
    """Size of the artifact, which is kept after the stage."""
    checkpoints: int
    """Size of the checkpoints while the stage trains: all checkpoints that are kept, plus one that is being written."""


class DiskForecast(TypedDict):
    """Disk space of a recipe, as `align plan --json` prints it."""

    stages: dict[str, StageSpace]
    """Space of each stage that is not done yet, by name."""
    total: int
    """Largest number of bytes needed at any time."""
    free: int
    """Number of free bytes on the disk of `folder`."""
    folder: str
    """Folder of the recipe's artifacts."""


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that holds a folder. The folder may not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def checkpoint_bytes(shape: Shape, stage: TrainingStage, recipe: Recipe, layout: Layout) -> float:
    """Predict the bytes of one checkpoint: the trained weights as they are stored, and the optimizer's states."""
    micro = micro_batch_of(stage, recipe.model, layout)
    trained = memory.adapter_parameters(shape, micro.lora) if micro.lora else shape.parameters
    width = (4 if micro.dtype == "float32" else 2) if micro.lora is None else 4
    states = micro.optimizer_bytes * (1 if width == 4 or layout.master_weights else 0.5)
    if layout.master_weights and width == 2:
        states += 4
    return trained * (width + states)


def stage_bytes(shape: Shape, stage: TrainingStage, recipe: Recipe, layout: Layout) -> tuple[float, float]:
    """Predict the bytes of a training stage's artifact (including an adapter), and of all its checkpoints."""
    micro = micro_batch_of(stage, recipe.model, layout)
    width = 4 if micro.dtype == "float32" else 2
    adapter = memory.adapter_parameters(shape, micro.lora) * 4 if micro.lora else 0
    count = 0 if stage.train.get("save_strategy") == "no" else int(stage.train.get("save_total_limit") or 2) + 1
    return shape.parameters * width + adapter, count * checkpoint_bytes(shape, stage, recipe, layout)


def export_bytes(shape: Shape, formats: list[str]) -> float:
    """Predict the bytes of an export stage's files, and of the 16-bit file from which they are made."""
    levels = [name.split(":")[-1].lower() for name in formats]
    exported = sum(LEVEL_BYTES.get(level, 2.0) for level in levels)
    return shape.parameters * (exported + (0 if "f16" in levels else 2.0))


def forecast(recipe: Recipe, shape: Shape, layout: Layout, done: Collection[str] | None = None) -> DiskForecast:
    """Predict the largest space that the remaining stages need at any time, and return it with the free space.

    Args:
        recipe: the recipe.
        shape: shape of the base model.
        layout: devices and sharding.
        done: names of finished stages; by default all stages with an artifact, even if the artifact is outdated.
    """
    if done is None:
        done = [stage.name for stage in recipe.stages if (recipe.folder / stage.name / "artifact.json").is_file()]
    artifacts = worst = 0.0
    stages: dict[str, StageSpace] = {}
    for stage in recipe.stages:
        if stage.name in done:
            continue
        if isinstance(stage, TrainingStage):
            artifact, checkpoints = stage_bytes(shape, stage, recipe, layout)
        elif isinstance(stage, MergeStage):
            model_bytes = shape.parameters * (4.0 if recipe.model.dtype == "float32" else 2.0)
            artifact, checkpoints = model_bytes, model_bytes if stage.search else 0.0
        elif isinstance(stage, ExportStage):
            artifact, checkpoints = export_bytes(shape, stage.formats), 0.0
        else:
            continue
        worst = max(worst, artifacts + artifact + checkpoints)
        artifacts += artifact
        stages[stage.name] = {"artifact": round(artifact), "checkpoints": round(checkpoints)}
    total = max(worst, artifacts) * (1 + MARGIN)
    return {"stages": stages, "total": round(total), "free": free_bytes(recipe.folder), "folder": str(recipe.folder)}


def check_space(recipe: Recipe, layout: Layout, done: Collection[str]) -> None:
    """Check that the remaining stages fit on the disk. If the model's shape is unknown, nothing is checked.

    Raises:
        ValueError: the stages need more space than is free.
    """
    shape = shape_of(recipe.model)
    if shape is None:
        return
    space = forecast(recipe, shape, layout, done)
    if space["total"] > space["free"]:
        raise ValueError(shortage(space))


def check_checkpoint_space(folder: Path, step: int) -> None:
    """Check that another checkpoint of the size of the newest checkpoint fits. The first checkpoint is not checked.

    Raises:
        ValueError: the checkpoint would not fit. A partial checkpoint would be useless.
    """
    older = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    if not older:
        return
    newest = max(older, key=lambda path: int(path.name.removeprefix("checkpoint-")))
    size = sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())
    if (free := free_bytes(folder)) < size * (1 + MARGIN):
        raise ValueError(
            f"step {step}: {folder} has {free / GIB:.2f} GiB free, and a checkpoint needs {size / GIB:.2f} GiB. Free some "
            f"space, then run the same command again: it resumes from {newest.name}"
        )


def shortage(space: DiskForecast) -> str:
    """Return the error message for a disk that is too small."""
    return (
        f"{space['folder']} has {space['free'] / GIB:.1f} GiB free, and up to {space['total'] / GIB:.1f} GiB are needed: "
        "free some space, set `output:` to another disk, or keep fewer checkpoints (save_total_limit)"
    )


def disk_full_hint(folder: Path) -> str:
    """Return a line to append to the error of a failed stage if the disk is full, else "".

    A library that fails on a full disk may report another reason.
    """
    if (free := free_bytes(folder)) > FULL_BYTES:
        return ""
    return (
        f"  The disk is full: {folder} has {free // 1_000_000} MB left. Free some space, or set `output:` to another "
        "disk.\n"
    )
