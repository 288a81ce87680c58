"""Check that stages read rows of the right kind, as far as the kind is known before the first stage runs.

The builder of a build stage determines the kinds of rows in the stage's files. For a file that exists already, the
first row is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    KtoStage,
    PretrainStage,
    Recipe,
    SftStage,
)
from alignment.recipe.stage_graph import StageGraph, StageNode
from alignment.rows import kinds, reading
from alignment.rows.conversions import RowFormat, convert
from alignment.settings import Reference
from alignment.wording import display

# Kinds of rows that each kind of stage trains on.
TRAINING_KINDS = {
    "pretrain": ("document", "conversation"),
    "sft": ("document", "conversation"),
    "dpo": ("preference",),
    "kto": ("feedback",),
    "grpo": ("task",),
}
# Kinds of rows that are read through settings of builders: builder -> setting -> kind.
BUILDER_KINDS = {
    "difficulty": {"tasks": "task"},
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
    "editor": ("infilling",),
    "completion": ("infilling",),
    "tools": ("conversation",),
    "repair": ("task",),
}


@dataclass(frozen=True)
class RowReader:
    """A setting that names rows to read."""

    place: Place
    """Path of keys to the setting. The path starts at the stage, or at the recipe for a benchmark of the recipe's
    `evaluate:`."""
    reference: Reference
    kinds: Sequence[str]
    """Kinds of rows that the setting accepts."""
    description: str
    """Beginning of the error message, for example `a dpo stage trains on`."""
    limit: int | None = None
    """Number of rows that are read from the start of the file. None reads all rows."""
    format: RowFormat | None = None
    """Format from which the rows are converted, for example `sharegpt`. None if the rows are not converted."""


def check_row_kinds(recipe: Recipe, graph: StageGraph) -> Iterator[Mistake]:
    """Yield a mistake for every reference to rows that are known to be of the wrong kind."""
    for node, parent, reader in row_readers(recipe, graph):
        yield from _check(recipe, node, reader, parent)


def row_readers(recipe: Recipe, graph: StageGraph) -> Iterator[tuple[StageNode, Place, RowReader]]:
    """Yield (step, place, reader) for every setting that reads rows. The reader's place is relative to this place."""
    for index, node in enumerate(graph.stages):
        for reader in _readers(node.stage):
            yield node, ("stages", index), reader
    for node in graph.inserted[:1]:
        for reader in _benchmark_readers(recipe.evaluate, ("evaluate",)):
            yield node, (), reader


def origin_of(node: StageNode, reader: RowReader) -> str | None:
    """Return the earlier stage that makes the rows of a reader. None for a path."""
    inside = ("benchmarks", *reader.place[1:]) if reader.place[0] == "evaluate" else reader.place
    return next(read.origin for read in node.reads if read.place == inside)


def _readers(stage: AnyStage) -> Iterator[RowReader]:
    """Yield the settings of one stage that name files with rows. Each `place` is relative to the stage."""
    if isinstance(stage, PretrainStage | SftStage | DpoStage | KtoStage | GrpoStage):
        for number, source in enumerate(stage.data):
            description = f"{'an' if stage.kind == 'sft' else 'a'} {stage.kind} stage trains on"
            yield RowReader(
                ("data", number, "data"),
                source.data,
                TRAINING_KINDS[stage.kind],
                description,
                source.rows,
                source.format,
            )
    elif isinstance(stage, EvaluateStage):
        yield from _benchmark_readers(stage.benchmarks, ("benchmarks",))
    elif isinstance(stage, ExportStage):
        if stage.data is not None:
            yield RowReader(("data",), stage.data, EXPORT_KINDS, "an export compares models on")
        for number, sample in enumerate(stage.calibration.data if stage.calibration is not None else []):
            place: Place = ("calibration", "data", number, "data")
            yield RowReader(place, sample.data, EXPORT_KINDS, "its formats are calibrated on", sample.rows)
    elif isinstance(stage, BuildStage) and stage.builder in BUILDER_KINDS:
        for place, reference in builders.references(stage):
            kind = BUILDER_KINDS[stage.builder].get(str(place[1])) if len(place) == 2 else None
            if kind is not None:
                yield RowReader(place, reference, (kind,), f"{stage.builder} are made from")


def _benchmark_readers(benchmarks: Sequence[BenchmarkSettings], place: Place) -> Iterator[RowReader]:
    for number, benchmark in enumerate(benchmarks):
        family = str(benchmark.benchmark).partition("@")[0]
        if benchmark.data is not None and family in BENCHMARK_KINDS:
            accepted = BENCHMARK_KINDS[family]
            description = f"benchmark {benchmark.benchmark!r} measures"
            yield RowReader((*place, number, "data"), benchmark.data, accepted, description)


def _check(recipe: Recipe, node: StageNode, reader: RowReader, parent: Place) -> Iterator[Mistake]:
    """Check that the rows of one setting have a kind that the setting accepts.

    Nothing is checked if the kind is not known yet.
    """
    origin, reference = origin_of(node, reader), reader.reference
    place = (*parent, *reader.place)
    try:
        kind = (
            _first_kind(reference, reader.format) if origin is None else _output_kind(recipe.stage(origin), reference)
        )
    except ValueError as error:
        yield place, str(error)
        return
    if origin is not None and (message := _empty_output(recipe.stage(origin), reference)):
        yield place, message
    if kind is not None and kind not in reader.kinds:
        *others, last = reader.kinds
        accepted = f"{', '.join(others)} or {last}" if others else last
        source = display(reference.path()) if origin is None else str(reference)
        hint = (
            ": give `chosen` and `rejected`, or use a kto stage" if (kind, last) == ("feedback", "preference") else ""
        )
        yield place, f"{reader.description} {accepted} rows; {source} has {kind} rows{hint}"


# Files of the synthetic builder -> the settings of which at least one must be above 0 for the file to have rows.
_SYNTHETIC = {
    "rl.jsonl": ("rl_tasks",),
    "conversations.jsonl": ("conversations", "file_conversations"),
    "long.jsonl": ("long_conversations",),
    "documents.jsonl": ("standard_library", "modules", "repositories", "history"),
}


def _empty_output(stage: AnyStage, reference: Reference) -> str:
    """Return the reason why a file of an earlier stage will have no rows, or "" if it will have rows."""
    if not isinstance(stage, BuildStage) or stage.builder != "synthetic":
        return ""
    counts = [(name, stage.settings.get(name, 1)) for name in _SYNTHETIC.get(reference.inside(), ())]
    if not counts or any(count != 0 for _, count in counts):
        return ""
    return f"stage {stage.name!r} makes no rows for {reference.inside()}: {', '.join(name for name, _ in counts)} is 0"


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
    where, row = next(reading.read_located(path, 1), (display(path), None))
    if row is None:
        raise ValueError(f"{where} is empty: name a file with rows")
    if isinstance(row, ValueError):
        raise row
    return located_kind(convert(row, form, where), where)


def located_kind(row: kinds.Row, where: str) -> str:
    """Return the kind of a row: one of `kinds.RowKind`, or `infilling` for rows of benchmarks.

    Raise ValueError if the columns of the row belong to no kind.
    """
    return "infilling" if "prefix" in row and "middle" in row else kinds.kind_of(row, where)
