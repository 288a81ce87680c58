"""Repo-level documents: a repository's files, dependencies first, up to the stage's length in tokens.

Rows hold `repository` and `files`, each with `path` and `text`: a recipe's stages make the document, and cut its last
file for fill-in-the-middle. With `render` the rows hold the document as one `text` with its special tokens, for other
trainers; then a share of them ends in a fill-in-the-middle block, as figure 4 of the Qwen2.5-Coder report shows.

Order as DeepSeek-Coder's algorithm 1 (arXiv 2401.14196): connected files form a group, and within a group the file
with the fewest dependencies still missing comes next, so cycles do no harm. Files without known imports (documents,
configuration) follow in the order of their paths.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from alignment.models.formats import escape_special_text, repo_document, repo_fim_document
from data_builders.fim import FimSettings, cut
from data_builders.parsing.imports import Resolver, imports
from data_builders.storage.dataset import DatasetWriter, lineage, read_datasets
from data_builders.storage.parallel import Progress, ordered_map, row_batches
from data_builders.storage.settings import from_mapping
from data_builders.storage.staging import RowStore
from data_builders.storage.token_counts import TokenCounter, token_counter

_FILES = pa.list_(pa.struct([("path", pa.string()), ("text", pa.string())]))
OVERHEAD = 24
"""Tokens kept free for a document's header and the tokens of a fill-in-the-middle block."""


def dependency_order(dependencies: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Groups of connected files, each with dependencies first; groups and ties in the order of paths."""
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
    group, waiting = {start}, [start]
    while waiting:
        for other in neighbours[waiting.pop()] - group:
            group.add(other)
            waiting.append(other)
    return group


def _order(group: set[str], missing: dict[str, set[str]], users: dict[str, set[str]]) -> list[str]:
    heap = [(len(missing[path]), path) for path in group]
    heapq.heapify(heap)
    ordered: list[str] = []
    done: set[str] = set()
    while heap:
        degree, path = heapq.heappop(heap)
        if path in done or degree != len(missing[path]):
            continue  # an older entry of a file whose count has fallen since
        done.add(path)
        ordered.append(path)
        for user in users[path]:
            missing[user].discard(path)
            if user not in done:
                heapq.heappush(heap, (len(missing[user]), user))
    return ordered


def split_text(text: str, tokens: int, limit: int) -> list[str]:
    """Cut a text of `tokens` tokens into parts of about `limit`, at line ends; a single longer line is cut inside."""
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
    """`split_text` until each part really fits: how many characters a token has varies within a file."""
    parts = split_text(text, tokens, limit)
    if len(parts) == 1:
        return parts
    lengths = counter.count(parts)
    return [
        piece for part, length in zip(parts, lengths, strict=True) for piece in _split(part, length, limit, counter)
    ]


@dataclass(frozen=True, slots=True)
class _File:
    """A row whose text is as a document shows it, and what was found in it; lengths in tokens."""

    row: dict[str, Any]
    imports: list[str]
    path_length: int
    length: int


def _examine(counter: TokenCounter, rows: list[dict[str, Any]]) -> list[_File]:
    rows = [row | {"text": escape_special_text(row["text"])} for row in rows]
    lengths = counter.count([str(text) for row in rows for text in (row["path"], row["text"])])
    return [
        _File(row, imports(row["language"] or "", row["text"]), *lengths[2 * index : 2 * index + 2])
        for index, row in enumerate(rows)
    ]


def _ordered_files(by_path: dict[str, int], names: dict[str, tuple[str, list[str]]], repository: str) -> list[int]:
    """Row numbers of one repository, in dependency order; `names` has each path's language and imports."""
    resolver = Resolver(by_path, repository)
    edges = {path: resolver.dependencies(path, language, found) for path, (language, found) in names.items()}
    groups = dependency_order(edges)
    connected = [group for group in groups if len(group) > 1]
    alone = [group for group in groups if len(group) == 1]
    return [by_path[path] for group in [*connected, *alone] for path in group]


def _documents(
    store: RowStore, order: list[int], lengths: Sequence[tuple[int, int]], counter: TokenCounter, max_length: int
) -> Iterator[list[tuple[dict[str, Any], str]]]:
    """Fill documents with files in order, each up to `max_length` tokens; an over-long file is split at line ends."""
    document: list[tuple[dict[str, Any], str]] = []
    used = 0
    for index in order:
        row = store[index]
        text = row["text"]
        path_length, length = lengths[index]
        room = max_length - OVERHEAD - path_length - counter.count([str(row["repository"])])[0]
        if room < 16:
            raise ValueError(f"max_length {max_length} leaves no room for the file {row['path']!r}; use a larger one")
        parts = _split(text, length, room, counter)
        part_lengths = [length] if len(parts) == 1 else counter.count(parts)
        for part, part_length in zip(parts, part_lengths, strict=True):
            if document and used + part_length + path_length > room:
                yield document
                document, used = [], 0
            document.append((row, part))
            used += part_length + path_length + 3
    if document:
        yield document


def _row(document: list[tuple[dict[str, Any], str]]) -> dict[str, Any]:
    """A document as `repository` and `files`; no name or text in it spells a special token."""
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
    """The row as one text with its special tokens; `last` is the row of its last file."""
    files = [(file["path"], file["text"]) for file in row["files"]]
    path, text = files[-1]
    made = cut(last | {"text": text}, settings, seed)
    if made is None:
        text, form = repo_document(row["repository"], files), "repo"
    else:
        text = repo_fim_document(row["repository"], files[:-1], path, made.prefix, made.middle, made.suffix, made.mode)
        form = f"repo-fim-{made.mode}-{made.span}"
    return row | {"text": text, "format": form, "files": len(files)}


def build_repo_level(
    inputs: Sequence[Path],
    out: Path,
    *,
    max_length: int = 32_768,
    tokenizer: Path | None = None,
    render: bool = False,
    fim: FimSettings | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Whole repositories as documents, dependencies first, up to a length.

    Args:
        inputs: datasets of documents, grouped by repository as the corpus is.
        max_length: of a document, in tokens of `tokenizer`.
        tokenizer: folder with `tokenizer.json`; without one, tokens are estimated at three bytes each.
        render: write each document as one text with its special tokens, for trainers other than this toolkit's.
        fim: with `render`, how many of the documents end in a fill-in-the-middle block.
    """
    if fim is not None and not render:
        raise ValueError("`fim` is used only with `render`: the stages of a recipe have a `fim` of their own")
    chosen = from_mapping(FimSettings, fim)
    counter = token_counter(tokenizer)
    out = Path(out)
    columns = {"format": pa.string(), "files": pa.int64()} if render else {"files": _FILES}
    writer = DatasetWriter(out, "document", columns)
    counts: Counter[str] = Counter()
    shown = Progress("repo-level", 0, progress)
    examined = ordered_map(
        _examine, row_batches(read_datasets(inputs)), initial=token_counter, argument=tokenizer, workers=workers
    )
    files = itertools.chain.from_iterable(examined)
    seen: set[str] = set()
    for repository, group in itertools.groupby(files, key=lambda file: str(file.row["repository"])):
        if repository in seen:
            raise ValueError(f"the rows of repository {repository!r} are not together; sort the input by repository")
        seen.add(repository)
        with RowStore(out / "rows.tmp") as store:
            by_path: dict[str, int] = {}
            names: dict[str, tuple[str, list[str]]] = {}
            lengths: list[tuple[int, int]] = []
            for file in group:
                path = file.row["path"]
                by_path[path] = len(store)
                names[path] = (file.row["language"] or "", file.imports)
                lengths.append((file.path_length, file.length))
                store.append(file.row)
            order = _ordered_files(by_path, names, repository)
            for document in _documents(store, order, lengths, counter, max_length):
                made = _row(document)
                if render:
                    made = _rendered(made, document[-1][0], chosen, seed)
                counts[made.get("format", "files")] += 1
                writer.write(made)
            shown.advance(len(store))
    report = {
        "sources": lineage(inputs),
        "repositories": len(seen),
        "formats": dict(sorted(counts.items())),
        "exact_lengths": counter.exact,
    }
    used = {
        "max_length": max_length,
        "tokenizer": Path(tokenizer).name if tokenizer else None,
        "render": render,
        "fim": asdict(chosen) if render else None,
        "seed": seed,
    }
    return writer.finish("Repo-level documents", used, report)
