"""What a model can be exported to, by the names that recipes and the command line use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignment.export.levels import LEVELS, Level, get_level


@dataclass(frozen=True)
class Target:
    """A parsed target: `kind` is gguf."""

    text: str
    kind: str
    level: Level | None


def parse_targets(targets: Sequence[str]) -> list[Target]:
    """Targets by name; ValueError for a name that does not exist, for none and for one named twice."""
    if not targets:
        raise ValueError(f"name at least one target of {', '.join(LEVELS)}")
    parsed = [Target(text, "gguf", get_level(text.removeprefix("gguf:"))) for text in targets]
    seen: set[str] = set()
    for target in parsed:
        if (key := f"{target.kind}:{target.level}") in seen:
            raise ValueError(f"target {target.text!r} is named twice")
        seen.add(key)
    return parsed
