"""YAML with a memory: every value knows the file and line it came from.

On top of PyYAML's own parser: recipes may extend others, be overridden from the command line, and every mistake can
be reported where it was written. Scalars follow YAML 1.2, so `1e-5` is a number and `no` is a string.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alignment.wording import Text, did_you_mean, display, short, shown

Key = str | int
Location = tuple[Key, ...]


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands, what is wrong, and what to do."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class RecipeError(ValueError):
    """All mistakes of a recipe at once."""

    def __init__(self, problems: Sequence[Problem]):
        assert problems, "an error needs a problem"
        self.problems = sorted(set(problems), key=lambda problem: (problem.file, problem.line, problem.key))
        count = f"{len(self.problems)} mistake{'s' if len(self.problems) > 1 else ''}"
        super().__init__(f"{count} in the recipe\n" + "\n".join(f"  {problem}" for problem in self.problems))


@dataclass
class Source:
    """Plain values, and where each was written."""

    value: Any
    positions: dict[Location, tuple[str, int]] = field(default_factory=dict)

    def problem(self, location: Sequence[Key], message: str) -> Problem:
        """A problem at `location`, placed at the nearest enclosing value that has a position."""
        path = tuple(location)
        message = re.sub(r"\S{400,}", lambda word: short(word[0]), message)
        for length in range(len(path), -1, -1):
            if path[:length] in self.positions:
                file, line = self.positions[path[:length]]
                return Problem(file, line, dotted(self.value, path), message)
        return Problem("recipe", 0, dotted(self.value, path), message)


def dotted(value: Any, location: Iterable[Key]) -> str:
    """`stages.sft.train.beta`: list items go by their name where they have one."""
    parts: list[str] = []
    for key in location:
        child = None
        if isinstance(value, dict):
            child = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            child = value[key]
        named = isinstance(key, int) and isinstance(child, dict) and isinstance(child.get("name"), str)
        parts.append(short(child["name"] if named and child else str(key)))
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


# More than any recipe needs, less than what a few nested aliases can blow up to.
_MOST_VALUES, _MOST_DEPTH, _MOST_FILES = 10_000, 40, 20


def parse(text: str, file: str, origin: Path | None = None) -> Source:
    """Parse one YAML document. Raises RecipeError for bad YAML and for a key written twice."""
    try:
        loader = _Loader(text.removeprefix("\ufeff"))
        try:
            node = loader.get_single_node()
            conversion = _Conversion(loader, file, origin)
            source = Source(None if node is None else conversion.value(node, ()), conversion.positions)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"not valid YAML: {error.problem}"
        if "'\\t'" in message:
            message = "a tab: YAML indents with spaces only"
        raise RecipeError([Problem(file, mark.line + 1 if mark else 1, "", message)]) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise RecipeError([Problem(file, line, "", f"a character that YAML forbids: U+{code:04X}")]) from None
    except RecursionError:
        raise RecipeError([Problem(file, 1, "", f"nested more than {_MOST_DEPTH} deep")]) from None
    if conversion.problems:
        raise RecipeError(conversion.problems)
    return source


class _TooMuch(yaml.MarkedYAMLError):
    pass


class _Conversion:
    """From YAML's nodes to plain values, with the position of each and the mistakes on the way."""

    def __init__(self, loader: _Loader, file: str, origin: Path | None):
        self.loader, self.file, self.origin = loader, file, origin
        self.positions: dict[Location, tuple[str, int]] = {}
        self.problems: list[Problem] = []
        self.count = 0
        self.open: list[yaml.Node] = []

    def problem(self, node: yaml.Node, message: str, key: str = "") -> None:
        self.problems.append(Problem(self.file, node.start_mark.line + 1, short(key), message))

    def value(self, node: yaml.Node, path: Location) -> Any:
        self.positions.setdefault(path, (self.file, node.start_mark.line + 1))
        self.count += 1
        if self.count > _MOST_VALUES:
            raise _TooMuch(problem=f"more than {_MOST_VALUES} values, aliases counted", problem_mark=node.start_mark)
        if any(node is outer for outer in self.open):
            self.problem(node, "an alias that contains itself")
            return None
        if len(self.open) > _MOST_DEPTH:
            raise _TooMuch(problem=f"nested more than {_MOST_DEPTH} deep", problem_mark=node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, ".".join(map(str, path)))
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            self.problem(node, f"a recipe has no use for the tag {short(node.tag)!r}")
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        finally:
            self.open.pop()

    def _mapping(self, node: yaml.MappingNode, path: Location) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(key_node, "a key must be a plain word")
            elif key_node.tag == "tag:yaml.org,2002:merge":
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in reversed(sources):  # of several, the first one wins
                    if isinstance(source, yaml.MappingNode):
                        merged |= self.value(source, path) or {}
                    else:
                        self.problem(source, "`<<` merges mappings: give it an alias of one")
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = str(key_node.value)
            if key in own:
                self.problem(key_node, "written twice: keep one", key)
            self.positions[(*path, key)] = (self.file, key_node.start_mark.line + 1)
            own[key] = self.value(value_node, (*path, key))
        return {**merged, **own}

    def _scalar(self, node: yaml.ScalarNode, key: str) -> Any:
        try:
            value = self.loader.construct_object(node)
        except ValueError as error:
            self.problem(node, f"{short(node.value)} is no {node.tag.rpartition(':')[2]}: {short(str(error), 80)}", key)
            return None
        if isinstance(value, str):
            if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
                self.problem(node, f"{shown(value)} holds a character that no setting takes", key)
            value = Text(value)
            value.origin = self.origin
        elif isinstance(value, float) and not math.isfinite(value):
            self.problem(node, f"must be a finite number, not {short(node.value)}", key)
        elif isinstance(value, int) and abs(value) >= 2**63:
            self.problem(node, f"{short(node.value)} is too large a number", key)
        elif value is not None and not isinstance(value, bool | int | float):
            self.problem(node, f"a recipe has no use for the tag {short(node.tag)!r}", key)
        return value


def load(path: Path, _chain: tuple[Path, ...] = ()) -> Source:
    """Load a recipe file with everything it `extends`, nearest last."""
    path = path.resolve()
    file = display(path)
    try:
        source = parse(path.read_text(encoding="utf-8"), file, path)
    except FileNotFoundError:
        near = did_you_mean(path.name, [other.name for other in path.parent.glob("*.y*ml")])
        raise RecipeError([Problem(file, 0, "", f"there is no such recipe.{near}")]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise RecipeError([Problem(file, line, "", "not UTF-8 text: save the file as UTF-8")]) from None
    except OSError as error:
        raise RecipeError([Problem(file, 0, "", f"can't be read: {error.strerror}")]) from None
    if not isinstance(source.value, dict):
        found = "nothing" if source.value is None else f"a {type(source.value).__name__.lower()}"
        raise RecipeError([Problem(file, 1, "", f"a recipe is a mapping of settings, and this file holds {found}")])
    if "extends" not in source.value:
        return source
    named = source.value.pop("extends")
    parents = named if isinstance(named, list) else [named]
    merged = Source({})
    for parent in parents or [None]:
        if not isinstance(parent, str) or not parent:
            raise RecipeError([source.problem(("extends",), "names another recipe file, or a list of them")])
        target = (path.parent / parent).resolve()
        if target in (*_chain, path):
            circle = [*_chain, path]
            loop = " -> ".join(display(step) for step in (*circle[circle.index(target) :], target))
            raise RecipeError([source.problem(("extends",), f"recipes extend each other in a circle: {loop}")])
        if len(_chain) >= _MOST_FILES:
            raise RecipeError([source.problem(("extends",), f"more than {_MOST_FILES} recipes extend each other")])
        try:
            found_file = target.is_file()
        except OSError:  # a name too long, a folder that may not be read
            found_file = False
        if not found_file:
            folder = target.parent
            near = did_you_mean(target.name, [other.name for other in folder.glob("*.y*ml")] if folder.is_dir() else [])
            raise RecipeError([source.problem(("extends",), f"there is no file {short(display(target), 200)}.{near}")])
        merged = merge(merged, load(target, (*_chain, path)))
    return merge(merged, source)


def merge(below: Source, above: Source) -> Source:
    """`above` over `below`: mappings merge key by key, lists of named items by name, all else is replaced."""
    positions: dict[Location, tuple[str, int]] = {}
    value = _merge(below.value, above.value, (), (), (), below.positions, above.positions, positions)
    return Source(value, positions)


def _named(items: Any) -> bool:
    return (
        isinstance(items, list)
        and bool(items)
        and all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in items)
    )


_Positions = dict[Location, tuple[str, int]]


def _merge(
    below: Any,
    above: Any,
    below_at: Location,
    above_at: Location,
    at: Location,
    below_from: _Positions,
    above_from: _Positions,
    into: _Positions,
) -> Any:
    into[at] = above_from.get(above_at) or below_from.get(below_at) or ("recipe", 0)
    maps = (below_from, above_from, into)
    if isinstance(below, dict) and isinstance(above, dict):
        result: dict[str, Any] = {}
        for key in [*below, *(key for key in above if key not in below)]:
            paths = ((*below_at, key), (*above_at, key), (*at, key))
            if key not in above:
                result[key] = _copy(below[key], paths[0], paths[2], below_from, into)
            elif key not in below:
                result[key] = _copy(above[key], paths[1], paths[2], above_from, into)
            else:
                result[key] = _merge(below[key], above[key], *paths, *maps)
        return result
    if _named(below) and _named(above):
        items: list[Any] = []
        upper = {item["name"]: index for index, item in enumerate(above)}
        for index, item in enumerate(below):
            spot = (*at, len(items))
            if item["name"] in upper:
                over = upper.pop(item["name"])
                items.append(_merge(item, above[over], (*below_at, index), (*above_at, over), spot, *maps))
            else:
                items.append(_copy(item, (*below_at, index), spot, below_from, into))
        for index in upper.values():
            items.append(_copy(above[index], (*above_at, index), (*at, len(items)), above_from, into))
        return items
    return _copy(above, above_at, at, above_from, into)


def _copy(value: Any, source_at: Location, at: Location, source: _Positions, into: _Positions) -> Any:
    if source_at in source:
        into[at] = source[source_at]
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        _copy(child, (*source_at, key), (*at, key), source, into)
    return value


def override(source: Source, assignment: str) -> Source:
    """Apply one `--set a.b.c=value`; list items go by name or number, the value is YAML.

    The empty value removes nothing: it sets null. A path into a list must name an item that is there.
    """
    key, equals, text = assignment.partition("=")
    key, file = key.strip(), "--set"
    words = key.split(".")
    if not equals or not all(words):
        raise RecipeError([Problem(file, 0, short(assignment), "write it as key.of.setting=value")])
    try:
        new = parse(text, file, Path.cwd() / "command line")
    except RecipeError as error:
        raise RecipeError([Problem(file, 0, key, problem.message) for problem in error.problems]) from None
    new.positions = dict.fromkeys([(), *new.positions], (file, 0))
    parts: list[Key] = []
    value = source.value
    while words:
        part = words.pop(0)
        if isinstance(value, list):
            names = [item.get("name") for item in value if isinstance(item, dict)]
            while part not in names and any(isinstance(name, str) and name.startswith(f"{part}.") for name in names):
                if not words:
                    break
                part = f"{part}.{words.pop(0)}"  # a name may hold dots
            index = next(
                (at for at, item in enumerate(value) if isinstance(item, dict) and item.get("name") == part), -1
            )
            if index < 0 and part.isascii() and part.isdigit() and len(part) < 6 and int(part) < len(value):
                index = int(part)
            if index < 0:
                hint = did_you_mean(part, [name for name in names if isinstance(name, str)])
                raise RecipeError([Problem(file, 0, key, f"there is no item {part!r} in this list.{hint}")])
            parts.append(index)
            value = value[index]
        else:
            if value is not None and not isinstance(value, dict):
                where = ".".join(map(str, parts))
                raise RecipeError([Problem(file, 0, key, f"{where} is a single value, with nothing below it")])
            parts.append(part)
            value = value.get(part) if isinstance(value, dict) else None
    path = tuple(parts)
    positions = {at: place for at, place in source.positions.items() if at[: len(path)] != path}
    positions |= {(*path, *at): place for at, place in new.positions.items()}
    return Source(replace_at(source.value, path, new.value), positions)


def replace_at(value: Any, path: Sequence[Key], new: Any) -> Any:
    """A copy of nested plain values with `new` at `path`; mappings on the way are made where they lack."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, list):
        assert isinstance(key, int)
        return [replace_at(item, rest, new) if index == key else item for index, item in enumerate(value)]
    mapping = dict(value) if isinstance(value, dict) else {}
    mapping[str(key)] = replace_at(mapping.get(str(key)), rest, new)
    return mapping
