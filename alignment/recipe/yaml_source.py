"""Parse YAML into plain values, and keep the file and line of each value.

This module uses PyYAML's node API with the scalars of YAML 1.2, so that `1e-5` is a number and `no` is a string.
ruamel.yaml would not make the code shorter: it stops at the first duplicate key, has no positions for keys that are
merged by `<<`, and turns dates, unknown tags and keys that are lists into objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alignment.recipe.problems import Key, Place, RecipeError, RecipeProblem
from alignment.wording import Text, short, shown

# These limits are larger than any recipe needs. A few nested aliases could expand to more values.
MAX_VALUES, MAX_DEPTH = 10_000, 40
Positions = dict[Place, tuple[str, int]]


@dataclass
class YamlSource:
    """Plain values, with the file and line of each value."""

    value: Any
    positions: Positions = field(default_factory=dict)
    """File and line of each value, keyed by the value's place."""

    def problem(self, place: Sequence[Key], message: str) -> RecipeProblem:
        """Create a problem at `place`.

        The problem gets the file and line of the value at `place`. If `place` has no value, the file and line of the
        nearest enclosing value are used.
        """
        path = tuple(place)
        message = re.sub(r"\S{400,}", lambda word: short(word[0]), message)
        for length in range(len(path), -1, -1):
            if path[:length] in self.positions:
                file, line = self.positions[path[:length]]
                return RecipeProblem(file, line, dotted(self.value, path), message)
        return RecipeProblem("recipe", 0, dotted(self.value, path), message)


def dotted(value: Any, place: Iterable[Key]) -> str:
    """Format a place as `--set` takes it, for example `stages.sft.train.beta`.

    A list item is written by its name if it has one. A key with dots is quoted.
    """
    parts: list[str] = []
    for key in place:
        child = None
        if isinstance(value, dict):
            child = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            child = value[key]
        if isinstance(key, int):
            name = child.get("name") if isinstance(child, dict) else None
            parts.append(short(name if isinstance(name, str) else str(key)))
        else:
            parts.append(f'"{short(key)}"' if "." in key else short(key))
        value = child
    return ".".join(parts)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)|[0-9]+\.[0-9]*|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
    ("merge", r"^(?:<<)$", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), [*_first, ""] if _tag == "null" else list(_first)
    )


def parse(text: str, file: str, origin: Path | None = None) -> YamlSource:
    """Parse one YAML document.

    Args:
        text: the document.
        file: name of the document in error messages.
        origin: the file to which paths in the document are relative. Every string value keeps this file (see `Text`).

    Raises:
        RecipeError: the text is not valid YAML, a key is written twice, or a value has a type that recipes don't
            support.
    """
    try:
        loader = _Loader(text.removeprefix("\ufeff"))
        try:
            node = loader.get_single_node()
            conversion = _Conversion(loader, file, origin)
            source = YamlSource(None if node is None else conversion.value(node, ()), conversion.positions)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"not valid YAML: {error.problem}"
        if "'\\t'" in message:
            message = "not valid YAML: a tab; indent with spaces only"
        raise RecipeError([RecipeProblem(file, mark.line + 1 if mark else 1, "", message)]) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        message = f"not valid YAML: the character U+{code:04X} is not allowed"
        raise RecipeError([RecipeProblem(file, line, "", message)]) from None
    except RecursionError:
        raise RecipeError([RecipeProblem(file, 1, "", f"nested more than {MAX_DEPTH} deep")]) from None
    if conversion.problems:
        raise RecipeError(conversion.problems)
    return source


class _LimitError(yaml.MarkedYAMLError):
    """Error for a document that has too many values or is nested too deeply."""


class _Conversion:
    """Convert YAML nodes to plain values, and collect the position of each value and all mistakes."""

    def __init__(self, loader: _Loader, file: str, origin: Path | None):
        self.loader, self.file, self.origin = loader, file, origin
        self.positions: Positions = {}
        self.problems: list[RecipeProblem] = []
        self.count = 0
        self.open: list[yaml.Node] = []
        """The nodes that enclose the current node, starting with the outermost."""

    def problem(self, node: yaml.Node, message: str, key: str = "") -> None:
        """Record a problem at the position of a node."""
        self.problems.append(RecipeProblem(self.file, node.start_mark.line + 1, short(key), message))

    def value(self, node: yaml.Node, place: Place) -> Any:
        """Return the plain value of a node."""
        self.positions.setdefault(place, (self.file, node.start_mark.line + 1))
        self.count += 1
        if self.count > MAX_VALUES:
            raise _LimitError(problem=f"more than {MAX_VALUES} values, aliases counted", problem_mark=node.start_mark)
        if any(node is outer for outer in self.open):
            self.problem(node, "an alias that contains itself")
            return None
        if len(self.open) > MAX_DEPTH:
            raise _LimitError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, ".".join(map(str, place)))
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            self.problem(node, f"the tag {short(node.tag)!r} is not supported in a recipe")
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, place)
            return [self.value(child, (*place, index)) for index, child in enumerate(node.value)]
        finally:
            self.open.pop()

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        merged: dict[str, Any] = {}  # keys that are merged by `<<`; keys in the mapping itself win
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(key_node, "a key must be a plain word")
            elif key_node.tag == "tag:yaml.org,2002:merge":
                merged |= self._merged(value_node, place)
        direct: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = str(key_node.value)
            if key in direct:
                self.problem(key_node, "written twice: keep one", key)
            self.positions[(*place, key)] = (self.file, key_node.start_mark.line + 1)
            direct[key] = self.value(value_node, (*place, key))
        return {**merged, **direct}

    def _merged(self, node: yaml.Node, place: Place) -> dict[str, Any]:
        """Return the keys that `<<: *alias` or `<<: [*first, *second]` adds. Keys of earlier mappings win."""
        merged: dict[str, Any] = {}
        for mapping in reversed(node.value if isinstance(node, yaml.SequenceNode) else [node]):
            if isinstance(mapping, yaml.MappingNode):
                merged |= self.value(mapping, place) or {}
            else:
                self.problem(mapping, "`<<` merges mappings: give it an alias of a mapping")
        return merged

    def _scalar(self, node: yaml.ScalarNode, key: str) -> Any:
        try:
            value = self.loader.construct_object(node)
        except ValueError as error:
            kind = node.tag.rpartition(":")[2]
            self.problem(node, f"{short(node.value)} is not a valid {kind}: {short(str(error), 80)}", key)
            return None
        if isinstance(value, str):
            if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
                self.problem(node, f"{shown(value)} has a character that no setting may have", key)
            value = Text(value)
            value.origin = self.origin
        elif isinstance(value, float) and not math.isfinite(value):
            self.problem(node, f"must be a finite number, not {short(node.value)}", key)
        elif isinstance(value, int) and abs(value) >= 2**63:
            self.problem(node, f"{short(node.value)} is too large", key)
        elif value is not None and not isinstance(value, bool | int | float):
            self.problem(node, f"the tag {short(node.tag)!r} is not supported in a recipe", key)
        return value
