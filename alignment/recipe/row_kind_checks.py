"""Check that stages read rows of the right kind, as far as the kind is known before the first stage runs.

The builder of a build stage determines the kinds of rows in the stage's files. For a file that exists already, the
first row is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignment.recipe import builders
from alignment.recipe.problems import Mistake, Place
from alignment.recipe.schema import (
    AnyStage,
    BenchmarkSettings,
    BuildStage,
    DpoStage,
    EvaluateStage,
    ExportStage,
    GrpoStage,
    PretrainStage,
    Recipe,
    SftStage,
)
from alignment.recipe.stage_graph import StageGraph
from alignment.rows import kinds, reading
from alignment.rows.conversions import RowFormat, convert
from alignment.settings import Reference
from alignment.wording import display

# Kinds of rows that each kind of stage trains on.
TRAINING_KINDS = {
    "pretrain": ("document", "conversation"),
    "sft": ("document", "conversation"),
    "dpo": ("preference",),
    "grpo": ("task",),
}
# Kinds of rows that are read through settings of builders: builder -> setting -> kind.
BUILDER_KINDS = {
    "preferences": {"tasks": "task", "questions": "conversation"},
    "instructions": {"tasks": "task"},
}
# Kinds of rows on which an export compares models: all kinds with text.
EXPORT_KINDS = ("document", "conversation", "preference", "infilling")
# Kinds of rows for the benchmarks that measure the user's rows.
BENCHMARK_KINDS = {
    "tasks": ("task", "infilling"),
    "fim": ("infilling",),
    "fim-body": ("infilling",),
    "completion": ("infilling",),
    "tools": ("conversation",),
}


@dataclass(frozen=True)
class _Reader:
    """A setting that names rows to read."""

    place: Place
    reference: Reference
    kinds: Sequence[str]
    """Kinds of rows that the setting accepts."""
    description: str
    """Beginning of the error message, for example `a dpo stage trains on`."""
    format: RowFormat | None = None
    """Format from which the rows are converted, for example `sharegpt`. None if the rows are not converted."""


def check_row_kinds(recipe: Recipe, graph: StageGraph) -> Iterator[Mistake]:
    """Yield a mistake for every reference to rows that are known to be of the wrong kind."""
    for index, node in enumerate(graph.stages):
        origins = {read.place: read.origin for read in node.reads}
        for reader in _readers(node.stage):
            yield from _check(recipe, origins, reader, ("stages", index))
    for node in graph.inserted[:1]:
        origins = {("evaluate", *read.place[1:]): read.origin for read in node.reads}
        for reader in _benchmark_readers(recipe.evaluate, ("evaluate",)):
            yield from _check(recipe, origins, reader, ())


def _readers(stage: AnyStage) -> Iterator[_Reader]:
    """Yield the settings of one stage that name rows. Places are relative to the stage."""
    if isinstance(stage, PretrainStage | SftStage | DpoStage | GrpoStage):
        for number, source in enumerate(stage.data):
            description = f"{'an' if stage.kind == 'sft' else 'a'} {stage.kind} stage trains on"
            yield _Reader(("data", number, "data"), source.data, TRAINING_KINDS[stage.kind], description, source.format)
    elif isinstance(stage, EvaluateStage):
        yield from _benchmark_readers(stage.benchmarks, ("benchmarks",))
    elif isinstance(stage, ExportStage) and stage.data is not None:
        yield _Reader(("data",), stage.data, EXPORT_KINDS, "an export compares models on")
    elif isinstance(stage, BuildStage) and stage.builder in BUILDER_KINDS:
        for place, reference in builders.references(stage):
            kind = BUILDER_KINDS[stage.builder].get(str(place[1])) if len(place) == 2 else None
            if kind is not None:
                yield _Reader(place, reference, (kind,), f"{stage.builder} are made from")


def _benchmark_readers(benchmarks: Sequence[BenchmarkSettings], place: Place) -> Iterator[_Reader]:
    for number, benchmark in enumerate(benchmarks):
        if benchmark.data is not None and benchmark.benchmark in BENCHMARK_KINDS:
            accepted = BENCHMARK_KINDS[benchmark.benchmark]
            description = f"benchmark {benchmark.benchmark!r} measures"
            yield _Reader((*place, number, "data"), benchmark.data, accepted, description)


def _check(recipe: Recipe, origins: Mapping[Place, str | None], reader: _Reader, parent: Place) -> Iterator[Mistake]:
    """Check the rows of one setting. `origins` maps a reference's place to the stage that it names, or None."""
    origin, reference = origins[reader.place], reader.reference
    place = (*parent, *reader.place)
    try:
        kind = (
            _first_kind(reference, reader.format) if origin is None else _output_kind(recipe.stage(origin), reference)
        )
    except ValueError as error:
        yield place, str(error)
        return
    if kind is not None and kind not in reader.kinds:
        *others, last = reader.kinds
        accepted = f"{', '.join(others)} or {last}" if others else last
        source = display(reference.path()) if origin is None else str(reference)
        yield place, f"{reader.description} {accepted} rows; {source} has {kind} rows"


def _output_kind(stage: AnyStage, reference: Reference) -> str | None:
    """Return the kind of rows in a file of an earlier stage, or None if the kind is unknown before the stage runs."""
    if not isinstance(stage, BuildStage):
        return None
    outputs = builders.outputs(stage)
    parts = Path(reference.inside()).parts
    if parts:
        return outputs.get(parts[0]) or None
    return next(iter(outputs.values())) or None if len(outputs) == 1 else None


def _first_kind(reference: Reference, form: RowFormat | None) -> str | None:
    """Return the kind of the first row of a file or folder.

    Return None if the path does not exist; another check reports that mistake.

    Raises:
        ValueError: the file has no rows, or rows of a kind that no stage reads.
    """
    if not reference.exists():
        return None
    path = reference.path()
    row = next(reading.read(path, 1), None)
    if row is None:
        raise ValueError(f"{display(path)} is empty: name a file with rows")
    if "prefix" in row and "middle" in row:
        return "infilling"
    return kinds.kind_of(convert(row, form, f"{display(path)}, row 1"), display(path))
