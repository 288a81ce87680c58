"""How much disk a recipe takes, against what is free: asked before the first step, not found out after the last.

The chain refuses to start what will not fit, and a stage to begin a checkpoint that will not. Checkpoints of a stage live only while it trains: they hold the state to go on from (trained weights, optimizer, random
states), apart from the artifact's own model. Models of finished stages stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from alignment.models.shapes import Shape
from alignment.planning import memory
from alignment.planning.memory import GIB
from alignment.planning.resources import shape_of, work_of
from alignment.recipe import ExportStage, Recipe, TrainingStage
from alignment.recipe.launch_file import Layout

# Bytes a weight of llama.cpp's levels, from their block formats; what is not listed is taken as 16 bits.
EXPORTED = {"f32": 4.0, "q8_0": 1.0625, "q6_k": 0.82, "q5_k_m": 0.71, "q4_k_m": 0.61, "q4_0": 0.57, "q2_k": 0.37}
FULL_BYTES = 64_000_000
MARGIN = 0.05  # tokenizers, logs, rows; and no file system likes to be full


def free_bytes(folder: Path) -> int:
    """Free space where `folder` is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def checkpoint_bytes(shape: Shape, stage: TrainingStage, recipe: Recipe, layout: Layout) -> float:
    """One checkpoint: trained weights as they are stored, and the optimizer's states."""
    work = work_of(stage, recipe.model, layout)
    trained = memory.adapter_parameters(shape, work.lora) if work.lora else shape.parameters
    size = 4 if work.dtype == "float32" else 2
    own = size if work.lora is None else 4
    states = work.optimizer_bytes * (1 if own == 4 or layout.master_weights else 0.5)
    if layout.master_weights and own == 2:
        states += 4
    return trained * (own + states)


def stage_bytes(shape: Shape, stage: TrainingStage, recipe: Recipe, layout: Layout) -> dict[str, float]:
    """`artifact` stays; `checkpoints` are there while the stage trains: those kept, and the one that is being written."""
    size = 4 if recipe.model.dtype == "float32" else 2
    work = work_of(stage, recipe.model, layout)
    adapter = memory.adapter_parameters(shape, work.lora) * 4 if work.lora else 0
    kept = 0 if stage.train.get("save_strategy") == "no" else int(stage.train.get("save_total_limit") or 2) + 1
    return {
        "artifact": shape.parameters * size + adapter,
        "checkpoints": kept * checkpoint_bytes(shape, stage, recipe, layout),
    }


def export_bytes(shape: Shape, formats: list[str]) -> float:
    """The files of an export stage, and the 16-bit one they are made from."""
    levels = [name.split(":")[-1].lower() for name in formats]
    made = sum(EXPORTED.get(level, 2.0) for level in levels)
    return shape.parameters * (made + (0 if "f16" in levels else 2.0))


def forecast(recipe: Recipe, shape: Shape, layout: Layout, done: Collection[str] | None = None) -> dict[str, Any]:
    """Bytes at the worst moment of what is still to do, by stage; and what is free where the artifacts go.

    `done` names finished stages; by default those that have an artifact, whatever has changed since.
    """
    if done is None:
        done = [stage.name for stage in recipe.stages if (recipe.folder / stage.name / "artifact.json").is_file()]
    kept, worst, stages = 0.0, 0.0, {}
    for stage in recipe.stages:
        if stage.name in done:
            continue
        if isinstance(stage, TrainingStage):
            found = stage_bytes(shape, stage, recipe, layout)
            worst = max(worst, kept + found["artifact"] + found["checkpoints"])
            kept += found["artifact"]
            stages[stage.name] = {key: round(value) for key, value in found.items()}
        elif isinstance(stage, ExportStage):
            size = export_bytes(shape, stage.formats)
            kept += size
            worst = max(worst, kept)
            stages[stage.name] = {"artifact": round(size), "checkpoints": 0}
    total = max(worst, kept) * (1 + MARGIN)
    return {"stages": stages, "total": round(total), "free": free_bytes(recipe.folder), "folder": str(recipe.folder)}


def check(recipe: Recipe, layout: Layout, done: Collection[str]) -> None:
    """Raises ValueError where what is still to do takes more than is free; says nothing of models of unknown shape."""
    shape = shape_of(recipe.model)
    if shape is None:
        return
    space = forecast(recipe, shape, layout, done)
    if space["total"] > space["free"]:
        raise ValueError(too_little(space))


def check_checkpoint(folder: Path, step: int) -> None:
    """Raises ValueError where a checkpoint as large as the newest in `folder` would not fit: half of one is of no use."""
    older = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    if not older:
        return
    newest = max(older, key=lambda path: int(path.name.removeprefix("checkpoint-")))
    size = sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())
    if (free := free_bytes(folder)) < size * (1 + MARGIN):
        raise ValueError(
            f"step {step}: {folder} has {free / GIB:.2f} GiB free, and a checkpoint takes {size / GIB:.2f} GiB. Free some, "
            f"and run the same command: it goes on from {newest.name}"
        )


def too_little(space: dict[str, Any]) -> str:
    """What to tell the user."""
    return (
        f"{space['folder']} has {space['free'] / GIB:.1f} GiB free, and up to {space['total'] / GIB:.1f} GiB are needed: "
        "free some, set `output:` to another disk, or keep fewer checkpoints (save_total_limit)"
    )


def full(folder: Path) -> str:
    """A line for a stage that failed where there is hardly any space left, whatever its libraries made of that."""
    if (free := free_bytes(folder)) > FULL_BYTES:
        return ""
    return (
        f"  The disk is full: {folder} has {free // 1_000_000} MB left. Free some, or set `output:` to another disk.\n"
    )
