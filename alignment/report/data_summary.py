"""Shows what data a stage made or read, and what was removed and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from alignment.evaluation.store import read_jsonl
from alignment.report import charts
from alignment.report.components import card, grid, table
from alignment.report.elements import Element, element
from alignment.report.run_folder import StageFolder

REMOVED_FILES = {
    "removed.jsonl": "removed files",
    "contamination.jsonl": "rows removed because a benchmark contains them",
}
"""Files in which stages list what they removed, and their titles."""
MOST_ROWS = 100
"""Number of removed files or rows that are shown."""
_MOST_COUNTS = 25
_LEFT_OUT = frozenset({"settings", "sha256", "title", "rows_kind"})


def data_section(stage: StageFolder) -> Element | None:
    """Return what `artifact.json` says about the data of a stage, or None if it says nothing."""
    summary = {**_mapping(stage.content.get("summary")), **_mapping(stage.content.get("data"))}
    parts = _parts({key: value for key, value in summary.items() if key not in _LEFT_OUT})
    removed = [part for part in (_removed_rows(stage, name) for name in REMOVED_FILES) if part is not None]
    return element("div", *parts, *removed, class_="data") if parts or removed else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parts(summary: Mapping[str, Any]) -> list[Element]:
    """Return a list of single values, a box for each group of counts, and a part to unfold for each nested summary."""
    facts = {key: text for key, value in summary.items() if (text := _text(value))}
    groups = {key: value for key, value in summary.items() if isinstance(value, Mapping) and value}
    counts = {key: value for key, value in groups.items() if all(_is_count(count) for count in value.values())}
    tables = {key: value for key, value in groups.items() if _is_table(value)}
    parts = []
    if facts:
        pairs = [part for name, text in facts.items() for part in (element("dt", _title(name)), element("dd", text))]
        parts.append(element("dl", *pairs, class_="plain"))
    if counts:
        parts.append(grid(card(_title(key), _shares(value, _title(key))) for key, value in counts.items()))
    parts += [_table_of(key, value) for key, value in tables.items()]
    for key, value in groups.items():
        if key not in counts and key not in tables:
            parts.append(element("details", element("summary", _title(key)), *_parts(value), class_="nested"))
    return parts


def _shares(counts: Mapping[str, float], label: str) -> Element:
    largest = sorted(counts.items(), key=lambda item: -item[1])
    shown = {_title(name): count for name, count in largest[:_MOST_COUNTS]}
    if rest := largest[_MOST_COUNTS:]:
        shown[f"{len(rest)} others"] = sum(count for _, count in rest)
    return charts.shares(shown, label)


def _is_table(value: Mapping[str, Any]) -> bool:
    """Whether a group has several entries with counts each, for example rows and tokens of each source."""
    rows = list(value.values())
    return all(isinstance(row, Mapping) and row and all(_is_count(count) for count in row.values()) for row in rows)


def _table_of(key: str, value: Mapping[str, Mapping[str, float]]) -> Element:
    columns = list(dict.fromkeys(column for row in value.values() for column in row))
    rows = [[name, *(f"{row[column]:,}" if column in row else "" for column in columns)] for name, row in value.items()]
    heads = [_title(key).rstrip("s"), *map(_title, columns)]
    return card(_title(key), table(heads, rows, _title(key), numbers=range(1, len(columns) + 1)))


def _text(value: Any) -> str:
    """Return a single value or a list of values as text. Return an empty text for groups and missing values."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_count(value):
        return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(item, str | int | float) for item in value):
        more = f" and {len(value) - 20} more" if len(value) > 20 else ""
        return ", ".join(map(str, value[:20])) + more
    return ""


def _title(name: str) -> str:
    return name.replace("_", " ")


def _removed_rows(stage: StageFolder, name: str) -> Element | None:
    """Return the first removed files or rows as a table to unfold, or None if there are none."""
    rows = list(islice(read_jsonl(stage.folder / name), MOST_ROWS))
    if not rows:
        return None
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[str(row.get(column, ""))[:300] for column in columns] for row in rows]
    title = REMOVED_FILES[name]
    amount = f"the first {MOST_ROWS}" if len(rows) == MOST_ROWS else str(len(rows))
    listed = table([_title(column) for column in columns], cells, f"{title} of {stage.name}")
    return element("details", element("summary", f"{title} ({amount})"), listed, class_="nested")
