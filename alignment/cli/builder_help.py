"""`align build BUILDER --settings`: every setting of a builder, also those inside of others, with type, default and meaning."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from alignment.recipe import builders
from alignment.wording import did_you_mean


def described(builder: str) -> Iterator[str]:
    """A line for each setting; what a setting is made of stands indented below it.

    Raises `ValueError` for a builder that does not exist.
    """
    if builder not in builders.BUILDERS:
        raise ValueError(f"there is no builder {builder!r}.{did_you_mean(builder, builders.BUILDERS)}")
    function = builders.function(builder)
    text = inspect.getdoc(function) or ""
    said = dict(re.findall(r"^    (\w+): (.+(?:\n        .+)*)", text, re.MULTILINE))
    yield first_paragraph(function)
    for name, (annotation, default) in builders.parameters(builder).items():
        yield from _lines(name, annotation, default, said.get(name, ""), "  ")


def first_paragraph(function: Any) -> str:
    """The first paragraph of its docstring, on one line."""
    return " ".join((inspect.getdoc(function) or "").split("\n\n", 1)[0].split())


def _lines(name: str, annotation: Any, default: Any, meaning: str, indent: str) -> Iterator[str]:
    required = default is inspect.Parameter.empty or default is dataclasses.MISSING
    shown = "required" if required else f"default {_plain(default)}"
    yield f"{indent}{name}: {_type(annotation)}, {shown}. {' '.join(meaning.split())}".rstrip()
    for kind in _dataclasses(annotation):
        hints, meanings = typing.get_type_hints(kind), _meanings(kind)
        for field in dataclasses.fields(kind):
            if not field.init:
                continue
            made = field.default_factory
            start = field.default if made is dataclasses.MISSING else made()
            yield from _lines(field.name, hints[field.name], start, meanings.get(field.name, ""), f"{indent}    ")


def _type(annotation: Any) -> str:
    """Without the modules' names: `Sequence[Source]`, `Path | None`."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    if isinstance(annotation, typing.NewType):
        return str(annotation.__name__)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(annotation))


def _plain(default: Any) -> str:
    return "as below" if dataclasses.is_dataclass(default) else repr(default)


def _dataclasses(annotation: Any) -> Iterator[type]:
    """Those that the annotation is made of: itself, the arms of a union, the items of a list."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _dataclasses(argument)


def _meanings(kind: type) -> dict[str, str]:
    """What the string below each field says."""
    (declared,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(declared, ast.ClassDef)
    found = {}
    for field, after in zip(declared.body, declared.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            found[field.target.id] = after.value.value
    return found
