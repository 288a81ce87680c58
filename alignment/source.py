"""YAML with a memory: every value knows the file and line it came from.

On top of PyYAML's own parser: recipes may extend others, be overridden from the command line, and every mistake can
be reported where it was written. Scalars follow YAML 1.2, so `1e-5` is a number and `no` is a string.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

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


class Text(str):
    """A string of a recipe that remembers its file, so that paths can be relative to it."""

    origin: Path | None = None


@dataclass
class Source:
    """Plain values, and where each was written."""

    value: Any
    positions: dict[Location, tuple[str, int]] = field(default_factory=dict)

    def problem(self, location: Sequence[Key], message: str) -> Problem:
        """A problem at `location`, placed at the nearest enclosing value that has a position."""
        path = tuple(location)
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
        parts.append(child["name"] if named and child else str(key))
        value = child
    return ".".join(parts)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word, or nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)|[0-9]+\.[0-9]*|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        r"|\.inf|\.nan)$",
        "-+0123456789.",
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
    ("merge", r"^(?:<<)$", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), [*_first, ""] if _tag == "null" else list(_first)
    )


def parse(text: str, file: str, origin: Path | None = None) -> Source:
    """Parse one YAML document. Raises RecipeError for bad YAML and for a key written twice."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        problems: list[Problem] = []
        source = Source(None)
        if node is not None:
            source.value = _convert(loader, node, (), source.positions, file, origin, problems, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise RecipeError([Problem(file, line, "", f"not valid YAML: {error.problem}")]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError([Problem(file, 1, "", f"not valid YAML: {str(error).splitlines()[0]}")]) from None
    finally:
        loader.dispose()
    if problems:
        raise RecipeError(problems)
    return source


def _convert(
    loader: _Loader,
    node: yaml.Node,
    path: Location,
    positions: dict[Location, tuple[str, int]],
    file: str,
    origin: Path | None,
    problems: list[Problem],
    open_nodes: set[int],
) -> Any:
    positions.setdefault(path, (file, node.start_mark.line + 1))
    if id(node) in open_nodes:
        problems.append(Problem(file, node.start_mark.line + 1, "", "an alias that contains itself"))
        return None
    rest = (positions, file, origin, problems, open_nodes | {id(node)})
    if isinstance(node, yaml.MappingNode):
        own: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else ""
            if key in own and key_node.tag != "tag:yaml.org,2002:merge":
                problems.append(Problem(file, key_node.start_mark.line + 1, key, "written twice: keep one"))
            own.add(key)
        loader.flatten_mapping(node)  # `<<` comes first, so that a mapping's own keys win
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(Problem(file, line, "", "a key must be a plain word"))
                continue
            key = str(key_node.value)
            positions[(*path, key)] = (file, line)
            mapping[key] = _convert(loader, value_node, (*path, key), *rest)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_convert(loader, child, (*path, index), *rest) for index, child in enumerate(node.value)]
    value = loader.construct_object(node)
    if isinstance(value, str):
        value = Text(value)
        value.origin = origin
    return value


def load(path: Path, _chain: tuple[Path, ...] = ()) -> Source:
    """Load a recipe file with everything it `extends`, nearest last."""
    path = path.resolve()
    shown = display(path)
    if path in _chain:
        loop = " -> ".join(display(file) for file in (*_chain[_chain.index(path) :], path))
        raise RecipeError([Problem(shown, 1, "extends", f"recipes extend each other in a circle: {loop}")])
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = did_you_mean(path.name, [other.name for other in path.parent.glob("*.y*ml")])
        raise RecipeError([Problem(shown, 0, "", f"there is no such recipe.{near}")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError([Problem(shown, 0, "", f"can't be read: {error}")]) from None
    source = parse(text, shown, path)
    if not isinstance(source.value, dict):
        found = "nothing" if source.value is None else f"a {type(source.value).__name__}"
        raise RecipeError([Problem(shown, 1, "", f"a recipe is a mapping of settings, and this file holds {found}")])
    if "extends" not in source.value:
        return source
    named = source.value.pop("extends")
    parents = named if isinstance(named, list) else [named]
    merged = Source({})
    for parent in parents:
        if not isinstance(parent, str) or not parent:
            raise RecipeError([source.problem(("extends",), "names another recipe file, or a list of them")])
        target = path.parent / parent
        if not target.is_file():
            raise RecipeError([source.problem(("extends",), f"there is no file {display(target)}")])
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
    for path, position in source.items():
        if path[: len(source_at)] == source_at:
            into[(*at, *path[len(source_at) :])] = position
    return value


def override(source: Source, assignment: str) -> Source:
    """Apply one `--set a.b.c=value`; list items go by name or number, the value is YAML.

    The empty value removes nothing: it sets null. A path into a list must name an item that is there.
    """
    key, equals, text = assignment.partition("=")
    file = "--set"
    if not equals or not key.strip():
        raise RecipeError([Problem(file, 0, assignment, "write it as key.of.setting=value")])
    new = parse(text, file, Path.cwd() / "command line")
    parts: list[Key] = []
    value = source.value
    for part in key.strip().split("."):
        if isinstance(value, list):
            names = [item.get("name") for item in value if isinstance(item, dict)]
            if part in names:
                index = names.index(part)
            elif part.isdigit() and int(part) < len(value):
                index = int(part)
            else:
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


def display(path: Path) -> str:
    """A path as the user would type it: relative where it lies below the working directory."""
    resolved = path.resolve()
    return str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(resolved)
