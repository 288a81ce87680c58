"""Check the settings of build stages, and find the files that build stages read and write.

In the recipe, the settings of a build stage are plain values. This module validates them with the builder's settings
class (`data_builders.builder_registry`), and reports errors at the setting's place in the recipe.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic.json_schema import models_json_schema

from alignment.extensions import ExtensionReference, name_or_extension
from alignment.recipe.code_checks import check_code
from alignment.recipe.mistakes import describe_error, known_place
from alignment.recipe.problems import Mistake, Place
from alignment.recipe.schema import BuildStage
from alignment.settings import Reference, Settings, nested_values
from data_builders.builder_registry import BUILDERS, LoadedBuilder, find_builder
from data_builders.repositories.sources import Source, location_problem, source_problem

ROW_KINDS = ("document", "conversation", "preference", "feedback", "task", "infilling")


def builder_of(stage: BuildStage) -> LoadedBuilder:
    """Return the builder of a stage.

    Raises:
        ValueError: there is no such builder, or the user's code can't be loaded.
    """
    return _find(stage.builder)


def _find(name: str) -> LoadedBuilder:
    return find_builder(name.resolved() if isinstance(name, ExtensionReference) else name)


def reads_sources(name: Any) -> bool:
    """Whether the builder that a recipe names has a setting `sources`. False if the builder can't be found."""
    try:
        builder = _find(name_or_extension(name))
    except ValueError:
        return False
    return builder.settings_class is not None and "sources" in builder.settings_class.model_fields


def needs_model(stage: BuildStage) -> bool:
    """Whether a stage reads a model.

    A stage with a built-in builder reads a model if the builder samples from a model. A stage with the user's builder
    reads a model if the stage names a model.
    """
    if isinstance(stage.builder, ExtensionReference):
        return stage.model is not None
    return stage.builder in BUILDERS and BUILDERS[stage.builder].samples


def outputs(stage: BuildStage) -> dict[str, str]:
    """Return the files and folders that a stage writes, each with the kind of its rows ("" if unknown).

    The result is empty for a user's builder, since its files are unknown before it runs.
    """
    if stage.builder not in BUILDERS:
        return {}
    builder = builder_of(stage)
    assert builder.settings_class is not None
    fields = {name: str(field.default) for name, field in builder.settings_class.model_fields.items()}
    values = fields | {name: value for name, value in stage.settings.items() if isinstance(value, str)}
    kinds = {name: kind.format_map(values) for name, kind in builder.outputs.items()}
    return {name: kind if kind in ROW_KINDS else "" for name, kind in kinds.items()}


def check_settings(stage: BuildStage) -> Iterator[Mistake]:
    """Yield (place in the stage, message) for each setting that the stage's builder would refuse."""
    if isinstance(stage.builder, ExtensionReference):
        messages = list(check_code(stage.builder, parameters=2))
        if messages:
            yield from ((("builder",), message) for message in messages)
            return
    try:
        builder = builder_of(stage)
    except ValueError as error:
        yield ("builder",), str(error)
        return
    if stage.model is not None and not needs_model(stage):
        yield ("model",), f"builder {stage.builder!r} reads no model: remove `model`"
    try:
        settings = builder.validate(stage.settings)
    except ValidationError as error:
        assert builder.settings_class is not None
        for item in error.errors():
            place, message = describe_error(stage.settings, item, builder.settings_class)
            yield ("settings", *place), message
        return
    for place, message in _check_sources(settings):
        yield ("settings", *known_place(stage.settings, place)[0]), message


def _check_sources(settings: Settings | dict[str, Any]) -> Iterator[Mistake]:
    """Yield (place, message) for sources that do not exist, do not have the given commit, or are named twice."""
    seen: set[str] = set()
    for place, value in nested_values(settings):
        if isinstance(value, Source):
            target = str(value.path.path()) if value.path.exists() else str(value.path)
            target += f" {value.commit or ''}"
            if target in seen:
                yield (
                    (*place, "path"),
                    "sources: the same repository is named twice; what one entry holds out the other trains on",
                )
            seen.add(target)
            if message := location_problem(value.path):
                yield (*place, "path"), message
            elif message := source_problem(value):
                yield place, message


def references(stage: BuildStage) -> Iterator[tuple[Place, Reference]]:
    """Yield the references to files and stages in a build stage's settings, each with the keys that lead to it.

    Yield nothing if the settings are invalid.
    """
    try:
        settings = builder_of(stage).validate(stage.settings)
    except ValueError:  # `check_settings` reports the error
        return
    for place, value in nested_values(settings):
        if isinstance(value, Reference):
            yield ("settings", *known_place(stage.settings, place)[0]), value


def inputs(stage: BuildStage) -> Any:
    """Return further inputs of a stage, as JSON values for its fingerprint.

    These are inputs on which the result depends, such as the commits of repositories, but which are neither settings
    nor references to files. None if the builder has no further inputs.
    """
    builder = builder_of(stage)
    return builder.input_state(builder.validate(stage.settings)) if builder.input_state is not None else None


def add_to_schema(schema: dict[str, Any]) -> None:
    """Add the settings of the built-in builders to the JSON schema of a recipe, so that editors can complete them.

    The schema of a build stage gets one condition for each builder: if `builder` is the name of this builder, then
    `settings` must match the builder's settings class.
    """
    classes = {name: settings for name in BUILDERS if (settings := find_builder(name).settings_class) is not None}
    references, definitions = models_json_schema(
        [(settings, "validation") for settings in dict.fromkeys(classes.values())], ref_template="#/$defs/{model}"
    )
    schema["$defs"] |= definitions["$defs"]
    build = schema["$defs"]["BuildStage"]
    build["properties"]["builder"]["anyOf"] = [{"enum": list(classes)}, {"pattern": ":"}]
    build["allOf"] = [
        {
            "if": {"properties": {"builder": {"const": name}}, "required": ["builder"]},
            "then": {"properties": {"settings": references[settings, "validation"]}},
        }
        for name, settings in classes.items()
    ]
