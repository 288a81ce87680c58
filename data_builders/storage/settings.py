"""Turn the settings of a recipe (a mapping) into the dataclass of a builder, with errors that name the mistake."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

S = TypeVar("S")


def from_mapping(kind: type[S], values: S | Mapping[str, Any] | None) -> S:
    """An instance of the dataclass `kind`. Lists become tuples; an unknown key is a ValueError."""
    if values is None:
        return kind()
    if isinstance(values, kind):
        return values
    assert dataclasses.is_dataclass(kind) and isinstance(values, Mapping)
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
            raise ValueError(f"unknown setting {key!r} in {kind.__name__}{hint}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
