"""Collect the memory and disk space that a recipe needs, and format them for `align plan`, as JSON values or as
text.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from alignment.planning import disk, resources
from alignment.planning.disk import DiskForecast
from alignment.planning.memory import GIB
from alignment.planning.resources import StageNeeds
from alignment.recipe import Recipe, launch_file


class RecipeNeeds(TypedDict):
    """Memory and disk space that a recipe needs.

    If the model's shape is unknown, only the keys `needs` (an empty list) and `warnings` are present.
    """

    needs: list[StageNeeds]
    """Memory, tokens and steps of each training stage."""
    warnings: list[str]
    device_bytes: NotRequired[float | None]
    """Memory of one device in bytes, or None if unknown."""
    devices: NotRequired[int]
    disk: NotRequired[DiskForecast]


def recipe_needs(recipe: Recipe, device_gib: float | None = None) -> RecipeNeeds:
    """Return the memory needs of every training stage, the disk space that the recipe needs, and warnings.

    Args:
        recipe: the recipe.
        device_gib: memory of one device in GiB; by default the memory of this machine's devices.
    """
    layout = launch_file.layout_of(recipe.launch.path() if recipe.launch else None)
    available = device_gib * GIB if device_gib is not None else resources.device_bytes(layout)
    shape = resources.shape_of(recipe.model)
    if shape is None:
        unknown = f"{recipe.model.path}: without a download the model's shape is unknown, so nothing is predicted"
        return {"needs": [], "warnings": [unknown]}
    stages: list[StageNeeds] = []
    warnings: list[str] = []
    if shape.vocab_size == 0:
        warnings.append(f"{recipe.model.tokenizer}: the tokenizer is not built yet; its vocabulary is not counted")
    for index in resources.training_stages(recipe):
        needs, stage_warnings = resources.stage_needs(recipe, index, shape, layout, available)
        stages.append(needs)
        warnings += stage_warnings
    space = disk.forecast(recipe, shape, layout)
    if space["total"] > space["free"]:
        warnings.append(disk.shortage(space))
    return {"device_bytes": available, "devices": layout.devices, "needs": stages, "disk": space, "warnings": warnings}


def describe(plan: RecipeNeeds) -> list[str]:
    """Format the needs of a recipe as lines of text."""
    lines: list[str] = []
    if plan["needs"]:
        available = plan.get("device_bytes")
        size = f" with {available / GIB:.0f} GiB" if available else ""
        devices = "the device" if plan["devices"] == 1 else f"each of {plan['devices']} devices"
        lines.append(f"Predicted peak memory on {devices}{size}:")
    for stage in plan["needs"]:
        verdict = "  does NOT fit" if stage["fits"] is False else ""
        parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in stage["parts"].items())
        steps = f", {stage['steps']} steps" if stage["steps"] else ""
        lines.append(f"  {stage['stage']:12} {stage['peak'] / GIB:6.1f} GiB{verdict}  ({parts})")
        lines.append(f"  {'':12} {stage['tokens_per_step']:,} tokens per step at most{steps}")
        if stage["host"] > GIB:
            lines.append(f"  {'':12} {stage['host'] / GIB:.1f} GiB of CPU memory")
    if "disk" in plan:
        space = plan["disk"]
        lines.append(f"Disk: {space['total'] / GIB:.1f} GiB at most, {space['free'] / GIB:.1f} GiB free")
    return lines + [f"warning: {warning}" for warning in plan["warnings"]]
