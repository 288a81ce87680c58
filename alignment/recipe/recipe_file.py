"""Load a recipe: read its file and the files that it extends, apply overrides, and validate the result.

All mistakes are reported at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from alignment.models.trainer_classes import CONFIGS
from alignment.recipe import builders, checks, export_checks, mistakes, trainer_fields
from alignment.recipe.mistakes import known_place
from alignment.recipe.overlays import merge, override, replace_at
from alignment.recipe.problems import Mistake, Place, RecipeError, RecipeProblem
from alignment.recipe.schema import ExportStage, Recipe
from alignment.recipe.yaml_source import YamlSource, parse
from alignment.wording import Text, did_you_mean, display, short

MAX_EXTENDS = 20
_SOURCES = ("settings", "sources")


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load and check a recipe.

    Args:
        path: the recipe file.
        overrides: assignments in the form of `--set`, which are applied in order.

    Raises:
        RecipeError: the recipe has mistakes. The error lists all of them.
    """
    return validate(_overridden(path, overrides))


def locate(path: Path, overrides: Sequence[str], late: Iterable[Mistake]) -> list[RecipeProblem]:
    """Add file and line to mistakes that were found by a check after loading.

    Args:
        path: the recipe file.
        overrides: the `--set` assignments with which the recipe was loaded.
        late: the mistakes.
    """
    source, readers = _with_sources(_overridden(path, overrides))
    return [source.problem(_written_place(source.value, place, readers), message) for place, message in late]


def _written_place(value: Any, place: Place, readers: set[Any]) -> Place:
    """Return the place in the recipe file where the value at a place of the loaded recipe was written.

    `readers` are the indices of the build stages into which the recipe's `sources` were copied.
    """
    if place[:1] == ("stages",) and place[1:2] and place[1] in readers and place[2:4] == _SOURCES:
        place = place[3:]  # written once, at the top of the recipe
    return known_place(value, place)[0]


def _overridden(path: Path, overrides: Sequence[str]) -> YamlSource:
    """Return the values of a recipe file after the assignments of `--set`.

    If `output` is missing, its default is added.
    """
    source = load_source(path)
    for assignment in overrides:
        source = override(source, assignment)
    if isinstance(source.value, dict) and "output" not in source.value:
        output = Text("runs")  # relative to the recipe, like every other path
        output.origin = path.resolve()
        source.value["output"] = output
    return source


def load_source(path: Path, extending: tuple[Path, ...] = ()) -> YamlSource:
    """Read a recipe file as plain values, and merge them with the values of the files that it `extends`.

    Args:
        path: the file.
        extending: the chain of files that extend this file, starting with the recipe that is loaded.

    Raises:
        RecipeError: a file can't be read, is not a mapping, or extends itself.
    """
    path = path.resolve()
    source = _read(path)
    if "extends" not in source.value:
        return source
    extends = source.value.pop("extends")
    merged = YamlSource({})
    for parent in (extends if isinstance(extends, list) else [extends]) or [None]:
        target = _parent(path, parent, source, extending)
        merged = merge(merged, load_source(target, (*extending, path)))
    return merge(merged, source)


def _read(path: Path) -> YamlSource:
    """Read one file, without the files that it extends."""
    file = display(path)

    def error(line: int, message: str) -> RecipeError:
        return RecipeError([RecipeProblem(file, line, "", message)])

    try:
        source = parse(path.read_text(encoding="utf-8"), file, path)
    except FileNotFoundError:
        hint = did_you_mean(path.name, [other.name for other in path.parent.glob("*.y*ml")])
        raise error(0, f"this recipe does not exist.{hint}") from None
    except UnicodeDecodeError as caught:
        line = caught.object[: caught.start].count(b"\n") + 1
        raise error(line, "not UTF-8 text: save the file as UTF-8") from None
    except OSError as caught:
        raise error(0, f"cannot be read: {caught.strerror}") from None
    if not isinstance(source.value, dict):
        content = "is empty" if source.value is None else f"holds a {type(source.value).__name__.lower()}"
        raise error(1, f"a recipe is a mapping of settings (`key: value`), and this file {content}")
    return source


def _parent(path: Path, parent: Any, source: YamlSource, extending: tuple[Path, ...]) -> Path:
    """Return the file that one entry of `extends` names."""

    def error(message: str) -> RecipeError:
        return RecipeError([source.problem(("extends",), message)])

    if not isinstance(parent, str) or not parent:
        raise error("must be the path of another recipe, or a list of paths")
    target = (path.parent / parent).resolve()
    if target in (*extending, path):
        files = [*extending, path]
        circle = " -> ".join(display(file) for file in (*files[files.index(target) :], target))
        raise error(f"recipes extend each other in a circle: {circle}")
    if len(extending) >= MAX_EXTENDS:
        raise error(f"more than {MAX_EXTENDS} recipes extend each other")
    try:
        exists = target.is_file()
    except OSError:  # a name that is too long, or a folder without permission
        exists = False
    if not exists:
        folder = target.parent
        hint = did_you_mean(target.name, [other.name for other in folder.glob("*.y*ml")] if folder.is_dir() else [])
        raise error(f"there is no file {short(display(target), 200)}.{hint}")
    return target


def validate(source: YamlSource) -> Recipe:
    """Check a recipe that is given as plain values. Raise RecipeError with all mistakes."""
    source, readers = _with_sources(source)
    problems: list[RecipeProblem] = []
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(source.value)
    except ValidationError as error:
        problems += [mistakes.problem_of(source, item) for item in error.errors()]
    problems += [source.problem(place, message) for place, message in _check_trainers(source.value)]
    if recipe is not None:
        if recipe.sources and not readers:
            problems.append(source.problem(("sources",), "no build stage reads these repositories: remove them"))
        for place, message in checks.check(recipe):
            problems.append(source.problem(_written_place(source.value, place, readers), message))
    if problems:
        raise RecipeError(problems)
    assert recipe is not None
    return recipe


def _with_sources(source: YamlSource) -> tuple[YamlSource, set[Any]]:
    """Copy the recipe's `sources` into build stages that name no sources. Also return the indices of these stages."""
    value = source.value if isinstance(source.value, dict) else {}
    readers: set[Any] = set()
    stages = value.get("stages")
    if not value.get("sources") or not isinstance(stages, list):
        return source, readers
    for index, stage in enumerate(stages):
        if not isinstance(stage, dict) or stage.get("kind") != "build":
            continue
        settings = stage.get("settings") or {}
        reads_sources = builders.reads_sources(stage.get("builder"))
        if reads_sources and isinstance(settings, dict) and "sources" not in settings:
            readers.add(index)
            with_sources = replace_at(source.value, ("stages", index, *_SOURCES), value["sources"])
            source = YamlSource(with_sources, source.positions)
    return source, readers


def _check_trainers(value: Any) -> Iterator[Mistake]:
    """Check `train:` and `peft:` of every training stage against the fields of TRL's and PEFT's classes."""
    stages = value.get("stages") if isinstance(value, dict) else None
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        kind = stage.get("kind") if isinstance(stage, dict) else None
        if not isinstance(kind, str) or kind not in CONFIGS:
            continue
        for key, config in (("train", CONFIGS[kind]), ("peft", "LoraConfig")):
            if isinstance(stage.get(key), dict):
                for place, message in trainer_fields.check(config, stage[key]):
                    yield ("stages", index, key, *place), message


def validate_export(source: YamlSource) -> ExportStage:
    """Check the settings of an export stage outside of a recipe, for `align export`.

    Raise RecipeError with all mistakes.
    """
    try:
        stage = ExportStage.model_validate(source.value)
    except ValidationError as error:
        problems = [mistakes.problem_of(source, item, ExportStage) for item in error.errors()]
        raise RecipeError(problems) from None
    if problems := [source.problem(place, message) for place, message in export_checks.check_stage(stage)]:
        raise RecipeError(problems)
    return stage


def json_schema() -> dict[str, Any]:
    """Return the recipe's JSON schema, for editors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic warns that it omits defaults that are References
        schema = Recipe.model_json_schema()
    builders.add_to_schema(schema)
    return schema
