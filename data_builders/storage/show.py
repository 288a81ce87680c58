"""Sample rows of a dataset and format them as text, for `align show`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.rows import reading as row_files


def sample_rows(
    path: str | Path, count: int = 5, seed: int = 0, wanted: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Draw rows uniformly from a dataset in one pass (reservoir sampling).

    Args:
        path: file or folder of the dataset.
        count: number of rows.
        seed: seed of the draw.
        wanted: maps a column to the value that drawn rows must have in this column. A value for `kind` is also compared
            with the column `format`.

    Returns:
        At most `count` rows, in the order of the dataset.

    Raises:
        ValueError: `count` is below 1, or no row has the values in `wanted`.
    """
    if count < 1:
        raise ValueError(f"the number of rows to show must be at least 1, not {count}")
    rng = random.Random(seed)
    sample: list[tuple[int, dict[str, Any]]] = []
    other_values: set[str] = set()
    number = 0
    for row in row_files.read(Path(path)):
        if not _matches(row, wanted or {}, other_values):
            continue
        if len(sample) < count:
            sample.append((number, row))
        elif (place := rng.randrange(number + 1)) < count:
            sample[place] = (number, row)
        number += 1
    if not sample and wanted:
        filters = ", ".join(f"{name} {value!r}" for name, value in wanted.items())
        raise ValueError(f"{path} has no row of {filters}; it has {', '.join(sorted(other_values)[:20]) or 'no rows'}")
    return [row for _, row in sorted(sample, key=lambda item: item[0])]


def _matches(row: Mapping[str, Any], wanted: Mapping[str, str], other_values: set[str]) -> bool:
    """Whether a row has the wanted values.

    If a value differs, the value of the row is added to the set `other_values`, for an error message.
    """
    for name, value in wanted.items():
        values = {str(row[key]) for key in ((name, "format") if name == "kind" else (name,)) if row.get(key)}
        if value not in values:
            other_values.update(values)
            return False
    return True


def show(rows: Sequence[Mapping[str, Any]], max_characters: int = 2000) -> str:
    """Format rows as text. Values longer than `max_characters` are shortened in the middle."""
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
