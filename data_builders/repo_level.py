"""Builder `repo_level`: join the files of a repository into documents of limited length, dependencies first.

A row has the columns `repository` and `files`, and each file has `path` and `text`. The stages of a recipe render the
document as text, and cut the last file for fill-in-the-middle. With the setting `render`, each row holds the document
as one `text` with special tokens, for other trainers. A share of these rows ends in a fill-in-the-middle block, as in
figure 4 of the Qwen2.5-Coder report.

Files are ordered by DeepSeek-Coder's algorithm 1 (arXiv 2401.14196): connected files form a group, and within a group
the next file is always the file with the fewest missing dependencies. This also works for import cycles. Files without
known imports (prose, configuration) follow in the order of their paths.
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
from alignment.progress import Progress
from alignment.settings import Positive, Reference, Settings
from data_builders.builder import BuildContext
from data_builders.fim import FimSettings, cut_document
from data_builders.parsing.imports import Resolver, imports
from data_builders.storage.dataset import DatasetWriter, lineage, read_datasets
from data_builders.storage.parallel import ordered_map, row_batches
from data_builders.storage.staging import RowStore
from data_builders.storage.token_counts import TokenCounter, token_counter

_FILES = pa.list_(pa.struct([("path", pa.string()), ("text", pa.string())]))
OVERHEAD = 24
"""Number of tokens reserved for a document's header and for the special tokens of a fill-in-the-middle block."""


def dependency_order(dependencies: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Order files so that each file follows the files that it imports.

    Args:
        dependencies: maps each file to the files that it imports. Imports of files that are not keys are ignored.

    Returns:
        Groups of connected files. Within a group, dependencies come first. Otherwise the order is that of the paths.
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
    """Return all files that can be reached from `start` through `neighbours`."""
    group, waiting = {start}, [start]
    while waiting:
        for other in neighbours[waiting.pop()] - group:
            group.add(other)
            waiting.append(other)
    return group


def _order(group: set[str], missing: dict[str, set[str]], users: dict[str, set[str]]) -> list[str]:
    """Order the files of a group: the next file is always the file with the fewest missing dependencies."""
    heap = [(len(missing[path]), path) for path in group]
    heapq.heapify(heap)
    ordered: list[str] = []
    done: set[str] = set()
    while heap:
        degree, path = heapq.heappop(heap)
        if path in done or degree != len(missing[path]):
            continue  # an outdated entry: the file now has fewer missing dependencies
        done.add(path)
        ordered.append(path)
        for user in users[path]:
            missing[user].discard(path)
            if user not in done:
                heapq.heappush(heap, (len(missing[user]), user))
    return ordered


def split_text(text: str, tokens: int, limit: int) -> list[str]:
    """Cut a text at line ends. A line that is longer than the limit is cut within the line.

    Args:
        text: the text.
        tokens: length of the text in tokens.
        limit: approximate length of a part in tokens. `_split` then measures the parts, and cuts long parts again.
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
    """Apply `split_text` repeatedly until each part has at most `limit` tokens.

    One pass is not enough, because the number of characters per token varies within a file.
    """
    parts = split_text(text, tokens, limit)
    if len(parts) == 1:
        return parts
    lengths = counter.count(parts)
    return [
        piece for part, length in zip(parts, lengths, strict=True) for piece in _split(part, length, limit, counter)
    ]


@dataclass(frozen=True, slots=True)
class _File:
    """A row with escaped text, the names that the file imports, and the number of tokens of its path and its text."""

    row: dict[str, Any]
    imports: list[str]
    path_length: int
    length: int


def _examine(counter: TokenCounter, rows: list[dict[str, Any]]) -> list[_File]:
    """Find the imports and count the tokens of each row of a batch."""
    rows = [row | {"text": escape_special_text(row["text"])} for row in rows]
    lengths = counter.count([str(text) for row in rows for text in (row["path"], row["text"])])
    return [
        _File(row, imports(row["language"] or "", row["text"]), *lengths[2 * index : 2 * index + 2])
        for index, row in enumerate(rows)
    ]


def _ordered_files(by_path: dict[str, int], names: dict[str, tuple[str, list[str]]], repository: str) -> list[int]:
    """Return the row indices of one repository in dependency order. `names` maps a path to its language and imports."""
    resolver = Resolver(by_path, repository)
    edges = {path: resolver.dependencies(path, language, imported) for path, (language, imported) in names.items()}
    groups = dependency_order(edges)
    connected = [group for group in groups if len(group) > 1]
    alone = [group for group in groups if len(group) == 1]
    return [by_path[path] for group in [*connected, *alone] for path in group]


def _documents(
    store: RowStore, order: list[int], lengths: Sequence[tuple[int, int]], counter: TokenCounter, max_length: int
) -> Iterator[list[tuple[dict[str, Any], str]]]:
    """Fill documents of at most `max_length` tokens with files, in order. A file that is too long is split.

    Args:
        store: the rows of the repository.
        order: row indices in dependency order.
        lengths: number of tokens in the path and in the text of each row.
        counter: counts tokens.
        max_length: maximum number of tokens of a document.

    Yields:
        Documents: lists of (row, text), where the text is a file or a part of a file.
    """
    document: list[tuple[dict[str, Any], str]] = []
    used = 0
    for index in order:
        row = store[index]
        text = row["text"]
        path_length, length = lengths[index]
        limit = max_length - OVERHEAD - path_length - counter.count([str(row["repository"])])[0]
        if limit < 16:
            raise ValueError(f"max_length {max_length} is too small for the file {row['path']!r}; use a larger number")
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
    """Make a row with `repository` and `files` from a document. Special tokens in names and texts are escaped."""
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
    """Render a document as one text with special tokens. The last file may be cut for fill-in-the-middle.

    Args:
        row: the document, with the columns `repository` and `files`.
        last: the row of the last file. Its content and `seed` together seed the random cut.
        settings: how many documents are cut, and how.
        seed: see `last`.
    """
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
    """Datasets of documents in which the rows of a repository are adjacent, as in the output of the builder
    `corpus`."""
    max_length: Positive = 32_768
    """Maximum length of a document, in tokens of `tokenizer`."""
    tokenizer: Reference | None = None
    """Folder with `tokenizer.json`. Without a tokenizer, the number of tokens is estimated as bytes / 3."""
    render: bool = False
    """Write each document as one text with special tokens, for use with other trainers."""
    fim: FimSettings | None = None
    """How many documents end in a fill-in-the-middle block, and how the last file is cut. Needs `render`."""

    @model_validator(mode="after")
    def _check_fim(self) -> Self:
        if self.fim is not None and not self.render:
            raise ValueError(
                "`fim` needs `render: true`. To cut documents in a stage of a recipe, use the `fim` of that stage"
            )
        return self


def build_repo_level(settings: RepoLevelSettings, context: BuildContext) -> dict[str, Any]:
    """Write whole repositories as documents of limited length, dependencies first.

    Raises:
        ValueError: the rows of a repository are not adjacent, or `max_length` is too small for a file.
    """
    inputs = [path.path() for path in settings.inputs]
    tokenizer = settings.tokenizer.path() if settings.tokenizer is not None else None
    counter = token_counter(tokenizer)
    columns = {"format": pa.string(), "files": pa.int64()} if settings.render else {"files": _FILES}
    writer = DatasetWriter(context.out, "document", columns)
    counts: Counter[str] = Counter()
    progress = Progress("repo-level", unit="files")
    batches = ordered_map(
        _examine, row_batches(read_datasets(inputs)), initial=token_counter, argument=tokenizer, workers=context.workers
    )
    files = itertools.chain.from_iterable(batches)
    seen: set[str] = set()
    for repository, group in itertools.groupby(files, key=lambda file: str(file.row["repository"])):
        if repository in seen:
            raise ValueError(f"the rows of repository {repository!r} are not adjacent; sort the input by repository")
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
    """Yield the documents of one repository. The rows of all its files are appended to `store`."""
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
