"""Builder `corpus`: make document rows from repositories: filter, redact, deduplicate and decontaminate source files.

Worker processes read and clean the files in a fixed order. Cleaned rows are stored in one file on disk until all
duplicates are known, and are then written to the dataset. Memory holds the file list of one folder and 16 bytes per
row. Deduplication needs 100 more bytes per row, and 500 more for each row that has a duplicate.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TextIO

from pydantic import AfterValidator, Field

from alignment.progress import Progress
from alignment.wording import did_you_mean
from data_builders.builder import BuildContext
from data_builders.cleaning.clean_files import (
    Batch,
    Cleaned,
    CleanSettings,
    clean_batch,
    cut_batches,
    removal_record,
    skip_reason,
)
from data_builders.cleaning.duplicates import THRESHOLD, Duplicate, find_duplicates
from data_builders.cleaning.filters import FilterSettings
from data_builders.cleaning.licenses import LicensePolicy, license_of
from data_builders.cleaning.redaction_settings import RedactionSettings
from data_builders.parsing.languages import LANGUAGES
from data_builders.repositories.sources import File, Repository, Sources, cloned, iterate_files
from data_builders.shared_settings import Decontaminated
from data_builders.storage.dataset import DatasetWriter, sorted_counts
from data_builders.storage.parallel import ordered_map
from data_builders.storage.staging import FingerprintStore, RowStore

NotebookForm = Literal["script", "structured"]
NOTEBOOK_FORMS: list[NotebookForm] = ["script", "structured"]


def _known_language(name: str) -> str:
    if name not in LANGUAGES:
        hint = did_you_mean(name, LANGUAGES) or f" Known: {', '.join(sorted(LANGUAGES))}"
        raise ValueError(f"{name!r} is not a known language.{hint}")
    return name


class CorpusSettings(Decontaminated):
    """Settings of the builder `corpus`."""

    sources: Sources
    """Git repositories (bare or not), folders, globs or URLs. A mapping with `path` sets options for one source."""
    languages: list[Annotated[str, AfterValidator(_known_language)]] = Field(default_factory=list)
    """Keep only files in these languages. An empty list keeps all 92 supported languages."""
    filters: FilterSettings = FilterSettings()
    """Limits that decide which files are dropped."""
    licenses: LicensePolicy = LicensePolicy()
    """Rules that decide by license which files are kept."""
    notebooks: list[NotebookForm] = Field(default_factory=lambda: list(NOTEBOOK_FORMS))
    """Forms of a notebook that become rows: `script` (only the code), `structured` (all cells in order), or both."""
    redact: bool = True
    """Replace secrets and personal data."""
    redaction: RedactionSettings = RedactionSettings()
    """What is replaced in addition to secrets."""
    deduplicate: bool = True
    """Drop exact and near-duplicates across all sources."""
    threshold: Annotated[float, Field(gt=0, le=1)] = THRESHOLD
    """Two files are duplicates if the Jaccard similarity of their word 5-grams is at least this number."""
    kind: str = "code"
    """Value of the column `kind`. Notebooks in the form `structured` always have the kind `notebook`."""


def build_corpus(settings: CorpusSettings, context: BuildContext) -> dict[str, Any]:
    """Write the source files of repositories as clean documents: filtered, redacted, deduplicated.

    Raises:
        ValueError: a source or its commit does not exist, or the output folder already holds a finished dataset.
    """
    cleaning = CleanSettings(
        filters=settings.filters,
        licenses=settings.licenses,
        languages=frozenset(settings.languages),
        notebooks=tuple(settings.notebooks),
        redact=settings.redact,
        redaction=settings.redaction,
        kind=settings.kind,
        decontaminator=settings.decontaminator(),
    )
    out = context.out
    writer = DatasetWriter(out, "document")
    with (
        cloned(settings.sources, context) as repositories,
        RowStore(out / "rows.tmp") as store,
        FingerprintStore(out) as prints,
        (out / "removed.jsonl").open("w", encoding="utf-8") as removed_file,
    ):
        files = _FileList(repositories, cleaning)
        removed = _Removed(removed_file)
        redacted, escaped = _clean(files, store, prints, removed, context)
        duplicates = (
            find_duplicates(prints, lambda index: store[index]["text"], settings.threshold)
            if settings.deduplicate
            else []
        )
        _write_unique(store, duplicates, writer, removed)
        names = [f"{repository.name} {repository.commit or 'folder'}" for repository in repositories]
    report = {
        "files_read": files.count, "bytes_read": files.bytes, "escaped_special_text": escaped, "sources": names,
        "removed": sorted_counts(removed.reasons), "removed_bytes": sorted_counts(removed.bytes),
        "redacted": sorted_counts(redacted),
        "benchmarks": dict(sorted(cleaning.decontaminator.sizes.items())) if cleaning.decontaminator else {},
    }  # fmt: skip
    used = {
        "languages": sorted(cleaning.languages), "filters": settings.filters.model_dump(),
        "licenses": settings.licenses.model_dump(), "notebooks": settings.notebooks, "redact": settings.redact,
        "redaction": settings.redaction.model_dump(),
        "deduplicate": settings.deduplicate, "threshold": settings.threshold,
        "decontaminate": settings.benchmark_names(), "kind": settings.kind,
    }  # fmt: skip
    return writer.finish("Code corpus", used, report)


class _Removed:
    """Records each removed file in `removed.jsonl`, and counts removed files and bytes by reason."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.reasons: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def add(self, record: dict[str, Any]) -> None:
        self.reasons[record["reason"]] += 1
        self.bytes[record["reason"]] += record["bytes"]
        self.stream.write(json.dumps(record, ensure_ascii=True) + "\n")


class _FileList:
    """Lists the files of all repositories in batches, and counts the files and bytes that are read."""

    def __init__(self, repositories: list[Repository], settings: CleanSettings) -> None:
        self.repositories, self.settings = repositories, settings
        self.count = self.bytes = 0

    def batches(self) -> Iterator[Batch]:
        filters = self.settings.filters
        limits = filters.max_bytes, filters.max_notebook_bytes
        for repository in self.repositories:
            license = license_of(repository, iterate_files(repository, *limits, top=True), self.settings.licenses)
            yield from cut_batches(repository, license, map(self._count, iterate_files(repository, *limits)))

    def _count(self, file: File) -> tuple[File, str]:
        """Return a file and the reason to skip the file. If the reason is "", count the file as read."""
        reason = skip_reason(file, self.settings)
        if not reason:
            self.count += 1
            self.bytes += file.size
        return file, reason


def _clean(
    files: _FileList, store: RowStore, prints: FingerprintStore, removed: _Removed, context: BuildContext
) -> tuple[Counter[str], int]:
    """Clean all files. Add the rows to `store`, and the fingerprints of the rows to `prints`.

    Returns:
        The number of redacted values by kind, and the number of rows in which the text of a special token was escaped.
    """
    redacted: Counter[str] = Counter()
    escaped = 0
    progress = Progress("corpus", unit="files", amount_unit="MB")
    batches: Iterator[Cleaned] = ordered_map(
        clean_batch, files.batches(), argument=files.settings, workers=context.workers
    )
    for batch in batches:
        for row in batch.rows:
            store.append(row)
        for record in batch.removed:
            removed.add(record)
        prints.append(batch.prints)
        redacted.update(batch.redacted)
        escaped += batch.escaped
        progress.advance(batch.files, batch.bytes / 1e6)
    return redacted, escaped


def _write_unique(store: RowStore, duplicates: list[Duplicate], writer: DatasetWriter, removed: _Removed) -> None:
    """Write all rows except duplicates to the dataset, and record the duplicates as removed."""
    by_index = {duplicate.index: duplicate for duplicate in duplicates}
    for index, row in enumerate(store):
        duplicate = by_index.get(index)
        if duplicate is None:
            writer.write(row)
            continue
        original = store[duplicate.of]
        reason = "duplicate" if duplicate.exact else "near_duplicate"
        detail = f"{original['repository']}/{original['path']} {duplicate.similarity}"
        removed.add(removal_record(row["repository"], row["path"], reason, len(row["text"]), detail))
