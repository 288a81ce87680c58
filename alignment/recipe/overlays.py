"""Merge a recipe with the recipes that it extends (`merge`), and apply `--set KEY=VALUE` (`override`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.recipe.problems import Key, Place, RecipeError, RecipeProblem
from alignment.recipe.yaml_source import Positions, YamlSource, dotted, parse
from alignment.wording import did_you_mean, short


def merge(below: YamlSource, above: YamlSource) -> YamlSource:
    """Merge two sources; values of `above` win over values of `below`.

    Mappings are merged key by key, and lists of items with names are merged by name. Other values are replaced.
    """
    merging = _Merging(below.positions, above.positions)
    value = merging.value(below.value, above.value, (), (), ())
    return YamlSource(value, merging.positions)


class _Merging:
    """Merge values, and collect the position of each value in the result."""

    def __init__(self, below: Positions, above: Positions):
        self.below, self.above = below, above
        self.positions: Positions = {}

    def value(self, below: Any, above: Any, below_at: Place, above_at: Place, at: Place) -> Any:
        """Merge the values at the places `below_at` and `above_at`. The place of the result is `at`."""
        self.positions[at] = self.above.get(above_at) or self.below.get(below_at) or ("recipe", 0)
        if isinstance(below, dict) and isinstance(above, dict):
            return self._mapping(below, above, below_at, above_at, at)
        if _has_names(below) and _has_names(above):
            return self._named_items(below, above, below_at, above_at, at)
        return self._copy(above, self.above, above_at, at)

    def _mapping(
        self, below: dict[str, Any], above: dict[str, Any], below_at: Place, above_at: Place, at: Place
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key in [*below, *(key for key in above if key not in below)]:
            if key not in above:
                result[key] = self._copy(below[key], self.below, (*below_at, key), (*at, key))
            elif key not in below:
                result[key] = self._copy(above[key], self.above, (*above_at, key), (*at, key))
            else:
                places = ((*below_at, key), (*above_at, key), (*at, key))
                result[key] = self.value(below[key], above[key], *places)
        return result

    def _named_items(
        self, below: list[Any], above: list[Any], below_at: Place, above_at: Place, at: Place
    ) -> list[dict[str, Any]]:
        """Merge lists by item name. Items of `below` keep their order; new items of `above` are appended."""
        items: list[Any] = []
        left = {item["name"]: index for index, item in enumerate(above)}
        for index, item in enumerate(below):
            here, below_here = (*at, len(items)), (*below_at, index)
            if item["name"] in left:
                over = left.pop(item["name"])
                items.append(self.value(item, above[over], below_here, (*above_at, over), here))
            else:
                items.append(self._copy(item, self.below, below_here, here))
        for index in left.values():
            items.append(self._copy(above[index], self.above, (*above_at, index), (*at, len(items))))
        return items

    def _copy(self, value: Any, positions: Positions, source: Place, target: Place) -> Any:
        """Copy the positions of a value and of all values in it. Return the value."""
        if source in positions:
            self.positions[target] = positions[source]
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, child in children:
            self._copy(child, positions, (*source, key), (*target, key))
        return value


def _has_names(items: Any) -> bool:
    return (
        isinstance(items, list)
        and bool(items)
        and all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in items)
    )


def override(source: YamlSource, assignment: str) -> YamlSource:
    """Apply one assignment `--set a.b.c=VALUE`, and return a new source.

    An item of a list is selected by its `name`, or by its index, which starts at 0. A key with dots must be quoted:
    `thresholds."llama.cpp:q8_0".context=128`. VALUE is YAML; an empty VALUE sets null. Mappings on the path that the
    recipe lacks are created.

    Raises:
        RecipeError: the assignment does not have this form, its value is not valid YAML, or its key names an item that
            the list does not have, or a setting below a single value.
    """
    parts, text = _split(assignment)
    key = assignment[: len(assignment) - len(text) - 1].strip()
    try:
        new = parse(text, "--set", Path.cwd() / "command line")
    except RecipeError as error:
        raise RecipeError([RecipeProblem("--set", 0, key, problem.message) for problem in error.problems]) from None
    place = _resolve(source.value, parts, key)
    positions = {at: position for at, position in source.positions.items() if at[: len(place)] != place}
    positions |= {(*place, *at): ("--set", 0) for at in [(), *new.positions]}
    for length in range(1, len(place)):  # mappings that the assignment creates
        positions.setdefault(place[:length], ("--set", 0))
    return YamlSource(replace_at(source.value, place, new.value), positions)


# A part of a key: bare, or in quotes. A part in quotes may contain dots and equals signs.
_PART = re.compile(r"""\s*(?:"(?P<double>[^"]+)"|'(?P<single>[^']+)'|(?P<bare>[^\s.="'][^.=]*))\s*""")


def _split(assignment: str) -> tuple[list[tuple[str, bool]], str]:
    """Split an assignment into (part of the key, whether the part was quoted) pairs and the text of the value."""
    parts: list[tuple[str, bool]] = []
    position = 0
    while match := _PART.match(assignment, position):
        bare = match["bare"]
        parts.append((bare.strip(), False) if bare else (match["double"] or match["single"], True))
        position = match.end() + 1
        separator = assignment[match.end() : position]
        if separator == "=":
            return parts, assignment[position:]
        if separator != ".":
            break
    raise RecipeError(
        [
            RecipeProblem(
                "--set", 0, short(assignment),
                "write it as key.of.setting=value, and a key with dots in quotes: compare.thresholds.\"llama.cpp:q8_0\"",
            )
        ]
    )  # fmt: skip


def _resolve(value: Any, parts: Sequence[tuple[str, bool]], key: str) -> Place:
    """Return the place of the setting that a key names. `parts` are the parts of the key, as `_split` returns them."""
    place: list[Key] = []
    remaining = list(parts)
    while remaining:
        part, quoted = remaining.pop(0)
        if isinstance(value, list):
            names = [item.get("name") for item in value if isinstance(item, dict)]
            while not quoted and part not in names and remaining:
                if not any(isinstance(name, str) and name.startswith(f"{part}.") for name in names):
                    break
                part = f"{part}.{remaining.pop(0)[0]}"  # names of items may have dots
            index = _item(value, part, key)
            place.append(index)
            value = value[index]
        else:
            if value is not None and not isinstance(value, dict):
                where = dotted(None, place)
                raise RecipeError(
                    [RecipeProblem("--set", 0, key, f"{where} is a single value and has no settings below")]
                )
            place.append(part)
            value = value.get(part) if isinstance(value, dict) else None
    return tuple(place)


def _item(items: list[Any], part: str, key: str) -> int:
    """Return the index of the list item that `part` selects, by its name or its index as text."""
    for index, item in enumerate(items):
        if isinstance(item, dict) and item.get("name") == part:
            return index
    if part.isascii() and part.isdigit() and len(part) < 6 and int(part) < len(items):
        return int(part)
    names = [item["name"] for item in items if isinstance(item, dict) and isinstance(item.get("name"), str)]
    hint = did_you_mean(part, names) or (
        f" Its items are {', '.join(names)}." if names else f" It has {len(items)} items."
    )
    raise RecipeError([RecipeProblem("--set", 0, key, f"there is no item {part!r} in this list.{hint}")])


def replace_at(value: Any, place: Sequence[Key], new: Any) -> Any:
    """Return a copy of nested plain values with `new` at `place`. Missing mappings on the path are created."""
    if not place:
        return new
    key, rest = place[0], place[1:]
    if isinstance(value, list):
        assert isinstance(key, int)
        return [replace_at(item, rest, new) if index == key else item for index, item in enumerate(value)]
    mapping = dict(value) if isinstance(value, dict) else {}
    mapping[str(key)] = replace_at(mapping.get(str(key)), rest, new)
    return mapping
