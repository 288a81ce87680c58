"""Settings of a stage that merges models: `MergeStage` in the schema, with the models and the search for their weights."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from alignment.recipe.stage_parts import BenchmarkSettings
from alignment.settings import Ref, Settings


class NamedModel(Settings):
    """A model: the base model or an earlier stage (`model`), or a checkpoint elsewhere (`path`)."""

    model: str | None = None
    """`base`, or an earlier stage that makes a model."""
    path: Ref | None = None
    """Folder of a checkpoint, relative to the recipe, or the name of a model on the Hugging Face hub."""

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        if (self.model is None) == (self.path is None):
            raise ValueError("give either `model` (`base` or a stage) or `path` (a checkpoint)")
        return self


class MergeInput(NamedModel):
    """One of the models that are merged."""

    weight: float = 1.0
    """Weight of the model. `linear` and `slerp` divide the weights by their sum."""


class MergeSearch(Settings):
    """Choose the weights of a merge by measuring several candidates."""

    weights: list[list[float]] = Field(min_length=2)
    """The candidates. Each is a list with one weight for each of the stage's `models`."""
    benchmark: BenchmarkSettings
    """The benchmark that decides. Use rows that are neither trained on nor reported, for example tasks of older commits."""
    metric: Annotated[str, Field(min_length=1)] = "pass@1"
    """The metric of the benchmark that decides. The candidate with the largest value is kept; of equal candidates, the
    first one."""
