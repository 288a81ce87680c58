"""Clean rows of any kind (documents, conversations, preferences, tasks): redact, deduplicate, decontaminate.

All training rows are cleaned by this module or by the builder `corpus`, because benchmark tasks occur in chat logs as
well as in repositories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import Field

from alignment.progress import Progress
from alignment.rows.kinds import kind_of
from alignment.rows.row_texts import IGNORED_KEYS, all_texts
from alignment.settings import Reference
from data_builders.builder import BuildContext
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.cleaning.duplicates import THRESHOLD, Fingerprint, find_duplicates, fingerprints
from data_builders.cleaning.redaction_settings import DEFAULT, RedactionSettings
from data_builders.cleaning.secrets import redact as redact_text
from data_builders.cleaning.syntax_check import fenced_code_still_parses, still_parses
from data_builders.shared_settings import Decontaminated
from data_builders.storage.dataset import (
    SCHEMAS,
    DatasetWriter,
    lineage,
    read_datasets,
    refuse_finished,
    sorted_counts,
    storable,
)
from data_builders.storage.parallel import ordered_map, row_batches
from data_builders.storage.staging import FingerprintStore, RowStore

SEPARATOR = "\n\x1e\n"
"""Text that joins all texts of a row before redaction, so that a secret gets the same replacement in all of them."""

Counts = dict[str, Counter[str]]
"""Counters of a report, keyed by name."""


def column_types(row: dict[str, Any]) -> dict[str, pa.DataType]:
    """Return the Arrow types of the columns of a row, except columns that are null."""
    return {field.name: field.type for field in pa.Table.from_pylist([row]).schema if field.type != pa.null()}


def extra_columns(kind: str, row: dict[str, Any]) -> dict[str, pa.DataType]:
    """Return the Arrow types of the columns of a row that the schema of `kind` does not have."""
    return {name: type_ for name, type_ in column_types(row).items() if name not in SCHEMAS[kind].names}


def _map_strings(value: Any, parts: list[str] | None, collected: list[str]) -> Any:
    """Copy a nested value, and append its strings to `collected`.

    If `parts` is given, its items replace the strings in the copy, in order.
    """
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


NAME_COLUMNS = ("path", "repository", "source", "name")
"""Columns that name the origin of a row. Secrets in these columns are replaced too, because a file name can contain a
token."""


def redact_row(
    row: dict[str, Any], language: str = "", settings: RedactionSettings = DEFAULT
) -> tuple[dict[str, Any] | None, Counter[str]]:
    """Replace secrets and personal data in all texts and names of a row.

    Args:
        row: a row of any kind.
        language: language of the row's text, see `secrets.redact`.
        settings: what is replaced.

    Returns:
        The new row, and the number of replaced values by kind. The row is None if code that parsed before (the column
        `text` in the row's language, or code between fences) would not parse after the replacement.
    """
    names = {
        key: redact_text(row[key], settings=settings).text for key in NAME_COLUMNS if isinstance(row.get(key), str)
    }
    row = row | names
    texts: list[str] = []
    _map_strings(row, None, texts)
    redacted = redact_text(SEPARATOR.join(texts), language, settings)
    if not redacted.counts:
        return row, redacted.counts
    parts = redacted.text.split(SEPARATOR)
    assert len(parts) == len(texts)
    changed = _map_strings(row, parts, [])
    text = row.get("text")
    intact = not (language and isinstance(text, str)) or still_parses(text, changed["text"], language)
    if not intact or not all(map(fenced_code_still_parses, texts, parts)):
        return None, Counter()
    return changed, redacted.counts


Prepare = Callable[[Any], tuple[list[dict[str, Any]], Counts]]
"""Type of a function that makes rows from an item (for example, a batch of commits) and also returns counts."""


@dataclass(frozen=True)
class _State:
    prepare: Prepare | None
    decontaminator: Decontaminator | None
    redact: bool
    redaction: RedactionSettings


@dataclass
class _CleanBatch:
    rows: list[dict[str, Any]]
    prints: list[Fingerprint]
    removed: Counter[str]
    redacted: Counter[str]
    counts: Counts


def _clean_item(state: _State, item: Any) -> _CleanBatch:
    prepared, counts = state.prepare(item) if state.prepare else (item, {})
    rows, removed, redacted = [], Counter[str](), Counter[str]()
    for row in prepared:
        if state.decontaminator and (match := state.decontaminator.check_row(row)):
            removed[f"contaminated: {match.benchmark}: {match.rule}"] += 1
            continue
        if state.redact:
            clean, replaced = redact_row(row, str(row.get("language") or ""), state.redaction)
            if clean is None:
                removed["redaction_breaks_syntax"] += 1
                continue
            row = clean
            redacted.update(replaced)
        rows.append(row)
    return _CleanBatch(rows, fingerprints(["\n".join(all_texts(row)) for row in rows]), removed, redacted, counts)


class CleanRowsSettings(Decontaminated):
    """Settings of the builder `clean`."""

    inputs: list[Reference]
    """Datasets of documents, conversations, preferences or tasks. All rows must be of the same kind."""
    redact: bool = True
    """Replace secrets and personal data."""
    redaction: RedactionSettings = RedactionSettings()
    """What is replaced in addition to secrets."""
    deduplicate: bool = True
    """Drop exact and near-duplicates."""
    threshold: Annotated[float, Field(gt=0, le=1)] = THRESHOLD
    """Two rows are duplicates if the Jaccard similarity of their word 5-grams is at least this number."""


def build_clean(settings: CleanRowsSettings, context: BuildContext) -> dict[str, Any]:
    """Remove benchmark texts, secrets and duplicates from rows of one kind."""
    inputs = [path.path() for path in settings.inputs]
    used = {"decontaminate": settings.benchmark_names(), "redact": settings.redact,
            "redaction": settings.redaction.model_dump(), "deduplicate": settings.deduplicate, "threshold": settings.threshold}  # fmt: skip
    return clean_stream(
        row_batches(read_datasets(inputs)),
        context.out,
        "Cleaned rows",
        used,
        decontaminator=settings.decontaminator(),
        redact=settings.redact,
        redaction=settings.redaction,
        deduplicate=settings.deduplicate,
        threshold=settings.threshold,
        workers=context.workers,
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
    redaction: RedactionSettings = DEFAULT,
    deduplicate: bool = True,
    threshold: float = THRESHOLD,
    workers: int = 1,
    report: dict[str, Any] | None = None,
    kind: str | None = None,
    prepare: Prepare | None = None,
) -> dict[str, Any]:
    """Clean a stream of rows of one kind and write a dataset.

    Args:
        items: lists of rows, or the inputs of `prepare`.
        out: folder of the dataset.
        title: title of the dataset card.
        settings: settings of the builder, for the dataset card.
        decontaminator: drops rows that contain benchmark texts.
        redact: whether to replace secrets and personal data.
        redaction: what is replaced in addition to secrets.
        deduplicate: whether to drop exact and near-duplicates.
        threshold: two rows are duplicates if the Jaccard similarity of their 5-grams is at least this number.
        workers: number of processes.
        report: further counts for the report. They are read at the end, so the generator `items` may fill them.
        kind: kind of the rows. With None, all rows have the kind of the first row.
        prepare: makes rows from an item in a worker process. With None, each item is a list of rows.

    Returns:
        The report of the dataset.
    """
    refuse_finished(out)
    sorted_names = ("removed", "redacted")
    counts: Counts = {name: Counter() for name in sorted_names}
    columns: dict[str, pa.DataType] = {}
    progress = Progress(title, unit="rows")
    read = 0
    with RowStore(out / "rows.tmp") as store, FingerprintStore(out) as prints:
        state = _State(prepare, decontaminator, redact, redaction)
        for batch in ordered_map(_clean_item, items, argument=state, workers=workers):
            for row in batch.rows:
                row = storable(row)
                kind = kind or kind_of(row)
                if any(value is not None for name, value in row.items() if name not in columns):
                    columns |= {name: type_ for name, type_ in column_types(row).items() if name not in columns}
                store.append(row)
            prints.append(batch.prints)
            for name, counter in ({"removed": batch.removed, "redacted": batch.redacted} | batch.counts).items():
                counts.setdefault(name, Counter()).update(counter)
            read += len(batch.rows) + batch.removed.total()
            progress.advance(len(batch.rows))
        duplicates = (
            find_duplicates(prints, lambda index: "\n".join(all_texts(store[index])), threshold) if deduplicate else []
        )
        dropped = {duplicate.index: duplicate for duplicate in duplicates}
        counts["removed"].update("duplicate" if duplicate.exact else "near_duplicate" for duplicate in duplicates)
        kind = kind or "document"
        schema = SCHEMAS[kind].names
        writer = DatasetWriter(out, kind, {name: type_ for name, type_ in columns.items() if name not in schema})
        for index, row in enumerate(store):
            if index not in dropped:
                writer.write(row)
    result: dict[str, Any] = {"rows_read": read}
    result |= {
        name: sorted_counts(counter) if name in sorted_names else dict(counter) for name, counter in counts.items()
    }
    if decontaminator:
        result["benchmarks"] = dict(sorted(decontaminator.sizes.items()))
    return writer.finish(title, settings, result | (report or {}))
