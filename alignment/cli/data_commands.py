"""The commands for data: `align build` and `align show`.

align build --list                                     list the built-in builders
align build BUILDER --settings                         list the settings of a builder
align build corpus PATH... --out DIR [--set KEY=VALUE] make a dataset
align build my_builder.py:build --out DIR              make a dataset with a builder of your own
align show DATASET [-n 5] [--kind notebook]            look at rows
"""

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

from alignment.cli import sandbox_commands
from alignment.grading.sandbox_settings import SandboxSettings
from alignment.recipe import BuildStage, builders
from alignment.recipe.overlays import override
from alignment.recipe.yaml_source import YamlSource
from alignment.settings import Reference, Settings
from alignment.settings_help import describe_settings
from data_builders.builder import BuildContext
from data_builders.builder_registry import BUILDERS, LoadedBuilder, find_builder
from data_builders.repositories.sources import Location, Source

NAMES = ("build", "show")


def add(commands: Any) -> None:
    """Add the commands to the command line's subparsers."""
    build = commands.add_parser("build", help="Make a dataset, as a recipe's build stage does.")
    build.add_argument(
        "builder", nargs="?", help="a built-in builder (--list names them), or your own as path/to/file.py:function"
    )
    build.add_argument("paths", nargs="*", metavar="PATH", help="what it reads: repositories or datasets")
    build.add_argument("--out", type=Path, help="folder of the new dataset")
    build.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="one setting, for example filters.max_line_length=500; may be repeated",
    )  # fmt: skip
    build.add_argument("--seed", type=int, default=0)
    sandbox_commands.add_consent(build)
    build.add_argument(
        "--workers", type=int, help="processes (default: one per core); the result does not depend on it"
    )
    build.add_argument(
        "--engine", choices=("local", "ray"), help="run on datatrove's local executor, or on a Ray cluster"
    )
    build.add_argument("--tasks", type=int, default=16, help="with --engine: number of tasks that the work is cut into")
    build.add_argument("--list", action="store_true", help="list the built-in builders")
    build.add_argument("--settings", action="store_true", help="list the settings of the builder")
    build.add_argument("--json", action="store_true", help="print one JSON document")
    show = commands.add_parser("show", help="Show rows of a dataset, drawn at random.")
    show.add_argument("dataset", type=Path, help="a dataset's folder, or a .jsonl or .parquet file")
    show.add_argument("-n", type=int, default=5, help="how many rows (default: 5)")
    show.add_argument("--kind", help="only rows with this value in the column `kind` or `format`")
    show.add_argument("--language", help="only rows of this language")
    show.add_argument("--seed", type=int, default=0, help="seed of the random choice of rows")
    show.add_argument("--characters", type=int, default=2000, help="characters of one text, at most (default: 2000)")
    show.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Run one of `NAMES`."""
    return {"build": _build, "show": _show}[arguments.command](arguments)


def _build(arguments: argparse.Namespace) -> int:
    if arguments.list:
        for name in BUILDERS:
            print(f"{name:16} {_first_paragraph(find_builder(name).function)}")
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
    """What a builder makes, and its settings."""
    yield _first_paragraph(builder.function)
    if builder.settings_class is None:
        yield "  It takes any settings: its function takes a plain dict."
    else:
        yield from describe_settings(builder.settings_class)


def _first_paragraph(function: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(function) or "").split("\n\n", 1)[0].split())


def _engine(arguments: argparse.Namespace, folder: Path, workers: int) -> contextlib.AbstractContextManager[Any]:
    if arguments.engine is None:
        return contextlib.nullcontext()
    from data_builders.storage import scale

    return scale.engine(arguments.engine, folder, tasks=arguments.tasks, workers=workers)


def _checked_settings(arguments: argparse.Namespace) -> tuple[LoadedBuilder, Settings | dict[str, Any]]:
    """The builder and its settings, checked as those of a build stage are.

    Raises:
        ValueError: all mistakes, one a line.
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
    """The setting that positional paths are for: the first required one that is a list of paths or sources."""
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


def _show(arguments: argparse.Namespace) -> int:
    from data_builders.storage.show import sample_rows, show

    wanted = {"kind": arguments.kind, "language": arguments.language}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    rows = sample_rows(arguments.dataset, arguments.n, arguments.seed, wanted)
    if arguments.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False, default=str))
    else:
        print(show(rows, arguments.characters), end="")
    return 0
