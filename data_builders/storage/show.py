"""Sample rows of a dataset and format them as text, for `align show`."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.rows import reading as row_files


@dataclass(frozen=True)
class RowFilter:
    """Conditions on the rows that are shown. A row must fulfil all of them."""

    values: Mapping[str, str] = field(default_factory=dict)
    """Column -> the value that rows must have. A value for `kind` is also compared with the column `format`."""
    contains: Mapping[str, str] = field(default_factory=dict)
    """Column -> text that the value must contain."""
    number: int | None = None
    """Number of the only row to show, counted from 1 in the order of the dataset."""

    def __str__(self) -> str:
        parts = [f"{name} {value!r}" for name, value in self.values.items()]
        parts += [f"{name} with {text!r}" for name, text in self.contains.items()]
        return ", ".join(parts + ([f"number {self.number}"] if self.number is not None else []))


def parse_conditions(conditions: Iterable[str]) -> RowFilter:
    """Parse conditions: `COLUMN=VALUE`, or `COLUMN~TEXT` for values that contain a text.

    Raises:
        ValueError: a condition has another form.
    """
    values: dict[str, str] = {}
    contains: dict[str, str] = {}
    for condition in conditions:
        match = re.fullmatch(r"(\w[\w.-]*)([=~])(.+)", condition, re.DOTALL)
        if match is None:
            raise ValueError(
                f"{condition!r} is no condition: write COLUMN=VALUE, or COLUMN~TEXT for values with this text"
            )
        (values if match[2] == "=" else contains)[match[1]] = match[3]
    return RowFilter(values, contains)


def sample_rows(
    path: str | Path, count: int = 5, seed: int = 0, wanted: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Draw rows from a dataset, without their numbers. See `sample_numbered`."""
    return [row for _, row in sample_numbered(path, count, seed, RowFilter(wanted or {}))]


def sample_numbered(
    path: str | Path, count: int = 5, seed: int = 0, wanted: RowFilter | None = None
) -> list[tuple[int, dict[str, Any]]]:
    """Draw rows uniformly from a dataset in one pass (reservoir sampling).

    Args:
        path: file or folder of the dataset.
        count: number of rows.
        seed: seed of the draw.
        wanted: conditions on the rows.

    Returns:
        At most `count` rows, in the order of the dataset, each with its number in the dataset, counted from 1.

    Raises:
        ValueError: `count` is below 1, or no row fulfils the conditions.
    """
    if count < 1:
        raise ValueError(f"the number of rows to show must be at least 1, not {count}")
    wanted = wanted or RowFilter()
    rng = random.Random(seed)
    sample: list[tuple[int, dict[str, Any]]] = []
    other_values: set[str] = set()
    matches = number = 0
    for number, row in enumerate(row_files.read(Path(path)), 1):
        if wanted.number not in (None, number) or not _matches(row, wanted, other_values):
            continue
        if len(sample) < count:
            sample.append((number, row))
        elif (place := rng.randrange(matches + 1)) < count:
            sample[place] = (number, row)
        matches += 1
        if wanted.number is not None:
            break
    if not sample and str(wanted):
        known = f"it has {', '.join(sorted(other_values)[:20])}" if other_values else f"it has {number} rows"
        raise ValueError(f"{path} has no row of {wanted}; {known}")
    return sorted(sample, key=lambda item: item[0])


def _matches(row: Mapping[str, Any], wanted: RowFilter, other_values: set[str]) -> bool:
    """Whether a row fulfils the conditions.

    If a value differs, the value of the row is added to the set `other_values`, for an error message.
    """
    for name, value in wanted.values.items():
        values = {
            str(row[key]) for key in ((name, "format") if name == "kind" else (name,)) if row.get(key) is not None
        }
        if value not in values:
            other_values.update(values)
            return False
    return all(text in _text(row.get(name)) for name, text in wanted.contains.items())


def _text(value: Any) -> str:
    """Return a value of a column as text in which a user can search. Messages and other nested values become JSON."""
    return (
        value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    )


REMOVED = "removed.jsonl"
"""Name of the file in which the builder `corpus` lists what it removed, each with the reason."""


def removed_file(dataset: Path) -> Path:
    """Return the list of what was removed from a dataset.

    Raises:
        ValueError: the dataset has no such list.
    """
    file = dataset / REMOVED if dataset.is_dir() else dataset.with_name(REMOVED)
    if not file.is_file():
        raise ValueError(
            f"{dataset} has no {REMOVED}: only the builder corpus lists what it removed. Other builders count it by reason, in "
            "the dataset's README.md or account.json"
        )
    return file


def show(rows: Sequence[Mapping[str, Any]], max_characters: int = 2000, numbers: Sequence[int] | None = None) -> str:
    """Format rows as text. Values longer than `max_characters` are shortened in the middle.

    Args:
        rows: the rows.
        max_characters: largest number of characters of a value.
        numbers: numbers of the rows, which are printed above them.
    """
    parts = []
    for index, row in enumerate(rows):
        lines = ["=" * 80 if numbers is None else f"=== row {numbers[index]} ".ljust(80, "=")]
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
