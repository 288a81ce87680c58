"""Look at rows of a dataset: what `align show` prints."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.rows import reading as row_files


def sample_rows(
    path: str | Path, count: int = 5, seed: int = 0, wanted: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """`count` rows drawn evenly from a dataset in one pass (reservoir sampling), in their order.

    `wanted` limits what is drawn from: `language`, or `kind`, which a row says in its column `kind` or `format`.
    """
    if count < 1:
        raise ValueError(f"the number of rows to show must be at least 1, not {count}")
    rng = random.Random(seed)
    kept: list[tuple[int, dict[str, Any]]] = []
    found: set[str] = set()
    number = 0
    for row in row_files.read(Path(path)):
        if not _fits(row, wanted or {}, found):
            continue
        if len(kept) < count:
            kept.append((number, row))
        elif (place := rng.randrange(number + 1)) < count:
            kept[place] = (number, row)
        number += 1
    if not kept and wanted:
        asked = ", ".join(f"{name} {value!r}" for name, value in wanted.items())
        raise ValueError(f"{path} has no row of {asked}; it has {', '.join(sorted(found)[:20]) or 'no rows'}")
    return [row for _, row in sorted(kept, key=lambda item: item[0])]


def _fits(row: Mapping[str, Any], wanted: Mapping[str, str], found: set[str]) -> bool:
    """Whether a row is one of those asked for; what it says instead goes to `found`."""
    for name, value in wanted.items():
        said = {str(row[key]) for key in ((name, "format") if name == "kind" else (name,)) if row.get(key)}
        if value not in said:
            found.update(said)
            return False
    return True


def show(rows: Sequence[Mapping[str, Any]], max_characters: int = 2000) -> str:
    """Rows as readable text, long columns cut in the middle."""
    parts = []
    for row in rows:
        lines = ["=" * 80]
        for name, value in row.items():
            lines += _column(name, value, max_characters)
        parts.append("\n".join(lines))
    return "\n".join(parts) + "\n" if parts else "no rows\n"


def _column(name: str, value: Any, limit: int) -> list[str]:
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        shown = []
        for item in value:  # messages of a conversation, or files of a repository
            head = next((str(item[key]) for key in ("role", "path") if item.get(key) is not None), "")
            text = next((str(item[key]) for key in ("content", "text") if item.get(key) is not None), str(item))
            shown.append(f"--- {name}: {head}\n{_cut(text, limit)}")
        return shown
    if isinstance(value, str) and "\n" in value:
        return [f"--- {name}\n{_cut(value, limit)}"]
    return [f"{name}: {value}"] if value is not None else []


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n[... {len(text) - limit:,} characters ...]\n{text[-(limit // 2) :]}"
