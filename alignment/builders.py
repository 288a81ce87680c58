"""The dataset builders that a recipe's `build` stage can name, and what their settings may be.

A builder is a function `f(out, *, seed, ...settings)`: its own signature is the schema of `settings:`. Arguments
annotated `Path` are references: `stage/file` of an earlier stage, or a path relative to the recipe.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from alignment.recipe import BuildStage, Reference, make_reference
from alignment.source import Key, did_you_mean, shown

# name -> module:function
BUILDERS: Mapping[str, str] = {
    "synthetic": "data_builders.synthetic.quickstart:build",
    "preferences": "alignment.stages.preferences:build",
}
# What each of them leaves in its artifact, and of what kind its rows are ("" where there are none, or of several
# kinds): a recipe that names another file, or gives rows to a stage that does not take them, is wrong before it runs.
OUTPUTS: Mapping[str, Mapping[str, str]] = {
    "synthetic": {
        "documents.jsonl": "document", "conversations.jsonl": "conversation", "long.jsonl": "conversation",
        "rl.jsonl": "task", "heldout-fim.jsonl": "infilling", "heldout-short.jsonl": "task",
        "heldout-long.jsonl": "task", "heldout-documents.jsonl": "document", "tokenizer": "",
    },
    "preferences": {"preferences.jsonl": "preference"},
}  # fmt: skip
_SAMPLING = ("preferences",)  # these read a model
_GIVEN = ("out", "seed", "request")  # arguments that the stage supplies


def needs_model(builder: str) -> bool:
    """Whether the builder samples from a model."""
    return builder in _SAMPLING


@functools.cache
def function(builder: str) -> Callable[..., dict[str, Any]]:
    """The builder's function. Its module must import quickly: no torch at import time."""
    module, _, name = BUILDERS[builder].partition(":")
    found: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
    return found


@functools.cache
def parameters(builder: str) -> dict[str, tuple[Any, bool]]:
    """Settings of a builder: name -> (type, required)."""
    target = function(builder)
    hints = typing.get_type_hints(target)
    return {
        name: (hints[name], parameter.default is inspect.Parameter.empty)
        for name, parameter in inspect.signature(target).parameters.items()
        if name not in _GIVEN
    }


def outputs(stage: BuildStage) -> Mapping[str, str]:
    """What a stage makes: file or folder -> kind of its rows, "" where that is not known before it runs."""
    return OUTPUTS.get(stage.builder, {})


def check_settings(stage: BuildStage) -> Iterator[tuple[tuple[Key, ...], str]]:
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
            continue
        if _is_path(known[name][0]):
            yield from ((("settings", name), message) for message in _bad_paths(value))
            value = _as_paths(value)
        try:
            _adapter(known[name][0]).validate_python(value, strict=True)
        except ValidationError as error:
            message = error.errors()[0]["msg"].replace("Input should be", "must be")
            yield ("settings", name), f"{message}, not {shown(stage.settings[name])}"
            continue
        if any(isinstance(number, int | float) and number < 0 for number in [value, *_items(value)]):
            yield ("settings", name), f"no builder takes a negative number, not {shown(stage.settings[name])}"
    for name, (_, required) in known.items():
        if required and name not in stage.settings:
            yield ("settings",), f"{name} is missing"


def references(stage: BuildStage) -> Iterator[tuple[tuple[Key, ...], Reference]]:
    """The settings that are paths, as references."""
    if stage.builder not in BUILDERS:
        return
    known = parameters(stage.builder)
    for name, value in stage.settings.items():
        if name in known and _is_path(known[name][0]):
            for position, item in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(item, str):
                    place: tuple[Key, ...] = ("settings", name, *((position,) if isinstance(value, list) else ()))
                    try:
                        yield place, make_reference(item)
                    except ValueError:
                        continue  # `check_settings` has said so


def arguments(stage: BuildStage) -> dict[str, Any]:
    """The settings of a stage whose references are absolute paths already, as the function takes them."""
    known = parameters(stage.builder)
    return {name: _as_paths(value) if _is_path(known[name][0]) else value for name, value in stage.settings.items()}


def inputs(stage: BuildStage) -> Any:
    """What a builder reads beyond its settings (repositories, the interpreter), as plain values for the fingerprint."""
    module = importlib.import_module(BUILDERS[stage.builder].partition(":")[0])
    own = getattr(module, "inputs", None)
    return own(**arguments(stage)) if own else None


def _is_path(annotation: Any) -> bool:
    return annotation is Path or any(_is_path(part) for part in typing.get_args(annotation))


def _bad_paths(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            try:
                make_reference(item)
            except ValueError as error:
                yield f"{error}, not {shown(item)}"


def _as_paths(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_paths(item) for item in value]
    return Path(value) if isinstance(value, str) else value


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
