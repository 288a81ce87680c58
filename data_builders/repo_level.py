"""Builder `repo_level`: the files of a repository as one document, dependencies first, up to a length in tokens.

Rows hold `repository` and `files`, each file with `path` and `text`; the stages of a recipe render the document, and cut
its last file for fill-in-the-middle. With `render`, rows hold the document as one `text` with special tokens, for other
trainers, and a share of them ends in a fill-in-the-middle block as in figure 4 of the Qwen2.5-Coder report.

The order is that of DeepSeek-Coder's algorithm 1 (arXiv 2401.14196): connected files form a group, and within a group
the file with the fewest missing dependencies comes next, so import cycles are no problem. Files without known imports
(prose, configuration) follow in the order of their paths.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
from pydantic import model_validator

from alignment.models.formats import escape_special_text, repo_document, repo_fim_document
from alignment.settings import Positive, Reference, Settings
from data_builders.builder import BuildContext
from data_builders.fim import FimSettings, cut_document
from data_builders.parsing.imports import Resolver, imports
from data_builders.storage.dataset import DatasetWriter, lineage, read_datasets
from data_builders.storage.parallel import Progress, ordered_map, row_batches
from data_builders.storage.staging import RowStore
from data_builders.storage.token_counts import TokenCounter, token_counter

_FILES = pa.list_(pa.struct([("path", pa.string()), ("text", pa.string())]))
OVERHEAD = 24
"""Tokens reserved for the header of a document and for the special tokens of a fill-in-the-middle block."""


def dependency_order(dependencies: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Order files so that each comes after the files it depends on.

    Args:
        dependencies: for each file, the files that it imports; files that are no key are ignored.

    Returns:
        Groups of connected files, each with dependencies first; groups and ties in the order of paths.
    """
    neighbours: dict[str, set[str]] = {path: set() for path in dependencies}
    missing: dict[str, set[str]] = {path: set() for path in dependencies}
    users: dict[str, set[str]] = {path: set() for path in dependencies}
    for path, needed in dependencies.items():
        for other in needed:
            if other in dependencies and other != path:
                missing[path].add(other)
                users[other].add(path)
                neighbours[path].add(other)
                neighbours[other].add(path)
    placed: set[str] = set()
    groups = []
    for path in sorted(dependencies):
        if path in placed:
            continue
        group = _connected(path, neighbours)
        placed |= group
        groups.append(_order(group, missing, users))
    return groups


def _connected(start: str, neighbours: Mapping[str, set[str]]) -> set[str]:
    """Return all files that can be reached from `start`."""
    group, waiting = {start}, [start]
    while waiting:
        for other in neighbours[waiting.pop()] - group:
            group.add(other)
            waiting.append(other)
    return group


def _order(group: set[str], missing: dict[str, set[str]], users: dict[str, set[str]]) -> list[str]:
    """Return the files of a group; next is always the one with the fewest missing dependencies."""
    heap = [(len(missing[path]), path) for path in group]
    heapq.heapify(heap)
    ordered: list[str] = []
    done: set[str] = set()
    while heap:
        degree, path = heapq.heappop(heap)
        if path in done or degree != len(missing[path]):
            continue  # an outdated entry: the file's count has fallen since
        done.add(path)
        ordered.append(path)
        for user in users[path]:
            missing[user].discard(path)
            if user not in done:
                heapq.heappush(heap, (len(missing[user]), user))
    return ordered


def split_text(text: str, tokens: int, limit: int) -> list[str]:
    """Cut a text at line ends; a line that is longer than the limit is cut inside.

    Args:
        text: the text.
        tokens: its length in tokens.
        limit: length of a part in tokens, about; `_split` measures the parts and cuts again.
    """
    if tokens <= limit:
        return [text]
    size = max(1, int(len(text) * limit / tokens * 0.95))
    parts, start = [], 0
    while start < len(text):
        end = min(len(text), start + size)
        if end < len(text):
            newline = text.rfind("\n", start, end)
            end = newline + 1 if newline > start else end
        parts.append(text[start:end])
        start = end
    return parts


def _split(text: str, tokens: int, limit: int, counter: TokenCounter) -> list[str]:
    """`split_text` until each part fits; the number of characters per token varies within a file."""
    parts = split_text(text, tokens, limit)
    if len(parts) == 1:
        return parts
    lengths = counter.count(parts)
    return [
        piece for part, length in zip(parts, lengths, strict=True) for piece in _split(part, length, limit, counter)
    ]


@dataclass(frozen=True, slots=True)
class _File:
    """A row with escaped text, its imports, and the lengths in tokens of its path and its text."""

    row: dict[str, Any]
    imports: list[str]
    path_length: int
    length: int


def _examine(counter: TokenCounter, rows: list[dict[str, Any]]) -> list[_File]:
    """Find imports and count tokens of a batch of rows."""
    rows = [row | {"text": escape_special_text(row["text"])} for row in rows]
    lengths = counter.count([str(text) for row in rows for text in (row["path"], row["text"])])
    return [
        _File(row, imports(row["language"] or "", row["text"]), *lengths[2 * index : 2 * index + 2])
        for index, row in enumerate(rows)
    ]


def _ordered_files(by_path: dict[str, int], names: dict[str, tuple[str, list[str]]], repository: str) -> list[int]:
    """Return row numbers of one repository in dependency order; `names` holds the language and imports of each path."""
    resolver = Resolver(by_path, repository)
    edges = {path: resolver.dependencies(path, language, imported) for path, (language, imported) in names.items()}
    groups = dependency_order(edges)
    connected = [group for group in groups if len(group) > 1]
    alone = [group for group in groups if len(group) == 1]
    return [by_path[path] for group in [*connected, *alone] for path in group]


def _documents(
    store: RowStore, order: list[int], lengths: Sequence[tuple[int, int]], counter: TokenCounter, max_length: int
) -> Iterator[list[tuple[dict[str, Any], str]]]:
    """Fill documents with files in order, each up to `max_length` tokens; a longer file is split at line ends.

    Args:
        store: the rows of the repository.
        order: row numbers in dependency order.
        lengths: tokens of each row's path and text.
        counter: counts tokens.
        max_length: tokens of a document, at most.

    Yields:
        Documents as (row, text) of each file, or part of a file.
    """
    document: list[tuple[dict[str, Any], str]] = []
    used = 0
    for index in order:
        row = store[index]
        text = row["text"]
        path_length, length = lengths[index]
        limit = max_length - OVERHEAD - path_length - counter.count([str(row["repository"])])[0]
        if limit < 16:
            raise ValueError(f"max_length {max_length} is too small for the file {row['path']!r}; use a larger one")
        parts = _split(text, length, limit, counter)
        part_lengths = [length] if len(parts) == 1 else counter.count(parts)
        for part, part_length in zip(parts, part_lengths, strict=True):
            if document and used + part_length + path_length > limit:
                yield document
                document, used = [], 0
            document.append((row, part))
            used += part_length + path_length + 3
    if document:
        yield document


def _row(document: list[tuple[dict[str, Any], str]]) -> dict[str, Any]:
    """A document as a row with `repository` and `files`; names and texts are escaped, so they form no special token."""
    files = [(escape_special_text(str(row["path"])).replace("\n", " "), text) for row, text in document]
    languages = Counter(str(row["language"]) for row, _ in document)
    licenses = sorted({str(row["license"]) for row, _ in document})
    return {
        "repository": escape_special_text(str(document[0][0]["repository"])), "path": files[-1][0],
        "commit": document[0][0]["commit"],
        "language": languages.most_common(1)[0][0], "license": " AND ".join(licenses), "kind": "repository",
        "files": [{"path": path, "text": text} for path, text in files],
    }  # fmt: skip


def _rendered(row: dict[str, Any], last: dict[str, Any], settings: FimSettings, seed: int) -> dict[str, Any]:
    """Return the row as one text with special tokens; `last` is the row of its last file, which may be cut."""
    files = [(file["path"], file["text"]) for file in row["files"]]
    path, text = files[-1]
    cut = cut_document(last | {"text": text}, settings, seed)
    if cut is None:
        text, form = repo_document(row["repository"], files), "repo"
    else:
        text = repo_fim_document(row["repository"], files[:-1], path, cut.prefix, cut.middle, cut.suffix, cut.mode)
        form = f"repo-fim-{cut.mode}-{cut.span}"
    return row | {"text": text, "format": form, "files": len(files)}


class RepoLevelSettings(Settings):
    """Settings of the builder `repo_level`."""

    inputs: list[Reference]
    """Datasets of documents, grouped by repository as the builder `corpus` writes them."""
    max_length: Positive = 32_768
    """Length of a document, at most, in tokens of `tokenizer`."""
    tokenizer: Reference | None = None
    """Folder with `tokenizer.json`; without one, tokens are estimated at three bytes each."""
    render: bool = False
    """Write each document as one text with its special tokens, for trainers other than this toolkit's."""
    fim: FimSettings | None = None
    """With `render`: how many of the documents end in a fill-in-the-middle block, and how they are cut."""

    @model_validator(mode="after")
    def _check_fim(self) -> Self:
        if self.fim is not None and not self.render:
            raise ValueError("`fim` is used only with `render`: the stages of a recipe have a `fim` of their own")
        return self


def build_repo_level(settings: RepoLevelSettings, context: BuildContext) -> dict[str, Any]:
    """Whole repositories as documents, dependencies first, up to a length.

    Raises:
        ValueError: the rows of a repository are not together, or `max_length` is too small for a file.
    """
    inputs = [path.path() for path in settings.inputs]
    tokenizer = settings.tokenizer.path() if settings.tokenizer is not None else None
    counter = token_counter(tokenizer)
    columns = {"format": pa.string(), "files": pa.int64()} if settings.render else {"files": _FILES}
    writer = DatasetWriter(context.out, "document", columns)
    counts: Counter[str] = Counter()
    progress = Progress("repo-level", 0, context.show_progress)
    batches = ordered_map(
        _examine, row_batches(read_datasets(inputs)), initial=token_counter, argument=tokenizer, workers=context.workers
    )
    files = itertools.chain.from_iterable(batches)
    seen: set[str] = set()
    for repository, group in itertools.groupby(files, key=lambda file: str(file.row["repository"])):
        if repository in seen:
            raise ValueError(f"the rows of repository {repository!r} are not together; sort the input by repository")
        seen.add(repository)
        with RowStore(context.out / "rows.tmp") as store:
            for row in _repository_rows(repository, group, store, counter, settings, context.seed):
                counts[row.get("format", "files")] += 1
                writer.write(row)
            progress.advance(len(store))
    report = {
        "sources": lineage(inputs),
        "repositories": len(seen),
        "formats": dict(sorted(counts.items())),
        "exact_lengths": counter.exact,
    }
    used = {
        "max_length": settings.max_length,
        "tokenizer": tokenizer.name if tokenizer else None,
        "render": settings.render,
        "fim": (settings.fim or FimSettings()).model_dump() if settings.render else None,
        "seed": context.seed,
    }
    return writer.finish("Repo-level documents", used, report)


def _repository_rows(
    repository: str,
    files: Iterable[_File],
    store: RowStore,
    counter: TokenCounter,
    settings: RepoLevelSettings,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Yield the documents of one repository; `store` is filled with its files."""
    by_path: dict[str, int] = {}
    names: dict[str, tuple[str, list[str]]] = {}
    lengths: list[tuple[int, int]] = []
    for file in files:
        path = file.row["path"]
        by_path[path] = len(store)
        names[path] = (file.row["language"] or "", file.imports)
        lengths.append((file.path_length, file.length))
        store.append(file.row)
    order = _ordered_files(by_path, names, repository)
    for document in _documents(store, order, lengths, counter, settings.max_length):
        row = _row(document)
        yield _rendered(row, document[-1][0], settings.fim or FimSettings(), seed) if settings.render else row
