"""Whether what a recipe names holds the rows that its reader takes: told before anything runs, where it can be known.

Of an earlier build stage the builder's table says what its files hold; of a file that is there already, its first row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alignment.recipe import builders
from alignment.recipe import schema as recipes
from alignment.recipe.problems import Place
from alignment.recipe.schema import AnyStage, Recipe
from alignment.recipe.stage_graph import StageGraph
from alignment.rows import kinds, reading
from alignment.settings import Reference
from alignment.wording import display

# What each kind of stage trains on.
TRAINED_ON = {
    "pretrain": ("document", "conversation"),
    "sft": ("document", "conversation"),
    "dpo": ("preference",),
    "grpo": ("task",),
}
# What settings of builders read.
BUILT_FROM = {
    "preferences": {"tasks": "task", "questions": "conversation"},
    "instructions": {"tasks": "task"},
}
# What an export can compare and calibrate on: whatever has text of its own.
EXPORTED_ON = ("document", "conversation", "preference", "infilling")
# What the benchmarks on a recipe's own rows take.
MEASURED_ON = {"tasks": ("task", "infilling"), "fim": ("infilling",), "completion": ("infilling",)}


def check_row_kinds(recipe: Recipe, graph: StageGraph) -> Iterator[tuple[Place, str]]:
    """Yield (place, message) for every source of rows that is known to be of the wrong kind."""
    for index, node in enumerate(graph.stages):
        origins = {read.place: read.origin for read in node.reads}
        for place, reference, wanted, reader in _readers(node.stage):
            yield from _check(recipe, origins[place], ("stages", index, *place), reference, wanted, reader)
    for node in graph.inserted[:1]:
        origins = {("evaluate", *read.place[1:]): read.origin for read in node.reads}
        for place, reference, wanted, reader in _benchmarks(recipe.evaluate, ("evaluate",)):
            yield from _check(recipe, origins[place], place, reference, wanted, reader)


_Reader = tuple[Place, Reference, tuple[str, ...], str]


def _readers(stage: AnyStage) -> Iterator[_Reader]:
    """(place, what is read, kinds of rows that are taken, by what) of one stage."""
    if isinstance(stage, recipes.PretrainStage | recipes.SftStage | recipes.DpoStage | recipes.GrpoStage):
        for number, source in enumerate(stage.data):
            yield ("data", number, "data"), source.data, TRAINED_ON[stage.kind], f"a {stage.kind} stage trains on"
    elif isinstance(stage, recipes.EvaluateStage):
        yield from _benchmarks(stage.benchmarks, ("benchmarks",))
    elif isinstance(stage, recipes.ExportStage) and stage.data is not None:
        yield ("data",), stage.data, EXPORTED_ON, "an export compares models on"
    elif isinstance(stage, recipes.BuildStage) and stage.builder in BUILT_FROM:
        for place, reference in builders.references(stage):
            wanted = BUILT_FROM[stage.builder].get(str(place[1])) if len(place) == 2 else None
            if wanted is not None:
                yield place, reference, (wanted,), f"{stage.builder} are made from"


def _benchmarks(benchmarks: list[recipes.Benchmark], place: Place) -> Iterator[_Reader]:
    for number, benchmark in enumerate(benchmarks):
        if benchmark.data is not None and benchmark.benchmark in MEASURED_ON:
            wanted, reader = MEASURED_ON[benchmark.benchmark], f"benchmark {benchmark.benchmark!r} measures"
            yield (*place, number, "data"), benchmark.data, wanted, reader


def _check(
    recipe: Recipe, origin: str | None, place: Place, reference: Reference, wanted: tuple[str, ...], reader: str
) -> Iterator[tuple[Place, str]]:
    try:
        found = _made(recipe.stage(origin), reference) if origin is not None else _first(reference)
    except ValueError as error:
        yield place, str(error)
        return
    if found is not None and found not in wanted:
        choices = [f"{kind} rows" for kind in wanted]
        choice = f"{', '.join(choices[:-1])} or {choices[-1]}" if choices[:-1] else choices[0]
        what = str(reference) if origin is not None else display(reference.path())
        yield place, f"{reader} {choice}; {what} holds {found} rows"


def _made(stage: AnyStage, reference: Reference) -> str | None:
    """The kind of rows in a build stage's file; None where that is known only when it has run."""
    if not isinstance(stage, recipes.BuildStage):
        return None
    made = builders.outputs(stage)
    first = Path(reference.inside()).parts[:1]
    return (made.get(first[0]) if first else next(iter(made.values()), None) if len(made) == 1 else None) or None


def _first(reference: Reference) -> str | None:
    """The kind of the first row of a file or folder that is there; None where there is none, which others report.

    Raises ValueError for a file that holds no rows at all, and for rows that no stage reads.
    """
    if not reference.exists():
        return None
    path = reference.path()
    row = next(reading.read(path, 1), None)
    if row is None:
        raise ValueError(f"{display(path)} is empty")
    if "prefix" in row and "middle" in row:
        return "infilling"
    return kinds.kind_of(row, display(path))
