"""The dataset builders that a recipe's `build` stage and `align build` can name, and what their settings may be.

A builder is a function `f(out, *, seed, ...settings)` and one line in `BUILDERS`. Its own signature is the schema of
`settings:`: annotations give types, also of what is nested (dataclasses, lists, mappings). Arguments
annotated `Path` are references: `stage/file` of an earlier stage, or a path relative to the recipe. `Location` is where
repositories are: a path, a glob, or a URL. What a function reads beyond that is named by its `inputs` function.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from alignment.recipe.annotations import Place, fields_of, is_path, nodes
from alignment.recipe.problems import Key
from alignment.recipe.schema import BuildStage
from alignment.settings import Reference
from alignment.wording import did_you_mean, shown
from data_builders.repositories.sources import Location, problem_of, resolved_location


@dataclass(frozen=True)
class Builder:
    """One builder: `module:function`, and what it leaves in its artifact."""

    function: str
    outputs: Mapping[str, str]
    """File or folder -> kind of its rows, "" for what holds none; `{form}` stands for the setting `form`."""
    inputs: str = ""
    """`module:function` that takes the settings and returns, as plain values, what the result depends on beyond them."""
    samples: bool = False
    """Whether it samples from a model, and so takes the stage's `request`."""
    check: str = ""
    """`module:function` that takes the settings as they are written and yields what can't be had together."""
    resumes: bool = False
    """Whether it goes on from what it left when it was killed; others start anew."""


DOCUMENTS = {"data": "document"}
SOURCES = "data_builders.repositories.sources:inputs"
BUILDERS: Mapping[str, Builder] = {
    "corpus": Builder("data_builders.corpus:build_corpus", DOCUMENTS, SOURCES),
    "commits": Builder("data_builders.commits:build_commits", {"data": "{form}"}, SOURCES),
    "pull_requests": Builder("data_builders.pull_requests:build_pull_requests", DOCUMENTS),
    "repo_level": Builder("data_builders.repo_level:build_repo_level", DOCUMENTS),
    "grounding": Builder("data_builders.text.build_text:build_grounding", DOCUMENTS),
    "quality": Builder("data_builders.text.build_text:build_quality", DOCUMENTS),
    "math": Builder("data_builders.text.build_text:build_math", DOCUMENTS),
    "general": Builder("data_builders.text.build_text:build_general", DOCUMENTS),
    "clean": Builder("data_builders.cleaning.clean_rows:build_clean", {"data": ""}),
    "fim": Builder("data_builders.fim:build_fim", {"data": ""}),
    "mixture": Builder("data_builders.mixture:build_mixture", DOCUMENTS, resumes=True),
    "synthetic": Builder(
        "data_builders.synthetic.quickstart:build",
        {
            "documents.jsonl": "document", "conversations.jsonl": "conversation", "long.jsonl": "conversation",
            "rl.jsonl": "task", "heldout-fim.jsonl": "infilling", "heldout-short.jsonl": "task",
            "heldout-long.jsonl": "task", "heldout-documents.jsonl": "document", "tokenizer": "",
        },
        inputs="data_builders.synthetic.quickstart:inputs",
    ),
    "tasks": Builder("data_builders.tasks.build_tasks:build_tasks", {"tasks.jsonl": "task", "account.json": ""}, SOURCES),
    "instructions": Builder(
        "data_builders.instructions.build_instructions:build_instructions",
        {"instructions.jsonl": "conversation", "account.json": ""},
        SOURCES,
    ),
    "private_benchmark": Builder(
        "data_builders.private_benchmark:build_private_benchmark",
        {"tasks.jsonl": "task", "fim.jsonl": "infilling", "fim-tasks.jsonl": "infilling", "account.json": ""},
        "data_builders.repositories.sources:inputs_with_head",
        check="data_builders.private_benchmark:check",
    ),
    "preferences": Builder(
        "data_builders.preferences:build", {"preferences.jsonl": "preference"}, samples=True,
        check="data_builders.preferences:check",
    ),
}  # fmt: skip
# Arguments that are no settings: they change where and how fast, not what, or come from the stage.
_GIVEN = ("out", "seed", "request", "workers", "sandbox", "progress", "clone_dir")


def needs_model(builder: str) -> bool:
    """Whether the builder samples from a model."""
    return builder in BUILDERS and BUILDERS[builder].samples


def _load(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


@functools.cache
def function(builder: str) -> Callable[..., dict[str, Any]]:
    """The builder's function. Its module must import quickly: no torch at import time."""
    return _load(BUILDERS[builder].function)


@functools.cache
def parameters(builder: str) -> dict[str, tuple[Any, Any]]:
    """Settings of a builder: name -> (type, default); `inspect.Parameter.empty` where there is none."""
    target = function(builder)
    hints = typing.get_type_hints(target)
    return {
        name: (hints[name], parameter.default)
        for name, parameter in inspect.signature(target).parameters.items()
        if name not in _GIVEN
    }


def outputs(stage: BuildStage) -> dict[str, str]:
    """What the stage makes: file or folder -> kind of its rows, "" where that is not known before it runs."""
    if stage.builder not in BUILDERS:
        return {}
    known = {name: str(default) for name, (_, default) in parameters(stage.builder).items()}
    known |= {name: value for name, value in stage.settings.items() if isinstance(value, str)}
    made = {name: kind.format_map(known) for name, kind in BUILDERS[stage.builder].outputs.items()}
    kinds = ("document", "conversation", "preference", "task", "infilling")
    return {name: kind if kind in kinds else "" for name, kind in made.items()}


def check_settings(stage: BuildStage) -> Iterator[tuple[Place, str]]:
    """Yield (place, message) for settings that the stage's builder would not take."""
    if stage.builder not in BUILDERS:
        hint = did_you_mean(stage.builder, BUILDERS)
        yield ("builder",), f"there is no builder {stage.builder!r}: {', '.join(BUILDERS)}.{hint}"
        return
    if stage.model is not None and not needs_model(stage.builder):
        yield ("model",), f"builder {stage.builder!r} reads no model: leave it out"
    known = parameters(stage.builder)
    for name, value in stage.settings.items():
        if name not in known:
            yield ("settings", name), f"builder {stage.builder!r} has no such setting.{did_you_mean(name, known)}"
        else:
            yield from ((("settings", name, *place), text) for place, text in _mistakes(known[name][0], value))
    for name, (_, default) in known.items():
        if default is inspect.Parameter.empty and name not in stage.settings:
            yield ("settings",), f"{name} is missing"
    if own := BUILDERS[stage.builder].check:
        yield from ((("settings",), message) for message in _load(own)(stage.settings))


def _mistakes(annotation: Any, value: Any) -> Iterator[tuple[Place, str]]:
    """What is wrong with one setting."""
    found = False
    for place, kind, item in nodes(annotation, value):
        own = list(_own_mistakes(kind, item))
        found = found or bool(own)
        yield from (((*place, *key), message) for key, message in own)
    if found:
        return
    try:
        _validated(annotation, value)
    except ValidationError as error:
        yield _in_words(error, value)
        return
    for place, number in _numbers(value):
        if not math.isfinite(number) or number < 0:
            what = "a negative number" if number < 0 else "infinity or what is no number"
            yield place, f"no builder takes {what}, not {shown(number)}"


def _own_mistakes(kind: Any, item: Any) -> Iterator[tuple[Place, str]]:
    if (names := fields_of(kind)) is not None and isinstance(item, dict):
        for key in item:
            if key not in names:
                hint = did_you_mean(str(key), names) or f" Known here: {', '.join(names)}."
                yield (key,), f"no such setting.{hint}"
        if "path" in names and names["path"] is Location and isinstance(item.get("path"), str):
            alone = list(_wrong_source(item["path"], {}))  # which is said at the path itself
            yield from () if alone else _wrong_source(item["path"], item)
    elif kind is Location and isinstance(item, str):
        yield from _wrong_source(item, {})
    elif is_path(kind) and isinstance(item, str):
        try:
            Reference.of(item)
        except ValueError as error:
            yield (), f"{error}, not {shown(item)}"


def _wrong_source(location: str, settings: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    try:
        reference = SourceReference.of(location)
    except ValueError as error:
        yield (), f"{error}, not {shown(location)}"
        return
    if message := problem_of(reference.location(), settings):
        yield (), message


def _in_words(error: ValidationError, value: Any) -> tuple[Place, str]:
    """The first of pydantic's errors that goes deepest, at a place that the settings have."""
    worst = max(error.errors(), key=lambda item: len(_place(item["loc"], value)))
    place = _place(worst["loc"], value)
    message = worst["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    given = worst.get("input", value)
    return place, f"{message}, not {shown(given)}"


def _place(location: tuple[Any, ...], value: Any) -> Place:
    """Pydantic's location without the parts that it adds for unions."""
    place: list[Key] = []
    for key in location:
        if (isinstance(value, dict) and key in value) or (
            isinstance(value, list) and isinstance(key, int) and key < len(value)
        ):
            place.append(key)
            value = value[key]
    return tuple(place)


def _numbers(value: Any, place: Place = ()) -> Iterator[tuple[Place, float]]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(item, (*place, key))


def _validated(annotation: Any, value: Any) -> Any:
    """The value as the function takes it. Strict, by way of JSON: there lists and mappings are all that YAML has."""
    adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    return adapter.validate_json(json.dumps(value, default=str), strict=True)


class SourceReference(Reference):
    """Where repositories are: a path or glob relative to the recipe, or a URL. Never an earlier stage."""

    def stage(self, names: typing.Sequence[str]) -> str | None:
        return None

    def location(self) -> str:
        """The location, made absolute."""
        return resolved_location(str(self), self.folder)


def references(stage: BuildStage) -> Iterator[tuple[Place, Reference]]:
    """The settings that are paths, as references."""
    if stage.builder not in BUILDERS:
        return
    known = parameters(stage.builder)
    for name, value in stage.settings.items():
        if name not in known:
            continue
        for place, kind, item in nodes(known[name][0], value):
            if isinstance(item, str) and (kind is Location or is_path(kind)):
                try:
                    found = SourceReference.of(item) if kind is Location else Reference.of(item)
                except ValueError:
                    continue  # `check_settings` has said so
                yield ("settings", name, *place), found


def arguments(stage: BuildStage) -> dict[str, Any]:
    """The settings of a stage whose references are absolute paths already, as the function takes them."""
    known = parameters(stage.builder)
    return {name: _validated(known[name][0], value) for name, value in stage.settings.items()}


def inputs(stage: BuildStage) -> Any:
    """What a builder reads beyond its settings (commits, the interpreter), as plain values for the fingerprint."""
    own = BUILDERS[stage.builder].inputs
    return _load(own)(**arguments(stage)) if own else None


def call(stage: BuildStage, out: Path, **given: Any) -> dict[str, Any]:
    """Run the stage's builder into `out`; `given` are arguments that are no settings, used where it takes them."""
    target = function(stage.builder)
    taken = inspect.signature(target).parameters
    extra = {name: value for name, value in given.items() if name in taken}
    return target(out=out, **arguments(stage), **extra)
