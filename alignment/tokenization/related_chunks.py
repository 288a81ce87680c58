"""Choose chunks of related files to put before a fill-in-the-middle sample, as editors send them.

Candidates are files of the same repository and commit: files that the sample's file imports, and neighbours in the same
folder. Chunks are ranked by the rare names that they share with the text around the cursor. The middle is not compared,
since an editor does not know the middle.
"""

from __future__ import annotations

import posixpath
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

from alignment.rows.kinds import Row
from data_builders.parsing.imports import Resolver, imports
from data_builders.parsing.languages import detect

NEIGHBOURS = 6
"""How many files of the same folder are drawn as candidates."""
LINES = (8, 64)
"""Smallest and largest number of lines of a chunk. Chunks of llama.vscode have 64 lines."""
_TOKENS_PER_LINE = 24
"""Assumed number of tokens per line, which limits the lines of a chunk. It is twice the average of code."""
_NAME = re.compile(r"[^\W\d]\w{2,}")


class RepositoryFile(NamedTuple):
    """One file of a repository."""

    path: str
    text: str
    language: str


class RepositoryFiles:
    """The files of one repository at one commit.

    Args:
        repository: name of the repository.
        files: all files of the repository.
    """

    def __init__(self, repository: str, files: Sequence[RepositoryFile]) -> None:
        self.repository = repository
        self.by_path = {file.path: file for file in files}
        self._resolver = Resolver(self.by_path, repository)
        self._folders: dict[str, list[str]] = {}
        for path in sorted(self.by_path):
            self._folders.setdefault(posixpath.dirname(path), []).append(path)

    @cached_property
    def _files_with(self) -> Counter[str]:
        """Maps each name to the number of files that contain it."""
        return Counter(name for file in self.by_path.values() for name in set(_NAME.findall(file.text)))

    def related(self, path: str, rng: random.Random) -> list[str]:
        """Return the paths of the files that the file at `path` imports, and of some other files of its folder."""
        file = self.by_path[path]
        imported = self._resolver.dependencies(path, file.language, imports(file.language, file.text))
        neighbours = [other for other in self._folders[posixpath.dirname(path)] if other not in (path, *imported)]
        return [*imported, *rng.sample(neighbours, min(NEIGHBOURS, len(neighbours)))]

    def chunks(self, path: str, near: str, tokens: int, rng: random.Random) -> Iterator[tuple[str, str]]:
        """Yield chunks of related files as (path, text), the best chunk first.

        Args:
            path: path of the file with the cursor.
            near: the text around the cursor, without the middle.
            tokens: largest number of tokens in all chunks together. A small number gives shorter chunks.
            rng: random generator, which also varies the ranks, so that epochs have different chunks.
        """
        names = set(_NAME.findall(near))
        lines = min(max(tokens // _TOKENS_PER_LINE, LINES[0]), LINES[1])
        ranked = []
        for other in self.related(path, rng):
            content = self.by_path[other].text.splitlines(keepends=True)
            for start in range(0, len(content), lines):
                text = "".join(content[start : start + lines])
                shared = names & set(_NAME.findall(text))
                score = sum(1 / self._files_with[name] for name in shared) * rng.uniform(0.5, 1)
                if text.strip():
                    ranked.append((score, other, text))
        for _, other, text in sorted(ranked, reverse=True):
            yield other, text


def with_repositories(rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row, RepositoryFiles | None]]:
    """Yield (row number, row, files of the row's repository).

    The files are None for a row without the columns `repository`, `path` and `text`. Rows of a repository must be
    adjacent, as the builder `corpus` writes them. One repository at a time is in memory.
    """
    for repository, group in groupby(rows, key=lambda row: _repository_of(row[1])):
        if repository is None:
            yield from ((number, row, None) for number, row in group)
            continue
        members = list(group)
        texts = {row["path"]: row for _, row in members}
        files = [RepositoryFile(path, row["text"], language_of(row)) for path, row in texts.items()]
        related = RepositoryFiles(repository, files)
        yield from ((number, row, related) for number, row in members)


def language_of(row: Row) -> str:
    """Return the language of a document: the column `language`, or the language detected from path and text."""
    return str(row.get("language") or detect(str(row.get("path") or ""), row["text"]))


def _repository_of(row: Row) -> str | None:
    columns = [row.get(name) for name in ("repository", "path", "text")]
    return str(columns[0]) if all(isinstance(value, str) and value for value in columns) else None
