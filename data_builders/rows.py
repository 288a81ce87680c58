"""Clean rows of any kind (documents, conversations, preferences, tasks): redact, deduplicate, decontaminate.

Whatever trains a model goes through here or through `build_corpus`: a benchmark task hides in a chat log as well as in
a repository.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_builders.dataset import SCHEMAS, DatasetWriter, read_many
from data_builders.decontamination import IGNORED_KEYS, Decontaminator, row_text
from data_builders.duplicates import THRESHOLD, Fingerprint, find_duplicates, fingerprints
from data_builders.fim import batches
from data_builders.parallel import Progress, ordered_map
from data_builders.secrets import redact as redact_text
from data_builders.staging import RowStore

SEPARATOR = "\n\x1e\n"
"""Joins the texts of a row while they are redacted together, so that one secret gets one replacement."""


def kind_of(row: dict[str, Any]) -> str:
    """Which kind of row this is, by its columns."""
    for column, kind in (
        ("chosen", "preference"),
        ("messages", "conversation"),
        ("tests", "task"),
        ("text", "document"),
        ("files", "document"),
    ):
        if column in row:
            return kind
    raise ValueError(f"rows need a column text, messages, chosen or tests; these have {', '.join(sorted(row))}")


def document_text(row: dict[str, Any]) -> str:
    """The text of a document, or all texts of a repo-level document's files."""
    return str(row.get("text") or "") or "\n".join(str(file["text"]) for file in row.get("files") or [])


def extra_columns(kind: str, row: dict[str, Any]) -> dict[str, pa.DataType]:
    """Columns beyond those of the kind, with their Arrow types."""
    table = pa.Table.from_pylist([row])
    return {
        field.name: field.type
        for field in table.schema
        if field.name not in SCHEMAS[kind].names and field.type != pa.null()
    }


def _map_strings(value: Any, parts: list[str] | None, collected: list[str]) -> Any:
    """Collect the strings of a row in order, or (with `parts`) put changed ones in their places."""
    if isinstance(value, str):
        collected.append(value)
        return parts[len(collected) - 1] if parts is not None else value
    if isinstance(value, dict):
        return {
            key: _map_strings(inner, parts, collected) if key not in IGNORED_KEYS else inner
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_map_strings(inner, parts, collected) for inner in value]
    return value


def redact_row(row: dict[str, Any], language: str = "") -> tuple[dict[str, Any], Counter[str]]:
    """The row without secrets in any of its texts."""
    texts: list[str] = []
    _map_strings(row, None, texts)
    redacted = redact_text(SEPARATOR.join(texts), language)
    if not redacted.counts:
        return row, redacted.counts
    parts = redacted.text.split(SEPARATOR)
    assert len(parts) == len(texts)
    return _map_strings(row, parts, []), redacted.counts


State = tuple[Decontaminator | None, bool]
Judged = tuple[list[dict[str, Any]], list[Fingerprint], Counter[str], Counter[str]]


def _judge(state: State, batch: list[dict[str, Any]]) -> Judged:
    decontaminator, redact = state
    rows, removed, redacted = [], Counter[str](), Counter[str]()
    for row in batch:
        if decontaminator and (match := decontaminator.check_row(row)):
            removed[f"contaminated: {match.benchmark}: {match.rule}"] += 1
            continue
        if redact:
            row, counts = redact_row(row, str(row.get("language") or ""))
            redacted.update(counts)
        rows.append(row)
    return rows, fingerprints(["\n".join(row_text(row)) for row in rows]), removed, redacted


def _keep(state: State) -> State:
    return state


def build_clean(
    inputs: Sequence[Path],
    out: Path,
    *,
    decontaminate: Sequence[Path] = (),
    redact: bool = True,
    deduplicate: bool = True,
    threshold: float = THRESHOLD,
    workers: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Remove benchmark texts, secrets and duplicates from rows of one kind, and write the rest.

    Args:
        inputs: datasets of documents, conversations, preferences or tasks.
        decontaminate: benchmark files and folders whose texts must not be in the result.
        redact: replace secrets and personal data.
        deduplicate: drop exact and near-duplicates.
        threshold: the Jaccard similarity of 5-grams from which rows are duplicates.
    """
    decontaminator = Decontaminator.from_paths(decontaminate) if decontaminate else None
    used = {"decontaminate": [Path(path).name for path in decontaminate], "redact": redact, "deduplicate": deduplicate,
            "threshold": threshold}  # fmt: skip
    return clean_stream(
        read_many(inputs),
        Path(out),
        "Cleaned rows",
        used,
        decontaminator=decontaminator,
        redact=redact,
        deduplicate=deduplicate,
        threshold=threshold,
        workers=workers,
        progress=progress,
    )


def clean_stream(
    rows: Iterable[dict[str, Any]],
    out: Path,
    title: str,
    settings: dict[str, Any],
    *,
    decontaminator: Decontaminator | None = None,
    redact: bool = True,
    deduplicate: bool = True,
    threshold: float = THRESHOLD,
    workers: int = 1,
    progress: bool | None = None,
    report: dict[str, Any] | None = None,
    kind: str | None = None,
) -> dict[str, Any]:
    """Clean a stream of rows of one kind and write it; `report` is added to the dataset's own.

    `report` is read at the end, so that a generator that feeds `rows` may fill it on the way.
    """
    stream = iter(rows)
    first = next(stream, None)
    kind = kind or kind_of(first or {"text": ""})
    writer = DatasetWriter(out, kind, extra_columns(kind, first) if first else None)
    removed, redacted = Counter[str](), Counter[str]()
    prints: list[Fingerprint] = []
    shown = Progress(title, 0, progress)

    def every() -> Iterable[dict[str, Any]]:
        if first is not None:
            yield first
            yield from stream

    read = 0
    with RowStore(out / "rows.tmp") as store:
        cut = batches(every(), key="messages" if kind == "conversation" else "text")
        for kept, more, gone, counts in ordered_map(
            _judge, cut, initial=_keep, argument=(decontaminator, redact), workers=workers
        ):
            for row in kept:
                store.append(row)
            prints += more
            removed.update(gone)
            redacted.update(counts)
            read += len(kept) + sum(gone.values())
            shown.advance(len(kept))
        duplicates = (
            find_duplicates(prints, lambda index: "\n".join(row_text(store[index])), threshold) if deduplicate else []
        )
        dropped = {duplicate.index: duplicate for duplicate in duplicates}
        removed.update("duplicate" if duplicate.exact else "near_duplicate" for duplicate in duplicates)
        for index, row in enumerate(store):
            if index not in dropped:
                writer.write(row)
    result = {"rows_read": read, "removed": dict(sorted(removed.items())), "redacted": dict(sorted(redacted.items()))}
    if decontaminator:
        result["benchmarks"] = dict(sorted(decontaminator.sizes.items()))
    return writer.finish(title, settings, result | (report or {}))
