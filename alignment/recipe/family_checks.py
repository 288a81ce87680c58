"""Check that the family of the base model can do what the stages and benchmarks of a recipe ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignment.evaluation.catalogue import FILL_IN_THE_MIDDLE
from alignment.models.model_family import ModelFamily, check_supported, stored_family
from alignment.recipe.problems import Mistake, Place
from alignment.recipe.schema import BenchmarkSettings, EvaluateStage, PretrainStage, Recipe, SftStage, TrainingStage


def recipe_family(recipe: Recipe) -> ModelFamily | None:
    """Return the model family of a recipe's base model, or None if the family is unknown or the model is not on disk."""
    return None if recipe.model.path is None else stored_family(recipe.model.path.path())


def check_family(recipe: Recipe) -> Iterator[Mistake]:
    """Yield a mistake for each setting that the base model's family does not support."""
    family = recipe_family(recipe)
    if family is None:
        return
    if any(isinstance(stage, TrainingStage) for stage in recipe.stages):
        try:
            check_supported(family)
        except ValueError as error:
            yield ("model", "path"), str(error)
            return
    if family.trains_fim:
        return
    for index, stage in enumerate(recipe.stages):
        # SFT without `fim:` trains its documents as plain text, and says so when the stage starts.
        asked = isinstance(stage, PretrainStage) or "fim" in stage.model_fields_set
        if asked and isinstance(stage, PretrainStage | SftStage) and stage.fim.rate:
            yield (
                ("stages", index, "fim"),
                f"{family.no_fim()}: set `fim: {{rate: 0}}`. The rate is {stage.fim.rate:g}",
            )
        if isinstance(stage, EvaluateStage):
            yield from _check_benchmarks(stage.benchmarks, ("stages", index, "benchmarks"), family)
    yield from _check_benchmarks(recipe.evaluate, ("evaluate",), family)


def _check_benchmarks(benchmarks: Sequence[BenchmarkSettings], place: Place, family: ModelFamily) -> Iterator[Mistake]:
    for number, benchmark in enumerate(benchmarks):
        if str(benchmark.benchmark) in FILL_IN_THE_MIDDLE:
            yield (
                (*place, number, "benchmark"),
                f"{family.no_fim()}, so `{benchmark.benchmark}` can't be measured: leave it out",
            )
