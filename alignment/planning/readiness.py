"""Finds out whether this machine can run a recipe: devices, memory, disk, packages, programs, services and downloads."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from alignment.grading.client import RemoteGrader
from alignment.planning import presentation, resources
from alignment.planning.memory import GIB
from alignment.recipe import BuildStage, GrpoStage, Recipe, TrainingStage, builders, launch_file
from alignment.recipe.environment_checks import check_environment
from alignment.recipe.export_checks import missing_engines
from alignment.recipe.stage_graph import is_hub_name
from alignment.sandbox import SandboxUnavailable
from data_builders.repositories.locations import Interpreter, Location
from data_builders.repositories.remote_git import is_url, strip_credentials

_SERVICE_PATIENCE = 3.0
"""Seconds to wait for a grading service."""


@dataclass(frozen=True)
class Requirement:
    """Something that a recipe needs, and whether this machine has it."""

    what: str
    state: Literal["ok", "note", "missing"]
    """`note`: the run gets it by itself, or it can't be told in advance."""
    detail: str
    """What this machine has, or what to do."""


def requirements(recipe: Recipe) -> list[Requirement]:
    """Return what a recipe needs, in the order in which a run would meet it. Starts the sandbox once."""
    return [
        *_devices(recipe),
        *_memory_and_disk(recipe),
        *_packages(recipe),
        *_model(recipe),
        *_repositories(recipe),
        *_programs(recipe),
    ]


def _devices(recipe: Recipe) -> Iterator[Requirement]:
    if not any(isinstance(stage, TrainingStage) for stage in recipe.stages):
        return
    layout = launch_file.layout_of(recipe.launch.path() if recipe.launch else None)
    needed, present = -(-layout.devices // layout.nodes), len(resources.card_bytes())
    if layout.device == "cpu":
        yield Requirement("devices", "ok", f"{layout.devices} processes on the CPU")
    elif recipe.launch is None:
        yield Requirement(
            "launch file", "missing", "set `launch:` to a file in accelerate_configs/, such as cpu.yaml or gpu.yaml"
        )
    elif present < needed:
        what = f"{recipe.launch} starts {needed} processes, one per GPU"
        remedy = (
            "set `launch:` to a file for this machine, for example accelerate_configs/cpu.yaml; or use `align launch`"
        )
        yield Requirement("devices", "missing", f"{what}, and this machine has {present or 'none'}: {remedy}")
    else:
        yield Requirement("devices", "ok", f"{needed} of {present} GPUs")


def _memory_and_disk(recipe: Recipe) -> Iterator[Requirement]:
    needs = presentation.recipe_needs(recipe)
    for stage in needs["needs"]:
        size = f"{stage['peak'] / GIB:.1f} GiB on each device"
        if stage["fits"] is False:
            remedy = "lower per_device_train_batch_size or max_length, or train an adapter (`peft`); `align plan` shows the parts"
            yield Requirement(f"memory of {stage['stage']}", "missing", f"{size}, which does not fit: {remedy}")
        else:
            state: Literal["ok", "note"] = "ok" if stage["fits"] else "note"
            yield Requirement(
                f"memory of {stage['stage']}", state, size if stage["fits"] else f"{size}, if a device has that"
            )
    if "disk" in needs:
        space = needs["disk"]
        text = f"{space['total'] / GIB:.1f} GiB at most, {space['free'] / GIB:.1f} GiB free"
        fits = space["total"] <= space["free"]
        remedy = "" if fits else ": free some, or set `output:` to a larger disk"
        yield Requirement("disk", "ok" if fits else "missing", text + remedy)


def _packages(recipe: Recipe) -> Iterator[Requirement]:
    """Yield the optional packages that settings need, and the engines that a run installs by itself."""
    wanted: dict[str, tuple[str, str]] = {}
    for stage in recipe.stages:
        if isinstance(stage, TrainingStage) and stage.quantization:
            wanted["bitsandbytes"] = ("qlora", f"`quantization` of {stage.name}")
        if isinstance(stage, GrpoStage) and stage.train.get("use_vllm"):
            wanted["vllm"] = ("vllm", f"`use_vllm` of {stage.name}")
    if recipe.evaluate and recipe.evaluation_engine == "vllm":
        wanted["vllm"] = ("vllm", "`evaluation_engine`")
    for package, (extra, purpose) in wanted.items():
        installed = importlib.util.find_spec(package) is not None
        detail = purpose if installed else f"{purpose} needs it: pip install 'code-alignment[{extra}]'"
        yield Requirement(f"package {package}", "ok" if installed else "missing", detail)
    for engine in missing_engines(recipe):
        command = f"python -m alignment.export.engine_environment {engine}"
        yield Requirement(
            f"engine {engine}", "note", f"the run installs it, which needs a package index; now: {command}"
        )


def _model(recipe: Recipe) -> Iterator[Requirement]:
    reference = recipe.model.path
    if reference is None:
        yield Requirement("base model", "ok", "random weights")
    elif not is_hub_name(reference):
        yield Requirement("base model", "ok", str(reference))
    else:
        from huggingface_hub import try_to_load_from_cache

        cached = isinstance(try_to_load_from_cache(str(reference), "config.json", revision=recipe.model.revision), str)
        offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
        if cached:
            yield Requirement("base model", "ok", f"{reference} is in the cache of the Hugging Face hub")
        elif offline:
            remedy = "download it elsewhere and set `model.path` to the folder, or unset HF_HUB_OFFLINE"
            yield Requirement(
                "base model", "missing", f"{reference} is not in the cache, and HF_HUB_OFFLINE is set: {remedy}"
            )
        else:
            yield Requirement("base model", "note", f"{reference} is downloaded from the Hugging Face hub")


def _repositories(recipe: Recipe) -> Iterator[Requirement]:
    """Yield git, if a builder reads repositories, and the repositories that are cloned from elsewhere."""
    locations = [
        location
        for stage in recipe.stages
        if isinstance(stage, BuildStage)
        for _, location in builders.references(stage)
        if isinstance(location, Location) and not isinstance(location, Interpreter)
    ]
    if not locations:
        return
    if shutil.which("git") is None:
        yield Requirement("git", "missing", "builders read repositories with git: install git")
    else:
        yield Requirement("git", "ok", f"{len(set(locations))} sources are read")
    for url in dict.fromkeys(str(location) for location in locations if is_url(str(location))):
        yield Requirement("repository", "note", f"{strip_credentials(url)} is cloned when its stage runs")


def _programs(recipe: Recipe) -> Iterator[Requirement]:
    """Yield the sandbox or the grading service, and the tools that `align check` misses."""
    if recipe.sandbox.address is not None:
        with RemoteGrader(recipe.sandbox.address) as grader:
            try:
                grader.check(patience=_SERVICE_PATIENCE)
                yield Requirement("grading service", "ok", recipe.sandbox.address)
            except SandboxUnavailable as error:
                yield Requirement("grading service", "missing", str(error))
    mistakes = list(check_environment(recipe))
    for place, message in mistakes:
        yield Requirement(".".join(map(str, place)), "missing", message)
    if not mistakes:
        yield Requirement("programs", "ok", "sandbox, compilers, interpreters and trackers that the recipe uses work")
