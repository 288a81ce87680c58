"""Collect the memory and disk space that a recipe needs, and format them for `align plan`, as JSON values or as
text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NotRequired, TypedDict

from alignment.logs import format_duration
from alignment.planning import disk, resources, speeds
from alignment.planning.disk import DiskForecast
from alignment.planning.memory import GIB
from alignment.planning.resources import StageNeeds
from alignment.planning.speeds import Speed
from alignment.planning.stage_time import StageTime, recipe_time
from alignment.recipe import Recipe, launch_file


@dataclass(frozen=True)
class Rental:
    """Hardware other than this machine, for which a recipe is planned."""

    devices: int
    device: str
    """`cuda` or `cpu`."""
    device_gib: float | None
    """Memory of one device in GiB, or None for a CPU."""
    speed: Speed | None
    """Speed of one device, or None if only its memory is known. A CPU has the measured speed of this machine."""


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
    time: NotRequired[list[StageTime]]
    """Predicted times of the steps that train or evaluate. Missing if the speed is unknown."""
    speed: NotRequired[str]
    """Where the speed comes from."""
    total_hours: NotRequired[float]
    """Sum of all known times."""
    total_cost: NotRequired[float]


def recipe_needs(
    recipe: Recipe, device_gib: float | None = None, *, rental: Rental | None = None, price: float | None = None
) -> RecipeNeeds:
    """Return the memory needs of every training stage, the disk space and time that the recipe needs, and warnings.

    Args:
        recipe: the recipe.
        device_gib: memory of one device in GiB; by default the memory of this machine's devices.
        rental: hardware to plan for; by default this machine.
        price: price of one device for one hour.
    """
    layout = launch_file.layout_of(recipe.launch.path() if recipe.launch else None)
    started = layout.devices
    if rental is not None:
        layout = replace(layout, devices=rental.devices, device=rental.device)
        device_gib = rental.device_gib if device_gib is None else device_gib
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
    if rental is not None and recipe.launch is not None and started != rental.devices:
        warnings.append(
            f"processes that {recipe.launch} starts: {started}; everything here is for {rental.devices} devices"
        )
    space = disk.forecast(recipe, shape, layout)
    if space["total"] > space["free"]:
        warnings.append(disk.shortage(space))
    plan: RecipeNeeds = {
        "device_bytes": available,
        "devices": layout.devices,
        "needs": stages,
        "disk": space,
        "warnings": warnings,
    }
    speed = rental.speed if rental is not None and rental.device != "cpu" else speeds.read_measured(layout.device)
    if speed is None:
        warnings.append(
            "the speed of these devices is unknown: name the card, as in --hardware 8xH100, to predict times"
        )
    elif shape.vocab_size:
        times = recipe_time(recipe, shape, layout, speed, price)
        if any(entry["step_seconds"] is not None or entry["seconds"] is not None for entry in times):
            plan["time"], plan["speed"] = times, speed.source
            plan["total_hours"] = _total(times, "seconds") / 3600
            if price is not None:
                plan["total_cost"] = _total(times, "cost")
    return plan


def _total(times: list[StageTime], figure: Literal["seconds", "cost"]) -> float:
    return sum(entry[figure] or 0.0 for entry in times)


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
    lines += _describe_time(plan)
    return lines + [f"warning: {warning}" for warning in plan["warnings"]]


def _describe_time(plan: RecipeNeeds) -> list[str]:
    """Format the predicted times as lines of text."""
    if "time" not in plan:
        return ["Time: not measured on this machine; `align plan RECIPE --time` measures it (about 20 s, once)"]
    lines = [f"Predicted time, {plan['speed']}:"]
    for entry in plan["time"]:
        seconds = entry["seconds"]
        parts = [] if seconds is None else [_duration(seconds)]
        if plan["devices"] > 1 and entry["device_hours"] is not None:
            parts.append(f"{entry['device_hours']:.1f} device hours")
        if entry["cost"] is not None:
            parts.append(f"cost {entry['cost']:,.2f}")
        if entry["step_seconds"] is not None:
            steps = f"{entry['steps']:,} steps of " if entry["steps"] else "steps of "
            parts.append(f"{steps}{_short(entry['step_seconds'])} s, {entry['tokens_per_second']:,.0f} tokens/s")
        if entry["note"]:
            parts.append(entry["note"])
        lines.append(f"  {entry['stage']:20} {'; '.join(parts)}")
    cost = f", cost {plan['total_cost']:,.2f}" if "total_cost" in plan else ""
    partial = " (of the steps with a known time)" if any(e["seconds"] is None for e in plan["time"]) else ""
    lines.append(f"  {'together':20} {_duration(plan['total_hours'] * 3600)}{cost}{partial}")
    return lines


def _short(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.2g}"


def _duration(seconds: float) -> str:
    """Format a duration in hours from two hours on, else in minutes or seconds."""
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else format_duration(seconds)
