"""From files to a checked recipe: read, extended, overridden, validated, and every mistake told at once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from alignment.recipe import builders, checks, mistakes, trainer_fields
from alignment.recipe.schema import CONFIGS, Recipe
from alignment.recipe.yaml_source import Problem, RecipeError, Source, replace_at
from alignment.recipe.yaml_source import load as load_source
from alignment.recipe.yaml_source import override as override_source
from alignment.wording import Text


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load, override and check a recipe. Raises RecipeError with all mistakes."""
    source = load_source(path)
    for assignment in overrides:
        source = override_source(source, assignment)
    if isinstance(source.value, dict) and "output" not in source.value:
        beside = Text("runs")  # beside the recipe, like every path it does not say otherwise of
        beside.origin = path.resolve()
        source.value["output"] = beside
    return validate(source)


def validate(source: Source) -> Recipe:
    """Check a recipe that is already plain values. Raises RecipeError with all mistakes."""
    source, readers = _with_sources(source)
    problems: list[Problem] = []
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(source.value)
    except ValidationError as error:
        problems += [mistakes.problem_of(source, item) for item in error.errors()]
    problems += _check_trainers(source)
    if recipe is not None:
        if recipe.sources and not readers:
            problems.append(source.problem(("sources",), "no build stage reads these repositories: leave them out"))
        for location, message in checks.check(recipe):
            if location[:1] == ("stages",) and location[1:2] and location[1] in readers and location[2:4] == _SOURCES:
                location = location[3:]  # written once, at the top
            problems.append(source.problem(mistakes.known_location(source.value, location)[0], message))
    if problems:
        raise RecipeError(problems)
    assert recipe is not None
    return recipe


_SOURCES = ("settings", "sources")


def _with_sources(source: Source) -> tuple[Source, set[Any]]:
    """Give the recipe's `sources` to the build stages that name none; also the numbers of these stages."""
    value = source.value if isinstance(source.value, dict) else {}
    readers: set[Any] = set()
    stages = value.get("stages")
    if not value.get("sources") or not isinstance(stages, list):
        return source, readers
    for number, stage in enumerate(stages):
        if not isinstance(stage, dict) or stage.get("builder") not in builders.BUILDERS:
            continue
        settings = stage.get("settings") or {}
        takes = "sources" in builders.parameters(stage["builder"])
        if takes and isinstance(settings, dict) and "sources" not in settings:
            readers.add(number)
            value_with = replace_at(source.value, ("stages", number, *_SOURCES), value["sources"])
            source = Source(value_with, source.positions)
    return source, readers


def _check_trainers(source: Source) -> Iterator[Problem]:
    stages = source.value.get("stages") if isinstance(source.value, dict) else None
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        kind = stage.get("kind") if isinstance(stage, dict) else None
        if not isinstance(kind, str) or kind not in CONFIGS:
            continue
        for key, config in (("train", CONFIGS[kind]), ("peft", "LoraConfig")):
            if isinstance(stage.get(key), dict):
                for path, message in trainer_fields.check(config, stage[key]):
                    yield source.problem(("stages", index, key, *path), message)


def json_schema() -> dict[str, Any]:
    """The recipe's JSON schema, for editors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a default that is a Reference is left out, with a warning
        return Recipe.model_json_schema()
