"""Writes help texts for settings: each field of a settings class with its type, default and docstring.

>>> print("\\n".join(describe_settings(CorpusSettings)))
  sources: list[Source], required. Repositories (bare or not), folders, globs, URLs; ...
      path: path, glob or URL, required. The path of a repository ...
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from alignment.settings import Reference

_BOUNDS = (
    (annotated_types.Ge, "ge", "at least"),
    (annotated_types.Gt, "gt", "above"),
    (annotated_types.Le, "le", "at most"),
    (annotated_types.Lt, "lt", "below"),
)


def describe_settings(settings: type[BaseModel], indent: str = "  ") -> Iterator[str]:
    """Yield one line of help for each field. The fields of nested settings follow with more indentation.

    Required fields come first. Fields that are inherited from a base class come last.

    Args:
        settings: the settings class.
        indent: spaces before each line.
    """
    fields = settings.model_fields.items()
    for name, field in sorted(
        fields, key=lambda item: (not item[1].is_required(), item[0] not in _own_fields(settings))
    ):
        default = "required" if field.is_required() else f"default {_default(field)}"
        text = " ".join((field.description or "").split())
        yield f"{indent}{name}: {type_name(field.annotation, field.metadata)}, {default}. {text}".rstrip()
        for nested in _nested_classes(field.annotation):
            yield from describe_settings(nested, f"{indent}    ")


def _own_fields(settings: type[BaseModel]) -> set[str]:
    """Return the names of the fields that the class itself declares, without inherited fields."""
    return set(inspect.get_annotations(settings))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "as below"
    return repr(str(value)) if isinstance(value, Reference) else repr(value)


def type_name(annotation: Any, metadata: typing.Sequence[Any] = ()) -> str:
    """Return the type of a field in words, with its bounds: `list[Source]`, `float above 0 and at most 1`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [item for part in arguments[1:] for item in (part.metadata if isinstance(part, FieldInfo) else [part])]
        return type_name(arguments[0], [*inner, *metadata])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(type_name, arguments))
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(type_name, arguments))}]"
    if annotation in (None, types.NoneType):
        return "None"
    if isinstance(annotation, type) and issubclass(annotation, Reference):
        return annotation.described_as
    name = getattr(annotation, "__name__", str(annotation))
    return f"{name} {_bounds(metadata, count=annotation is int)}".rstrip()


def _bounds(metadata: typing.Sequence[Any], count: bool) -> str:
    """Describe the bounds of a number: `from 0 to 1`, `above 0 and at most 1`.

    Return an empty string for a count, which is an integer with 0 as its only bound.
    """
    values = {
        words: getattr(item, attribute)
        for item in metadata
        for kind, attribute, words in _BOUNDS
        if isinstance(item, kind)
    }
    if values.keys() == {"at least", "at most"}:
        return f"from {values['at least']} to {values['at most']}"
    if count and values == {"at least": 0}:
        return ""
    return " and ".join(f"{words} {value}" for words, value in values.items())


def _nested_classes(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the settings classes in an annotation: the type itself, or types in a union, list or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _nested_classes(argument)
