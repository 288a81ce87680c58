"""`align plan` for a person and for a machine: what each stage needs, and whether it fits."""

from __future__ import annotations

from typing import Any

from alignment.planning import disk, resources
from alignment.planning.memory import GIB
from alignment.recipe import Recipe, launch_file


def needs(recipe: Recipe, device_gib: float | None = None) -> dict[str, Any]:
    """`needs` (one entry a training stage), `disk` and `warnings`, as plain values; bytes throughout."""
    layout = launch_file.layout_of(recipe.launch.path() if recipe.launch else None)
    available = device_gib * GIB if device_gib is not None else resources.device_bytes(layout)
    shape = resources.shape_of(recipe.model)
    if shape is None:
        return {
            "needs": [],
            "warnings": [f"{recipe.model.path}: its shape is not known here, so nothing is predicted"],
        }
    stages = [resources.needs(recipe, index, shape, layout, available) for index in resources.training(recipe)]
    space = disk.forecast(recipe, shape, layout)
    warnings = [warning for stage in stages for warning in stage.pop("warnings")]
    if space["total"] > space["free"]:
        warnings.append(disk.too_little(space))
    return {"device_bytes": available, "devices": layout.devices, "needs": stages, "disk": space, "warnings": warnings}


def describe(found: dict[str, Any]) -> list[str]:
    """The same for a person."""
    lines: list[str] = []
    if found["needs"]:
        size = f" of {found['device_bytes'] / GIB:.0f} GiB" if found.get("device_bytes") else ""
        lines.append(f"Predicted peak on each of {found['devices']} devices{size}:")
    for stage in found["needs"]:
        verdict = {True: "", False: "  does NOT fit", None: ""}[stage["fits"]]
        parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in stage["parts"].items())
        steps = f", {stage['steps']} steps" if stage["steps"] else ""
        lines.append(f"  {stage['stage']:12} {stage['peak'] / GIB:6.1f} GiB{verdict}  ({parts})")
        lines.append(f"  {'':12} {stage['tokens_per_step']:,} tokens a step at most{steps}")
        if stage["host"] > GIB:
            lines.append(f"  {'':12} {stage['host'] / GIB:.1f} GiB of the host's memory")
    if "disk" in found:
        space = found["disk"]
        lines.append(f"Disk: {space['total'] / GIB:.1f} GiB at most, {space['free'] / GIB:.1f} GiB free")
    return lines + [f"warning: {warning}" for warning in found["warnings"]]
