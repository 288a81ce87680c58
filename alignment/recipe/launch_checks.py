"""Check the Accelerate file that a recipe names in `launch:`, before Accelerate reads the file."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.recipe import launch_file
from alignment.recipe.problems import Mistake
from alignment.recipe.schema import Recipe, TrainingStage
from alignment.wording import did_you_mean, display

_TYPES = (
    "NO",
    "MULTI_CPU",
    "MULTI_GPU",
    "DEEPSPEED",
    "FSDP",
    "MULTI_XPU",
    "MULTI_NPU",
    "MULTI_MLU",
    "MULTI_HPU",
    "XLA",
    "TPU",
)
_PRECISIONS = ("no", "fp16", "bf16", "fp8")
_COUNTS = ("num_processes", "num_machines")


def check_launch(recipe: Recipe) -> Iterator[Mistake]:
    """Yield the mistakes in the recipe's Accelerate file. The place of each mistake is `launch`."""
    if recipe.launch is None or not recipe.launch.path().is_file():
        return
    file = display(recipe.launch.path())
    try:
        settings = launch_file.read(recipe.launch.path())
    except ValueError as error:
        yield ("launch",), str(error)
        return
    for message in _messages(settings, recipe):
        yield ("launch",), f"{file}: {message}"


def uses_cpu(recipe: Recipe) -> bool:
    """Return whether the recipe's launch file asks for training on the CPU."""
    if recipe.launch is None or not recipe.launch.path().is_file():
        return False
    try:
        return bool(launch_file.read(recipe.launch.path()).get("use_cpu"))
    except ValueError:
        return False


def _messages(settings: dict[str, Any], recipe: Recipe) -> Iterator[str]:
    known = _keys()
    for key in settings:
        if known and key not in known:
            yield f"Accelerate has no setting {key!r}.{did_you_mean(str(key), known)}"
    kind = settings.get("distributed_type", "NO")
    if kind is not False and str(kind) not in _TYPES:  # YAML reads an unquoted NO as false
        yield f"distributed_type must be one of {', '.join(_TYPES)}, not {kind!r}.{did_you_mean(str(kind), _TYPES)}".rstrip(
            "."
        )
    precision = settings.get("mixed_precision", "no")
    if precision is not False and str(precision) not in _PRECISIONS:
        yield f"mixed_precision must be one of {', '.join(_PRECISIONS)}, not {precision!r}"
    for key in _COUNTS:
        value = settings.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            yield f"{key} must be a whole number above 0, not {value!r}"
    deepspeed = settings.get("deepspeed_config") or {}
    if not isinstance(deepspeed, dict):
        yield f"deepspeed_config must be a mapping, not {deepspeed!r}"
        return
    yield from _deepspeed_messages(deepspeed, recipe)


def _deepspeed_messages(deepspeed: dict[str, Any], recipe: Recipe) -> Iterator[str]:
    stage = deepspeed.get("zero_stage", 2)
    if stage not in (0, 1, 2, 3) or isinstance(stage, bool):
        yield f"zero_stage must be 0, 1, 2 or 3, not {stage!r}"
    config = deepspeed.get("deepspeed_config_file")
    if config is not None and not (isinstance(config, str) and Path(config).expanduser().is_file()):
        yield f"deepspeed_config_file: there is no file {config!r}"
    steps = deepspeed.get("gradient_accumulation_steps")
    for other in recipe.stages:
        own = other.train.get("gradient_accumulation_steps", 1) if isinstance(other, TrainingStage) else None
        if own is not None and steps not in (None, "auto", own):
            yield (
                f"gradient_accumulation_steps is {steps}, and stage {other.name!r} has {own}: leave it out of the launch file, or "
                "write auto"
            )


@functools.cache
def _keys() -> frozenset[str]:
    """Return the keys that an Accelerate file may contain. Empty if they can't be found.

    The keys are parsed from the source code of accelerate 1.15, because importing accelerate takes seconds.
    """
    spec = importlib.util.find_spec("accelerate")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    file = Path(next(iter(spec.submodule_search_locations))) / "commands" / "config" / "config_args.py"
    classes = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    names = {
        item.target.id
        for node in classes
        if node.name in ("BaseConfig", "ClusterConfig")
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    return frozenset(names | {"fp16", "dynamo_backend"}) if names else frozenset()
