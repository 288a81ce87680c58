"""One file of a repository on its way to rows: read, decode, recognise, filter, licence, redact, decontaminate.

These run in worker processes on batches of files, and depend on nothing but the file and the settings.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from alignment.models.formats import contains_special_text, escape_special_text
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.cleaning.duplicates import Fingerprint, fingerprints
from data_builders.cleaning.filters import FilterSettings, decode, drop_by_path, drop_by_text
from data_builders.cleaning.licenses import LicensePolicy, spdx_header
from data_builders.cleaning.secrets import redact
from data_builders.parsing.languages import detect
from data_builders.parsing.notebooks import convert
from data_builders.repositories.sources import File, Reader, Repository

BATCH_BYTES = 2_000_000
BATCH_FILES = 256
BATCH_SKIPPED = 4096


@dataclass(frozen=True)
class CleanSettings:
    """What happens to each file; see `corpus.build_corpus`."""

    filters: FilterSettings
    licenses: LicensePolicy
    languages: frozenset[str]
    notebooks: tuple[str, ...]
    redact: bool
    kind: str
    decontaminator: Decontaminator | None


@dataclass(frozen=True)
class Batch:
    """Some files of one repository; cut by size, so that batches do not depend on the number of workers."""

    repository: Repository
    license: str
    files: list[File]
    size: int
    skipped: list[dict[str, Any]] = field(default_factory=list)
    """What was removed without being read, between the files of this batch."""


@dataclass
class Cleaned:
    """The rows of one batch, their fingerprints, and what was removed."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    prints: list[Fingerprint] = field(default_factory=list)
    removed: list[dict[str, Any]] = field(default_factory=list)
    redacted: Counter[str] = field(default_factory=Counter)
    escaped: int = 0
    files: int = 0
    bytes: int = 0


def cut_batches(repository: Repository, license: str, files: Iterable[tuple[File, str]]) -> Iterator[Batch]:
    """Batches of the files that have no reason to skip them; the others come along as removed."""
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


def printable_path(path: str) -> str:
    """A path as text: bytes that are no UTF-8 come out as `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@lru_cache(maxsize=4096)
def redacted_path(path: str) -> str:
    """A path as rows and reports show it: a file's name can hold a token, too."""
    return redact(printable_path(path)).text


def removal_record(repository: str, path: str, reason: str, size: int, detail: str = "") -> dict[str, Any]:
    """One line of `removed.jsonl`."""
    return {"repository": repository, "path": redacted_path(path), "reason": reason, "bytes": size, "detail": detail}


def skip_reason(file: File, settings: CleanSettings) -> str:
    """Why a file is not read at all, or ""."""
    return file.skip or drop_by_path(printable_path(file.path), settings.filters)


def clean_batch(settings: CleanSettings, batch: Batch) -> Cleaned:
    """Read and clean a batch of files."""
    done = Cleaned(removed=list(batch.skipped), files=len(batch.files), bytes=batch.size)
    with Reader(batch.repository) as reader:
        for file, content in zip(batch.files, reader.read_many(batch.files), strict=True):
            if content is None:
                done.removed.append(removal_record(batch.repository.name, file.path, "unreadable", file.size))
                continue
            _clean_file(settings, batch, file, content, done)
    # The two forms of a notebook resemble each other, and are not duplicates.
    groups = ["notebook" if row["kind"] == "notebook" else "" for row in done.rows]
    done.prints = fingerprints([row["text"] for row in done.rows], groups)
    return done


def _clean_file(settings: CleanSettings, batch: Batch, file: File, content: bytes, done: Cleaned) -> None:
    def drop(reason: str, detail: str = "") -> None:
        done.removed.append(removal_record(batch.repository.name, file.path, reason, len(content), detail))

    text, reason = decode(content)
    if reason:
        return drop(reason)
    if text.startswith("version https://git-lfs.github.com/spec/"):
        return drop("lfs_pointer")
    path = printable_path(file.path)
    language = detect(path, text)
    if not language:
        return drop("no_listed_language")
    if settings.languages and language not in settings.languages:
        return drop("language_not_wanted", language)
    license = spdx_header(text) or batch.license
    if not settings.licenses.permits(license):
        return drop("license", license)
    for form_language, form_text, kind in _forms(language, text, settings):
        if reason := drop_by_text(path, form_text, form_language, settings.filters):
            drop(reason)
            continue
        if settings.redact:
            redacted = redact(form_text, form_language)
            form_text = redacted.text
            done.redacted.update(redacted.counts)
        if settings.decontaminator and (match := settings.decontaminator.check(form_text)):
            drop("contaminated", f"{match.benchmark}: {match.rule}: {match.words}")
            continue
        if contains_special_text(form_text):
            form_text = escape_special_text(form_text)
            done.escaped += 1
        done.rows.append({
            "text": form_text, "repository": batch.repository.name,
            "path": redacted_path(file.path) if settings.redact else path, "commit": batch.repository.commit,
            "language": form_language, "license": license, "kind": kind,
        })  # fmt: skip
    return None


def _forms(language: str, text: str, settings: CleanSettings) -> list[tuple[str, str, str]]:
    """Language, text and kind of the rows that a file makes: one, or for a notebook one per wanted form."""
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
