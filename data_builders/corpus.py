"""Repositories to a corpus: filtered, licensed, redacted, deduplicated, decontaminated document rows.

Files are read and cleaned in worker processes, in a fixed order; what they leave waits in one file on disk until the
duplicates are known, and is then written. Memory holds the files of one folder, and 16 bytes for each row; while the
duplicates are sought, 100 bytes for each row and 500 for each that has one.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_builders.cleaning.clean_files import (
    Batch,
    Cleaned,
    CleanSettings,
    clean_batch,
    cut_batches,
    removal_record,
    skip_reason,
)
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.cleaning.duplicates import THRESHOLD, find_duplicates
from data_builders.cleaning.filters import FilterSettings
from data_builders.cleaning.licenses import LicensePolicy, license_of
from data_builders.parsing.languages import LANGUAGES
from data_builders.repositories.sources import File, Location, Repository, Source, iterate_files, resolve
from data_builders.storage.dataset import DatasetWriter, sorted_counts
from data_builders.storage.parallel import Progress, ordered_map
from data_builders.storage.settings import from_mapping
from data_builders.storage.staging import FingerprintStore, RowStore

NOTEBOOK_FORMS = ("script", "structured")


def build_corpus(
    sources: Sequence[Location | Source],
    out: Path,
    *,
    languages: Sequence[str] = (),
    filters: FilterSettings | None = None,
    licenses: LicensePolicy | None = None,
    notebooks: Sequence[str] = NOTEBOOK_FORMS,
    redact: bool = True,
    deduplicate: bool = True,
    threshold: float = THRESHOLD,
    decontaminate: Sequence[Path] = (),
    kind: str = "code",
    clone_dir: Path | None = None,
    workers: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """The source files of repositories as clean documents: filtered, redacted, deduplicated.

    Args:
        sources: repositories (bare or not), folders, globs, URLs, or `Source`s, which also name commit, name and licence.
        languages: keep only these of the 92 languages; empty keeps all.
        filters: limits of the file filters.
        licenses: allow and deny lists of SPDX ids.
        notebooks: forms that a notebook becomes, of `script` and `structured`.
        redact: replace secrets and personal data.
        deduplicate: drop exact and near-duplicates across all sources.
        threshold: the Jaccard similarity of 5-grams from which files are duplicates.
        decontaminate: benchmark files and folders whose texts must not be in the corpus.
        kind: the rows' `kind` column.
        clone_dir: where clones of URLs stay; by default they are removed again.
        workers: processes; the output does not depend on it.
        progress: show progress on standard error; by default only on a terminal.

    Raises:
        ValueError: a source, a commit or a setting is wrong; the message says which and what to do.
    """
    settings = CleanSettings(
        filters=from_mapping(FilterSettings, filters),
        licenses=from_mapping(LicensePolicy, licenses),
        languages=frozenset(_known(languages, LANGUAGES, "language")),
        notebooks=tuple(_known(notebooks, NOTEBOOK_FORMS, "notebook form")),
        redact=redact,
        kind=kind,
        decontaminator=Decontaminator.from_paths(decontaminate) if decontaminate else None,
    )
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, not {threshold}")
    out = Path(out)
    writer = DatasetWriter(out, "document")
    with tempfile.TemporaryDirectory(prefix="clones-") as temporary:
        repositories = resolve(sources, Path(clone_dir) if clone_dir else Path(temporary))
        plan = _Plan(repositories, settings)
        with (
            RowStore(out / "rows.tmp") as store,
            FingerprintStore(out) as prints,
            (out / "removed.jsonl").open("w", encoding="utf-8") as removed_file,
        ):
            removed = _Removed(removed_file)
            redacted, escaped = _clean(plan, store, prints, removed, workers, progress)
            duplicates = find_duplicates(prints, lambda index: store[index]["text"], threshold) if deduplicate else []
            gone = {duplicate.index: duplicate for duplicate in duplicates}
            for index, row in enumerate(store):
                if index in gone:
                    of = store[gone[index].of]
                    reason = "duplicate" if gone[index].exact else "near_duplicate"
                    detail = f"{of['repository']}/{of['path']} {gone[index].similarity}"
                    removed.add(removal_record(row["repository"], row["path"], reason, len(row["text"]), detail))
                    continue
                writer.write(row)
    report = {
        "files_read": plan.files, "bytes_read": plan.bytes, "escaped_special_text": escaped,
        "sources": [f"{item.name} {item.commit or 'folder'}" for item in repositories],
        "removed": sorted_counts(removed.reasons), "removed_bytes": sorted_counts(removed.bytes),
        "redacted": sorted_counts(redacted),
        "benchmarks": dict(sorted(settings.decontaminator.sizes.items())) if settings.decontaminator else {},
    }  # fmt: skip
    used = {
        "languages": sorted(settings.languages), "filters": asdict(settings.filters),
        "licenses": asdict(settings.licenses),
        "notebooks": list(settings.notebooks), "redact": redact, "deduplicate": deduplicate, "threshold": threshold,
        "decontaminate": [Path(path).name for path in decontaminate], "kind": kind,
    }  # fmt: skip
    return writer.finish("Code corpus", used, report)


def _known(names: Sequence[str], known: Sequence[str] | frozenset[str], what: str) -> list[str]:
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} is no {what}; known: {', '.join(sorted(known))}")
    return list(names)


class _Removed:
    """Writes each removed file to `removed.jsonl` and counts reasons."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.reasons: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def add(self, item: dict[str, Any]) -> None:
        self.reasons[item["reason"]] += 1
        self.bytes[item["reason"]] += item["bytes"]
        self.stream.write(json.dumps(item, ensure_ascii=True) + "\n")


class _Plan:
    """The files of the repositories, listed one repository after another, and what they weigh."""

    def __init__(self, repositories: list[Repository], settings: CleanSettings) -> None:
        self.repositories, self.settings = repositories, settings
        self.files = self.bytes = 0

    def batches(self) -> Iterator[Batch]:
        filters = self.settings.filters
        limits = filters.max_bytes, filters.max_notebook_bytes
        for repository in self.repositories:
            license = license_of(repository, iterate_files(repository, *limits, top=True), self.settings.licenses)
            yield from cut_batches(repository, license, map(self._seen, iterate_files(repository, *limits)))

    def _seen(self, file: File) -> tuple[File, str]:
        """A file with the reason why it is not read, or ""."""
        reason = skip_reason(file, self.settings)
        if not reason:
            self.files += 1
            self.bytes += file.size
        return file, reason


def _clean(
    plan: _Plan, store: RowStore, prints: FingerprintStore, removed: _Removed, workers: int, progress: bool | None
) -> tuple[Counter[str], int]:
    redacted: Counter[str] = Counter()
    escaped = 0
    shown = Progress("corpus", 0, progress)
    results: Iterator[Cleaned] = ordered_map(clean_batch, plan.batches(), argument=plan.settings, workers=workers)
    for done in results:
        for row in done.rows:
            store.append(row)
        for item in done.removed:
            removed.add(item)
        prints.append(done.prints)
        redacted.update(done.redacted)
        escaped += done.escaped
        shown.advance(done.files, done.bytes)
    return redacted, escaped
