"""Chunks of related files to stand in front of a fill-in-the-middle sample, as editors send them.

Candidates are the files that the sample's file imports, and its neighbours in the folder, of the same repository and commit.
Chunks are ranked by the rare names that they share with the text around the cursor. The middle is not compared: an editor
does not know it either.
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
"""Files of the same folder that are candidates, drawn at random."""
LINES = (8, 64)
"""Smallest and largest number of lines of a chunk; llama.vscode's chunks have 64."""
_TOKENS_PER_LINE = 24
"""A chunk takes about half of its budget at this many tokens per line, twice the average of code."""
_NAME = re.compile(r"[^\W\d]\w{2,}")


class RepositoryFile(NamedTuple):
    """One file of a repository."""

    path: str
    text: str
    language: str


class RepositoryFiles:
    """The files of one repository at one commit.

    Args:
        repository: its name.
        files: all its files.
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
        """The number of files that hold each name."""
        return Counter(name for file in self.by_path.values() for name in set(_NAME.findall(file.text)))

    def related(self, path: str, rng: random.Random) -> list[str]:
        """Return paths of files that the file at `path` imports, and of some neighbours in its folder."""
        file = self.by_path[path]
        imported = self._resolver.dependencies(path, file.language, imports(file.language, file.text))
        neighbours = [other for other in self._folders[posixpath.dirname(path)] if other not in (path, *imported)]
        return [*imported, *rng.sample(neighbours, min(NEIGHBOURS, len(neighbours)))]

    def chunks(self, path: str, near: str, tokens: int, rng: random.Random) -> Iterator[tuple[str, str]]:
        """Yield chunks of related files as (path, text), the best first.

        Args:
            path: the file in which the cursor is.
            near: the text around the cursor, without the middle.
            tokens: tokens that all chunks together may have; chunks have fewer lines where this is small.
            rng: source of the draws. Ranks are changed a little, so that epochs have different chunks.
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
    """Yield rows with the files of their repository, if they have the columns `repository`, `path` and `text`.

    Rows of a repository must be adjacent, as the builder `corpus` writes them; one repository at a time is in memory.
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
    """Return the language of a document with `text`: its column, or what its path and text tell."""
    return str(row.get("language") or detect(str(row.get("path") or ""), row["text"]))


def _repository_of(row: Row) -> str | None:
    columns = [row.get(name) for name in ("repository", "path", "text")]
    return str(columns[0]) if all(isinstance(value, str) and value for value in columns) else None
