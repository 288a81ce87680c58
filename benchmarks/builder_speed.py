"""Measure the speed of each step of the builders, in megabytes of source per second of CPU time on one core.

    python -m benchmarks builder-speed [FOLDER] [--megabytes 8] [--tokenizer DIR]

Without a folder, Python's standard library is read.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_builders.cleaning.decontamination import Decontaminator
from data_builders.cleaning.duplicates import find_duplicates, fingerprints
from data_builders.cleaning.filters import FilterSettings, drop_by_text
from data_builders.cleaning.licenses import LicensePolicy
from data_builders.cleaning.secrets import redact
from data_builders.commits import CommitBatch, CommitLimits, CommitRows
from data_builders.fim import FimSettings, fim_row
from data_builders.parsing.imports import imports
from data_builders.parsing.languages import detect
from data_builders.parsing.syntax_spans import syntax_span
from data_builders.repositories import git
from data_builders.repositories.history import commit_batches
from data_builders.repositories.sources import Repository
from data_builders.repositories.text_decoding import decode
from data_builders.storage.dataset import DatasetWriter
from data_builders.storage.staging import RowStore
from data_builders.storage.token_counts import TokenCounter
from data_builders.text.build_text import CODE_DECAY, SEEDS, without_code
from data_builders.text.classifier import train_from
from data_builders.text.code_features import code_form


def read_sources(folder: Path, limit: int) -> list[tuple[str, bytes]]:
    """Read the source files below a folder, as pairs (path, content).

    Args:
        folder: the folder. Files in `.git` are skipped.
        limit: number of bytes after which reading stops.

    Raises:
        ValueError: the folder holds no source file.
    """
    sources, total = [], 0
    for path in sorted(folder.rglob("*")):
        if ".git" in path.parts:
            continue
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20 and detect(path.name):
            content = path.read_bytes()
            sources.append((str(path.relative_to(folder)), content))
            total += len(content)
            if total >= limit:
                break
    if not sources:
        raise ValueError(f"{folder} holds no source file: name a folder with code")
    return sources


def measure(sources: list[tuple[str, bytes]], tokenizer: Path | None = None) -> Iterator[tuple[str, float]]:
    """Run every step once on the sources. Yield the step's name and its speed in megabytes per second of CPU time.

    Args:
        sources: path and content of each file.
        tokenizer: folder of a tokenizer for the step `token_counts`. Without a tokenizer, lengths are estimated.
    """
    size = sum(len(content) for _, content in sources) / 1e6
    texts = [(path, decode(content)[0]) for path, content in sources]
    texts = [(path, text) for path, text in texts if text]
    languages = [detect(path, text) for path, text in texts]
    settings, words = FilterSettings(), [text for _, text in texts]
    index = Decontaminator()
    index.add("sample", [{"text": text} for text in words[:: max(1, len(words) // 50)]])
    index.seal()
    model = train_from(SEEDS / "technical.jsonl")
    quality = train_from(SEEDS / "code_quality.jsonl", code_form, CODE_DECAY)
    rows = [
        {"text": text, "path": path, "language": language}
        for (path, text), language in zip(texts, languages, strict=True)
    ]
    texts_and_languages = list(zip(texts, languages, strict=True))
    counter = TokenCounter(tokenizer)
    prints = fingerprints(words)
    steps: dict[str, Callable[[], Any]] = {
        "decode": lambda: [decode(content) for _, content in sources],
        "language": lambda: [detect(path, text) for path, text in texts],
        "filters": lambda: [
            drop_by_text(path, text, language, settings) for (path, text), language in texts_and_languages
        ],
        "secrets": lambda: [redact(text, language) for (_, text), language in texts_and_languages],
        "fingerprints": lambda: fingerprints(words),
        "duplicates": lambda: find_duplicates(prints, words.__getitem__),
        "decontamination": lambda: [index.check(text) for text in words],
        "imports": lambda: [imports(language, text) for (_, text), language in texts_and_languages],
        "fim_random": lambda: [fim_row(row, FimSettings(rate=1.0, syntax_rate=0.0), 0) for row in rows],
        "fim_syntax": lambda: [
            syntax_span(text, language, random.Random(0)) for (_, text), language in texts_and_languages
        ],
        "general_text": lambda: [without_code(text) for text in words],
        "classifier": lambda: [model.score(text) for text in words],
        "code_quality": lambda: [quality.score(text) for text in words],
        "token_counts": lambda: counter.count(words),
        "staging": lambda: _stage(rows),
        "parquet": lambda: _write(rows),
    }
    for name, step in steps.items():
        start = _cpu_seconds()
        step()
        yield name, size / max(_cpu_seconds() - start, 1e-9)


def _cpu_seconds() -> float:
    """Return the CPU time, in seconds, of this process and its ended child processes (git)."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _stage(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, RowStore(Path(folder) / "rows") as store:
        for row in rows:
            store.append(row)
        for _ in store:
            pass


def _write(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = DatasetWriter(Path(folder), "document")
        for row in rows:
            writer.write(row)
        writer.finish("bench", {}, {})


def measure_history(git_dir: Path, limit: int) -> Iterator[tuple[str, float]]:
    """Yield the speed of two ways to read a repository: the files of HEAD, and the changed files of all commits.

    Args:
        git_dir: the repository's git directory.
        limit: number of bytes after which each measurement stops.
    """
    head = git.resolve_commit(git_dir)
    start, size = _cpu_seconds(), 0
    with git.BlobReader(git_dir) as reader:
        for entry in git.list_tree(git_dir, head):
            if not entry.is_symlink and not entry.is_submodule and size < limit:
                size += len(reader.read(entry.object_id) or b"")
    yield "git_files", size / 1e6 / max(_cpu_seconds() - start, 1e-9)
    read_changes = CommitRows("conversation", CommitLimits(), LicensePolicy(), 0)
    repository = Repository("bench", git_dir, head, "")
    start, size = _cpu_seconds(), 0
    for identifiers in commit_batches(git_dir, head):
        size += read_changes(CommitBatch(repository, "", identifiers))[1]["commits"]["bytes"]
        if size > limit:
            break
    yield "commits", size / 1e6 / max(_cpu_seconds() - start, 1e-9)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks builder-speed", description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(sysconfig.get_paths()["stdlib"]),
        help="folder with source files (default: the standard library)",
    )
    parser.add_argument("--megabytes", type=float, default=8.0, help="how much to read (default: 8)")
    parser.add_argument("--tokenizer", type=Path, help="folder with tokenizer.json (default: estimate lengths)")
    options = parser.parse_args(arguments)
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    try:
        sources = read_sources(options.folder, int(options.megabytes * 1e6))
        print(f"{len(sources)} files, {sum(len(content) for _, content in sources) / 1e6:.1f} MB")
        for name, speed in measure(sources, options.tokenizer):
            print(f"{name:<16} {speed:10.1f} MB/s a core", flush=True)
        if git_dir := git.find_git_dir(options.folder):
            for name, speed in measure_history(git_dir, int(options.megabytes * 1e6)):
                print(f"{name:<16} {speed:10.1f} MB/s a core", flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
