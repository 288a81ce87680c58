"""Translate pydantic's validation errors into recipe errors: the place, the expected value, and a hint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from alignment.recipe.problems import Key, Mistake, Place, RecipeProblem
from alignment.recipe.schema import STAGES, Recipe, Stage
from alignment.recipe.yaml_source import YamlSource
from alignment.wording import did_you_mean, short, shown

# pydantic's error type -> the value that the recipe needs, in YAML's terms
_EXPECTED = {
    "dict_type": "a mapping (`key: value`)",
    "model_type": "a mapping (`key: value`)",
    "list_type": "a list (`- item`, or `[item]`)",
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}


def problem_of(source: YamlSource, error: ErrorDetails, root: type[BaseModel] = Recipe) -> RecipeProblem:
    """Translate one of pydantic's errors into a problem with file and line.

    Args:
        source: the validated values and their positions.
        error: an item of `ValidationError.errors()`.
        root: the class that was validated.
    """
    return source.problem(*describe_error(source.value, error, root))


def describe_error(values: Any, error: ErrorDetails, root: type[BaseModel]) -> Mistake:
    """Translate one of pydantic's errors into the place of the wrong value, and a message.

    Args:
        values: the plain values that were validated.
        error: an item of `ValidationError.errors()`.
        root: the class that validated the values.
    """
    place, value = known_place(values, error["loc"])
    return place, _message(values, error, root, place, value)


def _message(values: Any, error: ErrorDetails, root: type[BaseModel], place: Place, value: Any) -> str:
    kind, actual = error["type"], error.get("input")
    if kind == "extra_forbidden":
        names = _fields_at(values, place[:-1], root)
        hint = did_you_mean(str(place[-1]), names) or f" Known here: {', '.join(sorted(names))}."
        return f"no such setting.{hint}"
    if kind == "missing":
        return f"{error['loc'][-1]} is missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _kind_message(value)
    if actual is None or (kind == "string_too_short" and not actual):
        return "is empty: give it a value, or remove it"
    if kind in _EXPECTED:
        is_name = place == ("model",) and isinstance(actual, str)
        hint = f" For a checkpoint write `model: {{path: {short(actual)}}}`." if is_name else ""
        return f"must be {_EXPECTED[kind]}, not {shown(actual)}.{hint}".rstrip(".")
    if kind == "literal_error":
        expected = error["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        hint = did_you_mean(actual, expected) if isinstance(actual, str) else ""
        return f"must be one of {', '.join(expected)}, not {shown(actual)}.{hint}".rstrip(".")
    if kind == "string_pattern_mismatch" and place[-1:] == ("name",):
        return (
            "must be 1 to 64 characters of a-z, 0-9, dot, dash and underscore, and begin with a letter or digit, "
            f"not {shown(actual)}"
        )
    if kind == "too_short" and not actual:
        return "is empty: give at least one"
    message = error["msg"].removeprefix("Value error, ")
    for theirs, ours in (
        ("Input should be", "must be"),
        ("String should have", "must have"),
        ("List should have", "must have"),
    ):
        message = message.replace(theirs, ours)
    if kind == "value_error" and (isinstance(actual, dict | list) or shown(actual) in message):
        return message  # a check of several settings together, or a message that quotes the value itself
    return f"{message}, not {shown(actual)}"


def _kind_message(stage: Any) -> str:
    """Return the message for a stage whose `kind` is missing or unknown."""
    kinds = list(STAGES)
    if not isinstance(stage, dict):
        return f"a stage is a mapping with `name` and `kind`, not {shown(stage)}"
    kind = stage.get("kind")
    if kind is None:
        return f"kind is missing: one of {', '.join(kinds)}"
    hint = did_you_mean(kind, kinds) if isinstance(kind, str) else ""
    return f"kind must be one of {', '.join(kinds)}, not {shown(kind)}.{hint}".rstrip(".")


def known_place(value: Any, location: Sequence[Key]) -> tuple[Place, Any]:
    """Remove parts of a pydantic location that are not keys in the file, such as names of union members.

    Returns:
        The place, and the value at that place. The last key of the place may be missing in the file.
    """
    place: list[Key] = []
    for position, key in enumerate(location):
        if _has(value, key):
            place.append(key)
            value = value[key]
        elif position == len(location) - 1 and isinstance(value, dict) and isinstance(key, str):
            place.append(key)
    return tuple(place), value


def _has(value: Any, key: Key) -> bool:
    if isinstance(value, dict):
        return key in value
    return isinstance(value, list) and isinstance(key, int) and key < len(value)


def _fields_at(values: Any, place: Place, root: type[BaseModel]) -> list[str]:
    """Return the names of the settings that are allowed at a place."""
    model: type[BaseModel] | None = root
    in_mapping = False
    value = values
    for key in place:
        value = value[key] if _has(value, key) else None
        if isinstance(key, int):
            if model is Stage:
                kind = value.get("kind") if isinstance(value, dict) else None
                model = STAGES.get(kind) if isinstance(kind, str) else None
        elif in_mapping:  # this key is chosen by the user; the next key is the name of a setting
            in_mapping = False
        elif model is Recipe and key == "stages":
            model = Stage
        elif model is not None and key in model.model_fields:
            annotation = model.model_fields[key].annotation
            model, in_mapping = settings_class(annotation), _is_mapping(annotation)
        else:
            model = None
    return list(model.model_fields) if model is not None and not in_mapping else []


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(get_origin(part) is dict for part in get_args(annotation))


def settings_class(annotation: Any) -> type[BaseModel] | None:
    """Return the settings class in a field's annotation, or None if the annotation contains no settings class.

    The class may be inside a union, a list or a mapping.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    parts = getattr(annotation, "__args__", ())
    return next((model for part in parts if (model := settings_class(part)) is not None), None)
