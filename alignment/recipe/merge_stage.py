"""Settings of a stage that merges models: the models, the method, and the search for their weights."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alignment.models.merge_methods import SPARSE_METHODS, TASK_VECTOR_METHODS, MergeMethod
from alignment.recipe.stage_base import Stage
from alignment.recipe.stage_parts import BenchmarkSettings
from alignment.settings import Ref, Settings

MergeWeight = Annotated[float, Field(ge=-100, le=100)]


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

    weight: MergeWeight = 1.0
    """Weight of the model. `linear` and `slerp` divide the weights by their sum."""


class MergeSearch(Settings):
    """Choose the weights of a merge by measuring several candidates."""

    weights: list[list[MergeWeight]] = Field(min_length=2)
    """The candidates. Each is a list with one weight for each of the stage's `models`."""
    benchmark: BenchmarkSettings
    """The benchmark on which the candidates are measured. Use rows that are neither trained on nor reported, for
    example tasks of older commits."""
    metric: Annotated[str, Field(pattern=r"^[\w@+.-]+$")] = "pass@1"
    """The metric of the benchmark by which the candidates are compared. The candidate with the largest value is kept.
    If several candidates have this value, the first of them is kept."""


class MergeStage(Stage):
    """Merge the weights of several models into one, without training."""

    kind: Literal["merge"]
    method: MergeMethod = "linear"
    """`linear`: weighted mean of the weights. `slerp`: spherical interpolation of two models. `task_arithmetic`: add
    the weighted differences from a base model to that base model (arXiv 2212.04089). `ties`: as `task_arithmetic`,
    but with only the largest differences of each model, and of these only differences that agree in sign (arXiv
    2306.01708). `dare_linear` and `dare_ties`: as `task_arithmetic` and `ties`, but with a random share of the
    differences, which are enlarged to compensate for the dropped differences (arXiv 2311.03099)."""
    models: list[MergeInput] = Field(min_length=1)
    """The models to merge. Tokenizer, configuration and number format come from the first model. All models must have
    tensors of the same names and shapes."""
    base: NamedModel | None = None
    """For `task_arithmetic`, `ties` and the `dare` methods: the model from which the differences are taken. Default:
    `{model: base}`."""
    density: Annotated[float, Field(gt=0, le=1)] | None = None
    """For `ties` and the `dare` methods: share of each model's differences that is kept. Default: 0.5."""
    chat: bool | None = None
    """Whether the merged model ends its answers with `<|im_end|>`. Default: as the first model."""
    search: MergeSearch | None = None
    """Choose the weights by measuring candidates. Default: the weights in `models`."""
    evaluate: bool = True
    """Whether to measure the model on the recipe's `evaluate:` after the stage."""

    @property
    def model(self) -> str | None:
        """Name of the first model (`base` or a stage), with which gates compare the merged model.

        None if the first model is a checkpoint elsewhere.
        """
        return self.models[0].model

    @property
    def task_base(self) -> NamedModel | None:
        """The model from which differences are taken, or None for methods without differences."""
        if self.method not in TASK_VECTOR_METHODS:
            return None
        return self.base or NamedModel(model="base")

    @property
    def named_models(self) -> list[str]:
        """The names of all models of the recipe that the stage reads (`base` and names of stages), without
        repetitions.
        """
        inputs: list[NamedModel] = [*self.models, *([self.task_base] if self.task_base else [])]
        return list(dict.fromkeys(entry.model for entry in inputs if entry.model is not None))

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        if self.method not in TASK_VECTOR_METHODS and self.base is not None:
            raise ValueError(
                f"`base` has no effect on {self.method}: remove it, or use {', '.join(TASK_VECTOR_METHODS)}"
            )
        if self.method not in SPARSE_METHODS and self.density is not None:
            raise ValueError(f"`density` has no effect on {self.method}: remove it, or use {', '.join(SPARSE_METHODS)}")
        if self.method == "slerp" and len(self.models) != 2:
            raise ValueError(f"slerp merges two models, and `models` has {len(self.models)}: use linear, or name two")
        if self.method == "linear" and len(self.models) < 2:
            raise ValueError("`models` needs at least two models to average")
        candidates = self.search.weights if self.search else [[entry.weight for entry in self.models]]
        for weights in candidates:
            if len(weights) != len(self.models):
                raise ValueError(f"search.weights: {weights} has {len(weights)} weights for {len(self.models)} models")
            if self.method in ("linear", "slerp") and abs(sum(weights)) < 1e-6:
                raise ValueError(f"the weights {weights} add up to 0: {self.method} divides by their sum")
            if self.method == "slerp" and min(weights) < 0:
                raise ValueError(f"the weights {weights}: slerp interpolates, so no weight may be negative")
        return self
