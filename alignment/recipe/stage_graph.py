"""Build the stage graph of a recipe: the steps in order, with the model and the rows that each step reads.

The graph can also be built for a recipe with mistakes. A step may then name a model that no stage makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alignment.recipe import builders
from alignment.recipe.problems import Place
from alignment.recipe.schema import (
    AnyStage,
    BenchmarkSettings,
    BuildStage,
    CustomStage,
    EvaluateStage,
    MergeStage,
    Recipe,
    is_measured_kind,
    makes_model,
)
from alignment.settings import Reference, nested_values

BASE = "base"


@dataclass(frozen=True)
class Read:
    """A reference in settings to a file, a folder or an earlier stage."""

    place: Place
    """Place of the reference, relative to the stage (or to the recipe)."""
    reference: Reference
    origin: str | None
    """The earlier stage that writes the file. None for a path or a name on the hub."""


@dataclass(frozen=True)
class StageNode:
    """One step: a stage of the recipe, or an evaluation that the recipe's `evaluate:` inserts."""

    name: str
    stage: AnyStage
    position: int | None
    """Index in `recipe.stages`, or None for an inserted evaluation."""
    model: str | None
    """The stage whose model the step reads, or `base`. None if the step reads no model."""
    reads: tuple[Read, ...]
    merged: tuple[str, ...] = ()
    """For a merge: `base` and the names of all stages whose models it reads."""

    @property
    def rung(self) -> str | None:
        """For an evaluation, the stage whose model is measured, or `base`. None for other steps."""
        return self.model if isinstance(self.stage, EvaluateStage) else None


@dataclass(frozen=True)
class StageGraph:
    """All steps of a recipe, with the models and rows that they read."""

    nodes: tuple[StageNode, ...]
    first_training: int
    """Index in `recipe.stages` of the first stage that trains or merges, or the number of stages if no stage trains or
    merges."""
    first_use_of_base: int
    """Index in `recipe.stages` of the first stage that uses the base model. An inserted evaluation counts as a use."""
    base_reads: tuple[Read, ...]
    """References in the settings of the base model: its tokenizer may come from a build stage."""
    benchmarks: tuple[tuple[BenchmarkSettings, Read | None], ...]
    """All benchmarks of `evaluate:` and of evaluate stages. Each benchmark is paired with the reference to its rows, or
    with None if it names no rows."""
    decontaminate: tuple[Read, ...]
    """References in the recipe's `decontaminate:`."""

    @property
    def stages(self) -> list[StageNode]:
        """The nodes of the recipe's stages, in the order of the recipe, without inserted evaluations."""
        return [node for node in self.nodes if node.position is not None]

    @property
    def inserted(self) -> list[StageNode]:
        """The evaluations that the recipe's `evaluate:` inserts."""
        return [node for node in self.nodes if node.position is None]

    def before(self, position: int) -> Iterator[StageNode]:
        """Yield the nodes that run before the stage at this index of `recipe.stages`."""
        for node in self.nodes:
            if node.position == position:
                return
            yield node


def resolve(recipe: Recipe) -> StageGraph:
    """Build the stage graph of a recipe.

    If the recipe has `evaluate:`, an evaluation of the base model is inserted before the first training or merge stage.
    Another evaluation is inserted after every training or merge stage that does not set `evaluate: false`.
    """
    names = [stage.name for stage in recipe.stages]
    first = _first_training(recipe)
    nodes: list[StageNode] = []
    trained = BASE
    for position, stage in enumerate(recipe.stages):
        earlier = names[:position]
        if position == first and recipe.evaluate:
            nodes.append(_evaluation(recipe, BASE, None, names[:first]))
        merged = tuple(stage.named_models) if isinstance(stage, MergeStage) else ()
        nodes.append(StageNode(stage.name, stage, position, _model(stage, trained), _reads(stage, earlier), merged))
        if makes_model(stage):
            trained = stage.name
        if is_measured_kind(stage) and recipe.evaluate and stage.evaluate:
            nodes.append(_evaluation(recipe, stage.name, stage.seed, names[:first]))
    users = [node.position for node in nodes if BASE in (node.model, *node.merged) and node.position is not None]
    first_use = min([*users, *([first] if recipe.evaluate else []), len(names)])
    return StageGraph(
        nodes=tuple(nodes),
        first_training=first,
        first_use_of_base=first_use,
        base_reads=_base_reads(recipe, names[:first_use]),
        benchmarks=tuple(_benchmarks(recipe, names[:first])),
        decontaminate=tuple(
            Read(("decontaminate", index), reference, reference.stage(names[:first]))
            for index, reference in enumerate(recipe.decontaminate)
        ),
    )


def _first_training(recipe: Recipe) -> int:
    kinds = [is_measured_kind(stage) for stage in recipe.stages]
    return kinds.index(True) if True in kinds else len(kinds)


def _model(stage: AnyStage, trained: str) -> str | None:
    """Return the stage whose model `stage` reads, or None if it reads no model.

    `trained` is the last earlier stage that makes a model, or `base`.
    """
    if isinstance(stage, BuildStage) and not builders.needs_model(stage):
        return None
    if isinstance(stage, CustomStage | MergeStage):
        return stage.model
    return stage.model or trained


def _evaluation(recipe: Recipe, model: str, seed: int | None, earlier: Sequence[str]) -> StageNode:
    name = f"evaluate-{model}"
    stage = EvaluateStage(
        name=name[:64],
        kind="evaluate",
        model=model,
        benchmarks=recipe.evaluate,
        engine=recipe.evaluation_engine,
        seed=seed,
    )
    return StageNode(name, stage, None, model, _reads(stage, earlier))


def _reads(stage: AnyStage, earlier: Sequence[str]) -> tuple[Read, ...]:
    """Return every reference in a stage's settings. `earlier` has the names of the stages before this stage."""
    references = list(builders.references(stage)) if isinstance(stage, BuildStage) else []
    references += [(place, value) for place, value in nested_values(stage) if isinstance(value, Reference)]
    return tuple(Read(place, reference, reference.stage(earlier)) for place, reference in references)


def _base_reads(recipe: Recipe, earlier: Sequence[str]) -> tuple[Read, ...]:
    references = [(key, getattr(recipe.model, key)) for key in ("path", "tokenizer")]
    return tuple(
        Read(("model", key), reference, reference.stage(earlier))
        for key, reference in references
        if reference is not None
    )


def _benchmarks(recipe: Recipe, earlier: Sequence[str]) -> Iterator[tuple[BenchmarkSettings, Read | None]]:
    groups: list[tuple[Place, list[BenchmarkSettings]]] = [(("evaluate",), recipe.evaluate)]
    for position, stage in enumerate(recipe.stages):
        if isinstance(stage, EvaluateStage):
            groups.append((("stages", position, "benchmarks"), stage.benchmarks))
        if isinstance(stage, MergeStage) and stage.search is not None:
            groups.append((("stages", position, "search"), [stage.search.benchmark]))
    for place, group in groups:
        for index, benchmark in enumerate(group):
            data = benchmark.data
            yield benchmark, None if data is None else Read((*place, index, "data"), data, data.stage(earlier))


def is_hub_name(reference: Reference) -> bool:
    """Whether a reference names a model or dataset on the hub: `owner/name`, and no such path exists."""
    return (
        reference.count("/") == 1 and not reference.startswith((".", "/", "~", "-")) and not reference.endswith("/")
    ) and not reference.exists()
