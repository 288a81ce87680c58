"""The commands for data: `align build` and `align show`.

align build --list                                     name all builders
align build BUILDER --settings                         what a builder can be told
align build corpus PATH... --out DIR [--set KEY=VALUE] make a dataset
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

NAMES = ("build", "show")


def add(commands: Any) -> None:
    """Add the commands to the command line's subparsers."""
    build = commands.add_parser("build", help="Make a dataset, as a recipe's build stage does.")
    build.add_argument("builder", nargs="?", help="which builder; --list names them")
    build.add_argument("paths", nargs="*", metavar="PATH", help="what it reads: repositories, or datasets")
    build.add_argument("--out", type=Path, help="folder of the new dataset")
    build.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="one setting, for example filters.max_line_length=500; may be repeated",
    )  # fmt: skip
    build.add_argument("--seed", type=int, default=0)
    sandbox_commands.add_consent(build)
    build.add_argument("--workers", type=int, help="processes (default: one a core); the result does not depend on it")
    build.add_argument(
        "--engine", choices=("local", "ray"), help="run on datatrove's local executor, or on a Ray cluster"
    )
    build.add_argument("--tasks", type=int, default=16, help="with --engine: into how many tasks work is cut")
    build.add_argument("--list", action="store_true", help="name all builders")
    build.add_argument("--settings", action="store_true", help="what the builder can be told")
    build.add_argument("--json", action="store_true", help="print one JSON document")
    show = commands.add_parser("show", help="Look at rows of a dataset, drawn at random.")
    show.add_argument("dataset", type=Path, help="a dataset's folder, or a .jsonl or .parquet file")
    show.add_argument("-n", type=int, default=5, help="how many rows (default: 5)")
    show.add_argument("--kind", help="only rows of this kind: what the column `kind` or `format` says")
    show.add_argument("--language", help="only rows of this language")
    show.add_argument("--seed", type=int, default=0, help="another seed, other rows")
    show.add_argument("--characters", type=int, default=2000, help="of one text, at most (default: 2000)")
    show.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Run one of `NAMES`."""
    return {"build": _build, "show": _show}[arguments.command](arguments)


def _build(arguments: argparse.Namespace) -> int:
    from alignment.cli.builder_help import described, first_paragraph
    from alignment.recipe import builders

    if arguments.list:
        for name in builders.BUILDERS:
            print(f"{name:16} {first_paragraph(builders.function(name))}")
        return 0
    if arguments.builder is None:
        raise ValueError("name a builder; `align build --list` shows them")
    if arguments.settings:
        print("\n".join(described(arguments.builder)))
        return 0
    stage = _stage(arguments)
    if builders.needs_model(arguments.builder):
        raise ValueError(f"builder {arguments.builder!r} samples from a model: make it a stage of a recipe")
    if arguments.out is None:
        raise ValueError("say with --out where the dataset goes")
    workers = arguments.workers or len(os.sched_getaffinity(0))
    arguments.out.mkdir(parents=True, exist_ok=True)
    out = arguments.out.resolve()
    sandbox = SandboxSettings(allow_weaker=arguments.allow_weaker_sandbox)
    with _engine(arguments, out / "engine", workers):
        summary = builders.call(
            stage, out, seed=arguments.seed, workers=workers, sandbox=sandbox, **_clones(arguments, out)
        )
    shutil.rmtree(out / "engine", ignore_errors=True)
    if arguments.json:
        print(json.dumps(summary, indent=2, default=str))
    else:
        print("\n".join(_summary(summary)))
        print(f"{arguments.out}: `align show {arguments.out}` shows rows of it")
    return 0


def _engine(arguments: argparse.Namespace, folder: Path, workers: int) -> contextlib.AbstractContextManager[Any]:
    if arguments.engine is None:
        return contextlib.nullcontext()
    from data_builders.storage import scale

    return scale.engine(arguments.engine, folder, tasks=arguments.tasks, workers=workers)


def _clones(arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """With an engine, clones of URLs must lie where all machines see them."""
    return {"clone_dir": out / "engine" / "clones"} if arguments.engine else {}


def _stage(arguments: argparse.Namespace) -> Any:
    """The command line as a build stage, checked as a recipe's stage is."""
    from alignment.recipe import BuildStage, builders
    from alignment.recipe.overlays import override, replace_at
    from alignment.recipe.yaml_source import YamlSource

    settings: dict[str, Any] = {}
    source = YamlSource({"settings": settings})
    for assignment in arguments.overrides:
        source = override(source, f"settings.{assignment}")
    settings = source.value["settings"]
    if arguments.paths:
        name = _paths_setting(arguments.builder)
        if name is None:
            raise ValueError(f"builder {arguments.builder!r} takes no list of paths: use --set")
        if name in settings:
            raise ValueError(f"give {name} either as paths or with --set")
        settings[name] = list(arguments.paths)
    stage = BuildStage(name="build", kind="build", builder=arguments.builder, settings=settings)
    mistakes = list(builders.check_settings(stage))
    resolved = stage.model_dump(mode="json")
    for place, reference in builders.references(stage):
        if isinstance(reference, builders.SourceReference):
            resolved = replace_at(resolved, place, reference.location())
            continue
        if not reference.exists():
            mistakes.append((place, f"there is no file or folder {reference}"))
        resolved = replace_at(resolved, place, str(reference.path()))
    if mistakes:
        raise ValueError("\n".join(f"{'.'.join(map(str, place[1:] or place))}: {text}" for place, text in mistakes))
    return stage.model_copy(update={"settings": resolved["settings"]})


def _paths_setting(builder: str) -> str | None:
    """The setting that a builder's positional paths are: the first one that is a list of paths or sources."""
    from alignment.recipe import builders
    from data_builders.repositories.sources import Location

    if builder not in builders.BUILDERS:
        return "paths"  # the check says that there is no such builder
    for name, (annotation, default) in builders.parameters(builder).items():
        inner = typing.get_args(annotation)[:1]
        arms = {*inner, *(typing.get_args(inner[0]) if inner else ())}
        if default is inspect.Parameter.empty and {Path, Location} & arms:
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
