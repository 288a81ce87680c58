"""Clean the files of a repository: read, decode, detect the language, filter, check the license, redact, decontaminate.

The functions run in worker processes on batches of files. The result for a file depends only on the file and the
settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from alignment.models.formats import contains_special_text, escape_special_text
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.cleaning.duplicates import Fingerprint, fingerprints
from data_builders.cleaning.filters import FilterSettings, drop_by_path, drop_by_text
from data_builders.cleaning.licenses import LicensePolicy, file_license
from data_builders.cleaning.redaction_settings import DEFAULT, RedactionSettings
from data_builders.cleaning.secrets import redact
from data_builders.cleaning.syntax_check import still_parses
from data_builders.parsing.languages import detect
from data_builders.parsing.notebooks import convert
from data_builders.repositories.sources import LFS_POINTER, File, Reader, Repository
from data_builders.repositories.text_decoding import decode, printable_path

BATCH_BYTES = 2_000_000
BATCH_FILES = 256
BATCH_SKIPPED = 4096
"""Maximum number of skipped files in a batch. A batch also ends when it has `BATCH_BYTES` bytes of files or
`BATCH_FILES` files."""


@dataclass(frozen=True)
class CleanSettings:
    """Settings for cleaning files, derived from `corpus.CorpusSettings`."""

    filters: FilterSettings
    licenses: LicensePolicy
    languages: frozenset[str]
    notebooks: tuple[str, ...]
    redact: bool
    redaction: RedactionSettings
    kind: str
    decontaminator: Decontaminator | None


@dataclass(frozen=True)
class Batch:
    """A batch of files of one repository."""

    repository: Repository
    license: str
    """License of the repository, as an SPDX expression."""
    files: list[File]
    size: int
    """Total size of the files in bytes."""
    skipped: list[dict[str, Any]] = field(default_factory=list)
    """Records of files that are not read, see `removal_record`."""


@dataclass
class Cleaned:
    """The result of cleaning one batch of files."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    prints: list[Fingerprint] = field(default_factory=list)
    """Fingerprint of each row, for finding duplicates."""
    removed: list[dict[str, Any]] = field(default_factory=list)
    """Records of removed files, see `removal_record`."""
    redacted: Counter[str] = field(default_factory=Counter)
    """Number of replaced secrets and personal data, by kind."""
    escaped: int = 0
    """Number of rows in which text that looks like special tokens was escaped."""
    files: int = 0
    """Number of files that were read."""
    bytes: int = 0
    """Total size in bytes of the files that were read."""


def cut_batches(repository: Repository, license: str, files: Iterable[tuple[File, str]]) -> Iterator[Batch]:
    """Cut the files of a repository into batches. The batches do not depend on the number of workers.

    Args:
        repository: the repository.
        license: license of the repository, as an SPDX expression.
        files: files of the repository, each with the reason to skip the file ("" if the file is read).
    """
    batch: list[File] = []
    skipped: list[dict[str, Any]] = []
    size = 0
    for file, reason in files:
        if reason:
            skipped.append(removal_record(repository.name, file.path, reason, file.size))
        else:
            batch.append(file)
            size += file.size
        if size >= BATCH_BYTES or len(batch) >= BATCH_FILES or len(skipped) >= BATCH_SKIPPED:
            yield Batch(repository, license, batch, size, skipped)
            batch, size, skipped = [], 0, []
    if batch or skipped:
        yield Batch(repository, license, batch, size, skipped)


@lru_cache(maxsize=4096)
def redacted_path(path: str, settings: RedactionSettings = DEFAULT) -> str:
    """Return a path as text without secrets. Rows and reports contain this path, because a file name can be a token."""
    return redact(printable_path(path), settings=settings).text


def removal_record(repository: str, path: str, reason: str, size: int, detail: str = "") -> dict[str, Any]:
    """Make the record of one removed file for `removed.jsonl`."""
    return {"repository": repository, "path": redacted_path(path), "reason": reason, "bytes": size, "detail": detail}


def skip_reason(file: File, settings: CleanSettings) -> str:
    """Return the reason to skip a file, or "" if the file is read."""
    return file.skip or drop_by_path(printable_path(file.path), settings.filters)


def clean_batch(settings: CleanSettings, batch: Batch) -> Cleaned:
    """Read and clean a batch of files."""
    cleaned = Cleaned(removed=list(batch.skipped), files=len(batch.files), bytes=batch.size)
    with Reader(batch.repository) as reader:
        for file, content in zip(batch.files, reader.read_many(batch.files), strict=True):
            if content is None:
                cleaned.removed.append(removal_record(batch.repository.name, file.path, "unreadable", file.size))
                continue
            _clean_file(settings, batch, file, content, cleaned)
    # The two forms of a notebook are similar, but they are not duplicates.
    groups = ["notebook" if row["kind"] == "notebook" else "" for row in cleaned.rows]
    cleaned.prints = fingerprints([row["text"] for row in cleaned.rows], groups)
    return cleaned


def _clean_file(settings: CleanSettings, batch: Batch, file: File, content: bytes, cleaned: Cleaned) -> None:
    """Clean one file and add its rows or removal records to `cleaned`."""

    def drop(reason: str, detail: str = "") -> None:
        cleaned.removed.append(removal_record(batch.repository.name, file.path, reason, len(content), detail))

    text, reason = decode(content)
    if reason:
        return drop(reason)
    if text.startswith(LFS_POINTER):
        return drop("lfs_pointer")
    path = printable_path(file.path)
    language = detect(path, text)
    if not language:
        return drop("no_listed_language")
    if settings.languages and language not in settings.languages:
        return drop("language_not_wanted", language)
    license = file_license(text) or batch.license
    if not settings.licenses.permits(license):
        return drop("license", license)
    for form_language, form_text, kind in _forms(language, text, settings):
        if reason := drop_by_text(path, form_text, form_language, settings.filters):
            drop(reason)
            continue
        if settings.redact:
            redacted = redact(form_text, form_language, settings.redaction)
            if not still_parses(form_text, redacted.text, form_language):
                drop("redaction_breaks_syntax")
                continue
            form_text = redacted.text
            cleaned.redacted.update(redacted.counts)
        if settings.decontaminator and (match := settings.decontaminator.check(form_text)):
            drop("contaminated", f"{match.benchmark}: {match.rule}: {match.words}")
            continue
        if contains_special_text(form_text):
            form_text = escape_special_text(form_text)
            cleaned.escaped += 1
        cleaned.rows.append({
            "text": form_text, "repository": batch.repository.name,
            "path": redacted_path(file.path, settings.redaction) if settings.redact else path, "commit": batch.repository.commit,
            "language": form_language, "license": license, "kind": kind,
        })  # fmt: skip
    return None


def _forms(language: str, text: str, settings: CleanSettings) -> list[tuple[str, str, str]]:
    """Return (language, text, kind) of each row of a file.

    A notebook gives one row for each form in the settings; any other file gives one row.
    """
    if language != "jupyter-notebook":
        return [(language, text, settings.kind)]
    notebook = convert(text)
    if notebook is None:
        return [(language, "", settings.kind)]
    forms = {
        "script": (notebook.language, notebook.script, settings.kind),
        "structured": (language, notebook.structured, "notebook"),
    }
    return [forms[name] for name in settings.notebooks]
