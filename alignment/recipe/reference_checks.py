"""Check that every reference and every `model:` of a stage names an earlier stage, or a file that exists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from alignment.extensions import ExtensionReference
from alignment.recipe import builders
from alignment.recipe.problems import Mistake, Place
from alignment.recipe.schema import BuildStage, CustomStage, MergeStage, Recipe, is_measured_kind, makes_model
from alignment.recipe.stage_graph import BASE, is_hub_name
from alignment.settings import Reference
from alignment.wording import did_you_mean, display
from data_builders.repositories.locations import Location

# Settings of builders that name a model instead of rows.
MODEL_SETTINGS = (("writer", "path"), ("judge", "path"))


def check_reference(
    recipe: Recipe,
    place: Place,
    reference: Reference,
    earlier: Sequence[str],
    *,
    hub: bool,
    before: str = "",
) -> Iterator[Mistake]:
    """Yield the mistakes in one reference.

    Args:
        recipe: the recipe that contains the reference.
        place: the place of the reference.
        reference: the reference.
        earlier: names of the stages that have run when the reference is read.
        hub: whether the reference may be a name on the Hugging Face hub.
        before: name of the step that must come after the referenced stage, for the error message.
    """
    if isinstance(reference, Location | ExtensionReference):
        return  # checked with the settings of the builder, or by `code_checks`
    origin = reference.stage(earlier)
    if origin is not None:
        if message := _wrong_output(recipe, place, reference, origin):
            yield place, message
        return
    if (later := reference.stage([stage.name for stage in recipe.stages])) is not None:
        before = before or ("the model is first used" if place[0] == "model" else "this one")
        yield place, f"stage {later!r} does not come before {before}: move it up, or write ./{reference} for a path"
        return
    if hub and is_hub_name(reference):
        return
    if not reference.exists():
        folder = reference.path().parent
        near = [*earlier, *(file.name for file in folder.glob("*"))] if folder.is_dir() else list(earlier)
        hint = did_you_mean(Path(reference).name, near) or did_you_mean(str(reference).split("/")[0], earlier)
        yield place, f"there is no file or folder {display(reference.path())}, and no earlier stage of that name.{hint}"


def _wrong_output(recipe: Recipe, place: Place, reference: Reference, origin: str) -> str:
    """Return a message if a reference to the earlier stage `origin` is wrong, else ""."""
    stage = recipe.stage(origin)
    reader = recipe.stages[place[1]] if place[0] == "stages" and isinstance(place[1], int) else None
    if isinstance(stage, CustomStage) or isinstance(reader, CustomStage):  # these may name any file of an artifact
        return _leads_out(stage.name, reference)
    if is_measured_kind(stage) and tuple(place[-2:]) in MODEL_SETTINGS:
        return "" if reference.inside() == "model" else f"stage {origin!r} has its model in {origin}/model: name that"
    if isinstance(stage, BuildStage):
        return _missing_output(stage, reference)
    output = "a model" if is_measured_kind(stage) else f"no data: its kind is {stage.kind}"
    return f"stage {origin!r} makes {output}: name a build stage or a file"


def _leads_out(stage: str, reference: Reference) -> str:
    """Return a message if a reference leads out of the folder of the stage that it names, else ""."""
    if ".." in Path(reference.inside()).parts:
        return f"leads out of stage {stage!r}: write ./{reference} for a path"
    return ""


def _missing_output(stage: BuildStage, reference: Reference) -> str:
    """Return a message if a reference names a file that the build stage does not write, else ""."""
    outputs = builders.outputs(stage)
    inside = reference.inside()
    parts = Path(inside).parts
    if message := _leads_out(stage.name, reference):
        return message
    if not outputs or (parts and parts[0] in outputs) or (not parts and len(outputs) == 1):
        return ""
    hint = did_you_mean(inside, outputs) if inside else ""
    wrong = f"makes no {inside!r}" if inside else "makes several files: name one"
    return f"stage {stage.name!r} {wrong}; it makes {', '.join(outputs)}.{hint}".rstrip(".")


def check_model(recipe: Recipe, position: int) -> Iterator[Mistake]:
    """Yield the mistakes in the `model:` of the stage at this index of `recipe.stages`."""
    stage = recipe.stages[position]
    if isinstance(stage, MergeStage):
        entries: list[tuple[Place, str | None]] = [
            (("models", index, "model"), entry.model) for index, entry in enumerate(stage.models)
        ]
        entries += [(("base", "model"), stage.base.model)] if stage.base else []
    else:
        entries = [(("model",), stage.model)]
    for place, model in entries:
        if model is not None and model != BASE and (message := _wrong_model(recipe, position, model)):
            yield place, message


def _wrong_model(recipe: Recipe, position: int, model: str) -> str:
    """Return a message if the stage at `position` cannot read the model of the stage called `model`, else ""."""
    stage = recipe.stages[position]
    models = [other.name for other in recipe.stages[:position] if makes_model(other)]
    names = [other.name for other in recipe.stages]
    if model in models:
        return ""
    if model == stage.name or model in names[position:]:
        return f"stage {model!r} does not come before this one"
    if model in names:
        return f"stage {model!r} makes no model"
    return f"there is no stage {model!r}.{did_you_mean(model, [*models, BASE])}"
