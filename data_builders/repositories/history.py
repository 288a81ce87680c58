"""Read the history of a repository: commits with one parent, and the files that each commit changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data_builders.repositories import git

BATCH_COMMITS = 256
"""Number of commits per batch. One worker process reads a batch with one git process."""
MAX_COMMIT_BYTES = 1 << 20
"""Number of bytes that are read of a commit object. The rest of a longer message is ignored."""


@dataclass(frozen=True)
class Change:
    """One file that a commit changed."""

    path: str
    before: str
    """Object id of the old content, or "" for an added file."""
    after: str
    """Object id of the new content, or "" for a deleted file."""


@dataclass(frozen=True)
class Commit:
    """A commit with one parent, and the regular files that it changed."""

    id: str
    author: str
    """Name and e-mail address of the author, as `Name <address` without the closing bracket."""
    message: str
    changes: list[Change]


def commit_batches(git_dir: Path, head: str) -> Iterator[list[str]]:
    """Yield batches of the ids of all commits that `head` contains and that have exactly one parent, oldest first.

    Merges are left out. Root commits and the oldest commits of a shallow clone are also left out, because git would
    show all of their files as added.
    """
    boundary = git.shallow_boundary(git_dir)
    output = git.run(git_dir, "rev-list", "--no-merges", "--min-parents=1", "--topo-order", "--reverse", head)
    commits = [line for line in output.decode("ascii").split() if line not in boundary]
    for start in range(0, len(commits), BATCH_COMMITS):
        yield commits[start : start + BATCH_COMMITS]


def author_names(git_dir: Path, head: str) -> set[str]:
    """Return the names of all authors and committers of the commits that `head` contains."""
    output = git.run(git_dir, "log", "--format=%an%n%cn", head)
    return set(output.decode("utf-8", "replace").splitlines())


@cache
def added_paths(git_dir: Path) -> frozenset[str]:
    """Return the paths of all files that some commit of any branch added, and of all files that moves gave a new path."""
    output = git.run(
        git_dir, "log", "--all", "HEAD", "--format=", "--name-only", "--diff-filter=A", "--no-renames", "-z"
    )
    return frozenset(os.fsdecode(path) for path in output.split(b"\0") if path)


def read_commits(git_dir: Path, identifiers: list[str], reader: git.BlobReader) -> Iterator[Commit]:
    """Yield the commits with the given ids, and the files that they changed. Missing commits are left out."""
    changes = _changes(git_dir, identifiers)
    for identifier, content in zip(identifiers, reader.read_many(identifiers, MAX_COMMIT_BYTES), strict=True):
        if content is not None:
            yield _commit(identifier, content, changes.get(identifier, []))


def _changes(git_dir: Path, identifiers: list[str]) -> dict[str, list[Change]]:
    """Return the changed regular files of each commit, from one call of `git diff-tree`."""
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
    changes: dict[str, list[Change]] = {}
    current: list[Change] = []
    fields = iter(output.split(b"\0"))
    for item in fields:
        if not item.startswith(b":"):
            current = changes.setdefault(item.decode("ascii"), [])
            continue
        old_mode, new_mode, before, after, _ = item[1:].split(b" ")
        path = os.fsdecode(next(fields))
        if not {old_mode, new_mode} & {b"120000", b"160000"}:
            current.append(Change(path, _object(before), _object(after)))
    return changes


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
