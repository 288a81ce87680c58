"""Pydantic's errors in a recipe's words: where it stands in the file, what is wanted there, what was likely meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from alignment.recipe.schema import STAGES, Recipe, Stage
from alignment.recipe.yaml_source import Key, Problem, Source
from alignment.wording import did_you_mean, short, shown


def problem_of(source: Source, item: Any) -> Problem:
    """One of pydantic's errors in our words: place, what is wrong, a hint."""
    location, value = known_location(source.value, item["loc"])
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden":
        names = _fields_at(source.value, location[:-1])
        hint = did_you_mean(str(location[-1]), names)
        message = f"no such setting.{hint}" if hint else f"no such setting. Known here: {', '.join(sorted(names))}."
    elif kind == "missing":
        message = f"{item['loc'][-1]} is missing"
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        message = _kind_message(value)
    elif given is None:
        message = "is empty: give it a value, or leave it out"
    elif kind in _TYPES:
        named = location == ("model",) and isinstance(given, str)
        hint = f" For a checkpoint write `model: {{path: {short(given)}}}`." if named else ""
        message = f"must be {_TYPES[kind]}, not {shown(given)}.{hint}".rstrip(".")
    elif kind == "literal_error":
        expected = item["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        hint = did_you_mean(given, expected) if isinstance(given, str) else ""
        message = f"must be one of {', '.join(expected)}, not {shown(given)}.{hint}".rstrip(".")
    elif kind == "string_pattern_mismatch" and location[-1:] == ("name",):
        message = f"takes a-z, 0-9, dot, dash and underscore, at most 64 of them, not {shown(given)}"
    else:
        message = (
            f"{item['msg'].removeprefix('Value error, ').replace('Input should be', 'must be')}, not {shown(given)}"
        )
    return source.problem(location, message)


# pydantic's types of error -> what the recipe wants there, in the words of YAML
_TYPES = {
    "dict_type": "a mapping (`key: value`)",
    "model_type": "a mapping (`key: value`)",
    "list_type": "a list (`- item`, or `[item]`)",
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}


def _kind_message(stage: Any) -> str:
    kinds = list(STAGES)
    if not isinstance(stage, dict):
        return f"a stage is a mapping with `name` and `kind`, not {shown(stage)}"
    kind = stage.get("kind")
    if kind is None:
        return f"kind is missing: one of {', '.join(kinds)}"
    hint = did_you_mean(kind, kinds) if isinstance(kind, str) else ""
    return f"kind must be one of {', '.join(kinds)}, not {shown(kind)}.{hint}".rstrip(".")


def known_location(value: Any, location: Sequence[Key]) -> tuple[tuple[Key, ...], Any]:
    """Drop the parts that pydantic adds for unions, which are no keys of the file."""
    path: list[Key] = []
    for position, key in enumerate(location):
        child = _child(value, key)
        if child is not None:
            path.append(key)
            value = child[0]
        elif position == len(location) - 1 and isinstance(value, dict) and isinstance(key, str):
            path.append(key)
    return tuple(path), value


def _child(value: Any, key: Key) -> tuple[Any] | None:
    if isinstance(value, dict) and key in value:
        return (value[key],)
    if isinstance(value, list) and isinstance(key, int) and key < len(value):
        return (value[key],)
    return None


def _fields_at(value: Any, location: Sequence[Key]) -> list[str]:
    """The settings known at a place of the file."""
    model: type[BaseModel] | None = Recipe
    for key in location:
        child = _child(value, key)
        value = child[0] if child else None
        if isinstance(key, int):
            if model is Stage:
                kind = value.get("kind") if isinstance(value, dict) else None
                model = STAGES.get(kind) if isinstance(kind, str) else None
            continue
        if model is Recipe and key == "stages":
            model = Stage
            continue
        model = settings_class(model.model_fields[key].annotation) if model and key in model.model_fields else None
    return list(model.model_fields) if model else []


def settings_class(annotation: Any) -> type[BaseModel] | None:
    """The settings class in a field's annotation, also inside a union, a list or a mapping; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := settings_class(part))), None)
