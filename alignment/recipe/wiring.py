"""What the stages of a recipe read from each other, and whether it is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignment.extensions import ExtensionReference
from alignment.recipe import builders
from alignment.recipe.schema import (
    MODEL_KINDS,
    AnyStage,
    Benchmark,
    BuildStage,
    CustomStage,
    EvaluateStage,
    Recipe,
    makes_model,
)
from alignment.recipe.yaml_source import Key
from alignment.settings import Reference, Settings
from alignment.wording import did_you_mean, display

Mistake = tuple[tuple[Key, ...], str]
BASE = "base"
MODELS = (("writer", "path"), ("judge", "path"))
"""Settings of builders that name a model, not data."""


def model_before(recipe: Recipe, index: int) -> str:
    """The last stage before `index` that makes a model, or `base`."""
    for stage in reversed(recipe.stages[:index]):
        if makes_model(stage):
            return stage.name
    return BASE


def model_of(recipe: Recipe, index: int) -> str | None:
    """The stage whose model the stage at `index` starts from or reads; None where it needs none."""
    stage = recipe.stages[index]
    if isinstance(stage, BuildStage):
        return (stage.model or model_before(recipe, index)) if builders.needs_model(stage.builder) else None
    if isinstance(stage, CustomStage):
        return stage.model
    return stage.model or model_before(recipe, index)


def references(stage: AnyStage) -> Iterator[tuple[tuple[Key, ...], Reference]]:
    """Every reference in a stage's settings, with its place."""
    if isinstance(stage, BuildStage):
        yield from builders.references(stage)
    for key in type(stage).model_fields:
        yield from _references(getattr(stage, key), (key,))


def _references(value: Any, path: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], Reference]]:
    if isinstance(value, Reference):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _references(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _references(item, (*path, index))
    elif isinstance(value, Settings):
        for key in type(value).model_fields:
            yield from _references(getattr(value, key), (*path, key))


def base_references(recipe: Recipe) -> list[tuple[tuple[Key, ...], Reference]]:
    """What the base model itself reads: a tokenizer may come from a build stage."""
    found: list[tuple[tuple[Key, ...], Reference]] = []
    for key in ("path", "tokenizer"):
        reference = getattr(recipe.model, key)
        if reference is not None:
            found.append((("model", key), reference))
    return found


def benchmarks(recipe: Recipe) -> Iterator[Benchmark]:
    """All benchmarks that the recipe measures anything on."""
    yield from recipe.evaluate
    for stage in recipe.stages:
        if isinstance(stage, EvaluateStage):
            yield from stage.benchmarks


def is_hub_name(reference: Reference) -> bool:
    """`owner/name` that is no folder here: a model or dataset on the hub."""
    return (
        reference.count("/") == 1 and not reference.startswith((".", "/", "~", "-")) and not reference.endswith("/")
    ) and not reference.exists()


def first_training(recipe: Recipe) -> int:
    """Where the first training stage stands; the number of stages where there is none."""
    kinds = [stage.kind in MODEL_KINDS for stage in recipe.stages]
    return kinds.index(True) if True in kinds else len(kinds)


def check_reference(
    recipe: Recipe,
    path: tuple[Key, ...],
    reference: Reference,
    earlier: Sequence[str],
    names: Sequence[str],
    hub: bool,
    before: str = "",
) -> Iterator[Mistake]:
    if isinstance(reference, builders.SourceReference | ExtensionReference):
        return  # the builder's settings have been checked with it
    stage = reference.stage(earlier)
    if stage is not None:
        made = recipe.stage(stage)
        if isinstance(made, CustomStage):
            if ".." in Path(reference.inside()).parts:
                yield path, f"leads out of stage {stage!r}: write ./{reference} for a path"
        elif made.kind in MODEL_KINDS and tuple(path[-2:]) in MODELS:
            if reference.inside() != "model":
                yield path, f"stage {stage!r} has its model in {stage}/model: name that"
        elif not isinstance(made, BuildStage):
            what = "a model" if made.kind in MODEL_KINDS else f"no data: its kind is {made.kind}"
            yield path, f"stage {stage!r} makes {what}: name a build stage or a file"
        elif message := _missing_output(made, reference):
            yield path, message
        return
    if (later := reference.stage(names)) is not None:
        before = before or ("the model is first used" if path[0] == "model" else "this one")
        yield path, f"stage {later!r} does not come before {before}: move it up, or write ./{reference} for a path"
        return
    if hub and is_hub_name(reference):
        return
    if not reference.exists():
        folder = reference.path().parent
        near = [*earlier, *(file.name for file in folder.glob("*"))] if folder.is_dir() else list(earlier)
        hint = did_you_mean(Path(reference).name, near) or did_you_mean(str(reference).split("/")[0], earlier)
        yield path, f"there is no file or folder {display(reference.path())}, and no earlier stage of that name.{hint}"


def _missing_output(stage: BuildStage, reference: Reference) -> str:
    made = builders.outputs(stage)
    first = Path(reference.inside()).parts
    if ".." in Path(reference.inside()).parts:
        return f"leads out of stage {stage.name!r}: write ./{reference} for a path"
    if not made or (first and first[0] in made) or (not first and len(made) == 1):
        return ""
    asked = reference.inside()
    hint = did_you_mean(asked, made) if asked else ""
    wrong = f"makes no {asked!r}" if asked else "makes several files: name one"
    return f"stage {stage.name!r} {wrong}; it makes {', '.join(made)}.{hint}".rstrip(".")


def check_model(recipe: Recipe, index: int) -> Iterator[Mistake]:
    stage = recipe.stages[index]
    named = getattr(stage, "model", None)
    if named is None or named == BASE:
        return
    models = [other.name for other in recipe.stages[:index] if makes_model(other)]
    names = [other.name for other in recipe.stages]
    if named in models:
        return
    if named == stage.name or named in names[index:]:
        yield ("model",), f"stage {named!r} does not come before this one"
    elif named in names:
        yield ("model",), f"stage {named!r} makes no model"
    else:
        yield ("model",), f"there is no stage {named!r}.{did_you_mean(named, [*models, BASE])}"
