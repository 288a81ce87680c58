"""Clean rows of any kind (documents, conversations, preferences, tasks): redact, deduplicate, decontaminate.

Whatever trains a model goes through here or through `build_corpus`: a benchmark task hides in a chat log as well as in
a repository.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from alignment.rows.kinds import kind_of
from alignment.rows.row_texts import IGNORED_KEYS, all_texts
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.cleaning.duplicates import THRESHOLD, Fingerprint, find_duplicates, fingerprints
from data_builders.cleaning.secrets import redact as redact_text
from data_builders.storage.dataset import SCHEMAS, DatasetWriter, lineage, read_datasets, refuse_finished, sorted_counts
from data_builders.storage.parallel import Progress, ordered_map, row_batches
from data_builders.storage.staging import FingerprintStore, RowStore

SEPARATOR = "\n\x1e\n"
"""Joins the texts of a row while they are redacted together, so that one secret gets one replacement."""


Counts = dict[str, Counter[str]]
"""What a report counts, by name."""


def column_types(row: dict[str, Any]) -> dict[str, pa.DataType]:
    """Arrow types of the columns of a row that say something."""
    return {field.name: field.type for field in pa.Table.from_pylist([row]).schema if field.type != pa.null()}


def extra_columns(kind: str, row: dict[str, Any]) -> dict[str, pa.DataType]:
    """Columns beyond those of the kind, with their Arrow types."""
    return {name: type_ for name, type_ in column_types(row).items() if name not in SCHEMAS[kind].names}


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


NAMES = ("path", "repository", "source", "name")
"""Columns that name where a row comes from; a file's name can hold a token, too."""


def redact_row(row: dict[str, Any], language: str = "") -> tuple[dict[str, Any], Counter[str]]:
    """The row without secrets in any of its texts and names."""
    named = {key: redact_text(row[key]).text for key in NAMES if isinstance(row.get(key), str)}
    row = row | named
    texts: list[str] = []
    _map_strings(row, None, texts)
    redacted = redact_text(SEPARATOR.join(texts), language)
    if not redacted.counts:
        return row, redacted.counts
    parts = redacted.text.split(SEPARATOR)
    assert len(parts) == len(texts)
    return _map_strings(row, parts, []), redacted.counts


Prepare = Callable[[Any], tuple[list[dict[str, Any]], Counts]]
"""Makes rows of an item (a batch of other rows, a stretch of history) in a worker, and counts what it leaves out."""


@dataclass(frozen=True)
class _State:
    prepare: Prepare | None
    decontaminator: Decontaminator | None
    redact: bool


@dataclass
class _Judged:
    rows: list[dict[str, Any]]
    prints: list[Fingerprint]
    removed: Counter[str]
    redacted: Counter[str]
    counts: Counts


def _judge(state: _State, item: Any) -> _Judged:
    made, counts = state.prepare(item) if state.prepare else (item, {})
    rows, removed, redacted = [], Counter[str](), Counter[str]()
    for row in made:
        if state.decontaminator and (match := state.decontaminator.check_row(row)):
            removed[f"contaminated: {match.benchmark}: {match.rule}"] += 1
            continue
        if state.redact:
            row, found = redact_row(row, str(row.get("language") or ""))
            redacted.update(found)
        rows.append(row)
    return _Judged(rows, fingerprints(["\n".join(all_texts(row)) for row in rows]), removed, redacted, counts)


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
        row_batches(read_datasets(inputs)),
        Path(out),
        "Cleaned rows",
        used,
        decontaminator=decontaminator,
        redact=redact,
        deduplicate=deduplicate,
        threshold=threshold,
        workers=workers,
        progress=progress,
        report={"sources": lineage(inputs)},
    )


def clean_stream(
    items: Iterable[Any],
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
    prepare: Prepare | None = None,
) -> dict[str, Any]:
    """Clean rows of one kind and write them; `report` is added to the dataset's own.

    `items` are lists of rows, or whatever `prepare` makes rows of in the workers. `report` is read at the end, so that a
    generator that feeds `items` may fill it on the way.
    """
    refuse_finished(out)
    own_counts = ("removed", "redacted")
    counts: Counts = {name: Counter() for name in own_counts}
    columns: dict[str, pa.DataType] = {}
    shown = Progress(title, 0, progress)
    read = 0
    with RowStore(out / "rows.tmp") as store, FingerprintStore(out) as prints:
        state = _State(prepare, decontaminator, redact)
        for done in ordered_map(_judge, items, argument=state, workers=workers):
            for row in done.rows:
                kind = kind or kind_of(row)
                if any(value is not None for name, value in row.items() if name not in columns):
                    columns |= {name: type_ for name, type_ in column_types(row).items() if name not in columns}
                store.append(row)
            prints.append(done.prints)
            for name, found in ({"removed": done.removed, "redacted": done.redacted} | done.counts).items():
                counts.setdefault(name, Counter()).update(found)
            read += len(done.rows) + done.removed.total()
            shown.advance(len(done.rows))
        duplicates = (
            find_duplicates(prints, lambda index: "\n".join(all_texts(store[index])), threshold) if deduplicate else []
        )
        dropped = {duplicate.index: duplicate for duplicate in duplicates}
        counts["removed"].update("duplicate" if duplicate.exact else "near_duplicate" for duplicate in duplicates)
        kind = kind or "document"
        own = SCHEMAS[kind].names
        writer = DatasetWriter(out, kind, {name: type_ for name, type_ in columns.items() if name not in own})
        for index, row in enumerate(store):
            if index not in dropped:
                writer.write(row)
    result: dict[str, Any] = {"rows_read": read}
    result |= {
        name: sorted_counts(counter) if name in own_counts else dict(counter) for name, counter in counts.items()
    }
    if decontaminator:
        result["benchmarks"] = dict(sorted(decontaminator.sizes.items()))
    return writer.finish(title, settings, result | (report or {}))
