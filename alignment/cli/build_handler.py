"""Run `align build`. The command's parser is in another module because the parser must not import the builders."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import shutil
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.grading.sandbox_settings import SandboxSettings
from alignment.recipe import BuildStage, builders
from alignment.recipe.overlays import override
from alignment.recipe.yaml_source import YamlSource
from alignment.settings import Reference, Settings
from alignment.settings_help import describe_settings
from data_builders.builder import BuildContext
from data_builders.builder_registry import BUILDERS, LoadedBuilder, find_builder
from data_builders.repositories.locations import Location
from data_builders.repositories.sources import Source


def build(arguments: argparse.Namespace) -> int:
    """Run `align build` and return the exit code."""
    if arguments.list:
        for name in BUILDERS:
            print(f"{name:18} {_first_paragraph(find_builder(name).function)}")
        return 0
    if arguments.builder is None:
        raise ValueError("name a builder; `align build --list` shows them")
    if arguments.settings:
        print("\n".join(_help(find_builder(arguments.builder))))
        return 0
    builder, settings = _checked_settings(arguments)
    if builder.samples:
        raise ValueError(f"builder {arguments.builder!r} samples from a model: make it a stage of a recipe")
    if arguments.out is None:
        raise ValueError("give the folder of the new dataset with --out")
    workers = arguments.workers or len(os.sched_getaffinity(0))
    arguments.out.mkdir(parents=True, exist_ok=True)
    out = arguments.out.resolve()
    context = BuildContext(
        out=out,
        seed=arguments.seed,
        workers=workers,
        sandbox=SandboxSettings(allow_weaker=arguments.allow_weaker_sandbox),
        # With an engine, clones must be in a folder that all machines share.
        clone_folder=out / "engine" / "clones" if arguments.engine else None,
    )
    with _engine(arguments, out / "engine", workers):
        counts = builder.run(settings, context)
    shutil.rmtree(out / "engine", ignore_errors=True)
    if arguments.json:
        print(json.dumps(counts, indent=2, default=str))
    else:
        print("\n".join(_summary(counts)))
        print(f"{arguments.out}: `align show {arguments.out}` shows rows of it")
    return 0


def _help(builder: LoadedBuilder) -> Iterator[str]:
    """Yield the help of a builder, line by line: the dataset that the builder makes, and the builder's settings."""
    yield _first_paragraph(builder.function)
    if builder.settings_class is None:
        yield "  It takes any settings: its function takes a plain dict."
    else:
        yield from describe_settings(builder.settings_class)


def _first_paragraph(function: Any) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(function) or "").split("\n\n", 1)[0].split())


def _engine(arguments: argparse.Namespace, folder: Path, workers: int) -> contextlib.AbstractContextManager[Any]:
    if arguments.engine is None:
        return contextlib.nullcontext()
    from data_builders.storage import scale

    return scale.engine(arguments.engine, folder, tasks=arguments.tasks, workers=workers)


def _checked_settings(arguments: argparse.Namespace) -> tuple[LoadedBuilder, Settings | dict[str, Any]]:
    """Find the builder and check the settings of the command line in the same way as the settings of a build stage.

    Returns:
        The builder and the checked settings.

    Raises:
        ValueError: a setting is wrong. The message lists all mistakes, one per line.
    """
    values: dict[str, Any] = {}
    source = YamlSource({"settings": values})
    for assignment in arguments.overrides:
        source = override(source, f"settings.{assignment}")
    values = source.value["settings"]
    if arguments.paths:
        name = _paths_setting(find_builder(arguments.builder))
        if name is None:
            raise ValueError(f"builder {arguments.builder!r} takes no list of paths: use --set")
        if name in values:
            raise ValueError(f"give {name} either as paths or with --set")
        values[name] = list(arguments.paths)
    stage = BuildStage(name="build", kind="build", builder=arguments.builder, settings=values)
    mistakes = list(builders.check_settings(stage))
    for place, reference in builders.references(stage):
        if not isinstance(reference, Location) and not reference.exists():
            mistakes.append((place, f"there is no file or folder {reference}"))
    if mistakes:
        raise ValueError("\n".join(f"{'.'.join(map(str, place[1:] or place))}: {text}" for place, text in mistakes))
    builder = builders.builder_of(stage)
    return builder, builder.validate(values)


def _paths_setting(builder: LoadedBuilder) -> str | None:
    """Return the name of the setting that gets the positional PATH arguments, or None if no setting can take them.

    The chosen setting is the first required setting whose value is a list of paths or sources.
    """
    fields = builder.settings_class.model_fields if builder.settings_class is not None else {}
    for name, field in fields.items():
        item = (*typing.get_args(field.annotation), None)[0]
        if field.is_required() and isinstance(item, type) and issubclass(item, Reference | Source):
            return name
    return None


def _summary(summary: dict[str, Any]) -> Iterator[str]:
    for name, value in summary.items():
        if isinstance(value, int | float | str):
            yield f"{name}: {value}"
        elif isinstance(value, dict) and name != "settings" and value:
            shown = ", ".join(f"{key} {count}" for key, count in list(value.items())[:12])
            yield f"{name}: {shown}{', ...' if len(value) > 12 else ''}"
