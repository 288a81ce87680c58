"""Walk a repository's history: each ordinary commit with the files it changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_builders.repositories import git

BATCH_COMMITS = 256
"""Commits whose changes are asked for at once, and that one worker gets at once."""
MAX_COMMIT_BYTES = 1 << 20
"""Bytes of a commit that are read: no message is longer."""


@dataclass(frozen=True)
class Change:
    """One changed file; an added file has no `before`, a deleted one no `after` (object ids, "" for none)."""

    path: str
    before: str
    after: str


@dataclass(frozen=True)
class Commit:
    """A commit with one parent, and what it changed."""

    id: str
    author: str
    message: str
    changes: list[Change]


def commit_batches(git_dir: Path, head: str) -> Iterator[list[str]]:
    """Ids of the commits reachable from `head` that have exactly one parent, oldest first.

    Merges and root commits are left out, and so are the oldest commits of a shallow clone: git would show all of their
    files as new.
    """
    boundary = git.shallow_boundary(git_dir)
    listed = git.run(git_dir, "rev-list", "--no-merges", "--min-parents=1", "--topo-order", "--reverse", head)
    wanted = [line for line in listed.decode("ascii").split() if line not in boundary]
    for start in range(0, len(wanted), BATCH_COMMITS):
        yield wanted[start : start + BATCH_COMMITS]


def read_commits(git_dir: Path, identifiers: list[str], reader: git.BlobReader) -> Iterator[Commit]:
    """Some commits with what they changed."""
    changes = _changes(git_dir, identifiers)
    for identifier, content in zip(identifiers, reader.read_many(identifiers, MAX_COMMIT_BYTES), strict=True):
        if content is not None:
            yield _commit(identifier, content, changes.get(identifier, []))


def _changes(git_dir: Path, identifiers: list[str]) -> dict[str, list[Change]]:
    """The changed regular files of some commits, through one `git diff-tree`."""
    output = git.run(
        git_dir,
        "diff-tree",
        "--stdin",
        "-r",
        "-z",
        "--raw",
        "--no-renames",
        "--no-abbrev",
        "--no-ext-diff",
        "--no-textconv",
        stdin="\n".join([*identifiers, ""]).encode("ascii"),
    )
    found: dict[str, list[Change]] = {}
    current: list[Change] = []
    fields = iter(output.split(b"\0"))
    for item in fields:
        if not item.startswith(b":"):
            current = found.setdefault(item.decode("ascii"), [])
            continue
        old_mode, new_mode, before, after, _ = item[1:].split(b" ")
        path = os.fsdecode(next(fields))
        if not {old_mode, new_mode} & {b"120000", b"160000"}:
            current.append(Change(path, _object(before), _object(after)))
    return found


def _object(identifier: bytes) -> str:
    return "" if not identifier.strip(b"0") else identifier.decode("ascii")


def _commit(identifier: str, content: bytes, changes: list[Change]) -> Commit:
    head, _, message = content.partition(b"\n\n")
    author = next((line[7:] for line in head.split(b"\n") if line.startswith(b"author ")), b"")
    return Commit(
        identifier,
        author.decode("utf-8", "replace").rpartition(">")[0],
        message.decode("utf-8", "replace").strip(),
        changes,
    )
