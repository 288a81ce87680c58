"""Walks a value along its type annotation: what a setting is, however deep it is nested."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Place = tuple[str | int, ...]


def fields_of(annotation: Any) -> dict[str, Any] | None:
    """Names and types of a dataclass; None for anything else."""
    if not dataclasses.is_dataclass(annotation):
        return None
    hints = typing.get_type_hints(annotation)
    return {field.name: hints[field.name] for field in dataclasses.fields(annotation)}


def is_path(annotation: Any) -> bool:
    return annotation is Path


def nodes(annotation: Any, value: Any, place: Place = ()) -> Iterator[tuple[Place, Any, Any]]:
    """`(place, annotation, value)` of a value and of all within it; of a union, the arm that the value fits.

    What fits no arm is left out: validating it will say so.
    """
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        arms = [arm for arm in typing.get_args(annotation) if _fits(arm, value)]
        if arms:
            yield from nodes(arms[0], value, place)
        return
    yield place, annotation, value
    arguments = typing.get_args(annotation)
    if isinstance(value, list) and arguments:
        for index, item in enumerate(value):
            yield from nodes(arguments[0], item, (*place, index))
    elif isinstance(value, dict):
        fields = fields_of(annotation)
        for key, item in value.items():
            if fields is not None and key in fields:
                yield from nodes(fields[key], item, (*place, key))
            elif fields is None and len(arguments) == 2:
                yield from nodes(arguments[1], item, (*place, key))


def _fits(annotation: Any, value: Any) -> bool:
    origin = typing.get_origin(annotation)
    if isinstance(value, dict):
        return fields_of(annotation) is not None or (isinstance(origin, type) and issubclass(origin, Mapping))
    if isinstance(value, list):
        return isinstance(origin, type) and not issubclass(origin, Mapping)
    if isinstance(value, str):
        return annotation is str or annotation is Path or isinstance(annotation, typing.NewType)
    return isinstance(annotation, type) and isinstance(value, annotation)
