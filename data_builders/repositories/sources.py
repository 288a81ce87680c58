"""From what the user names (repositories, folders, globs, remote URLs) to the files in them, in a fixed order.

A source is a path, a glob or a URL, or a mapping (`Source`) with `path` and optionally `commit`, `name` and `license`:

    sources:
      - /srv/git/*.git
      - {path: ../service, commit: v2.1, license: owned}
      - ssh://git@git.example/team/tool.git
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NewType

from data_builders.repositories import git
from data_builders.repositories.remote_git import clone, is_url, remote_state, repository_name, strip_credentials
from data_builders.storage.settings import from_mapping

_COMMIT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

Location = NewType("Location", str)
"""Where repositories are: the path of one, of a folder, a glob of them, or a URL that git can clone."""


@dataclass(frozen=True)
class Source:
    """One source, where more than its location is said."""

    path: Location
    commit: str | None = None
    """A commit, branch or tag; by default what HEAD points to. For a URL, only a full commit id is the same tomorrow."""
    name: str | None = None
    """What rows call the repository; by default the folder's name."""
    license: str | None = None
    """An SPDX id, or `owned` for private code; by default what its licence files say."""
    before: str | None = None
    """A date (`2026-01-31`, UTC): only what was committed before it is read. What came after is the private benchmark."""
    held_out: float | None = None
    """Or a share: the newest commits that are not read, 0.1 for a tenth of them."""
    interpreter: str | None = None
    """Python that has what its tests need, for example `/srv/venv/bin/python`, where its tests are run at all."""

    def __post_init__(self) -> None:
        if self.before is not None and self.held_out is not None:
            raise ValueError("give either `before` or `held_out`: both say where the newest commits begin")
        if self.held_out is not None and not 0 < self.held_out < 1:
            raise ValueError(f"held_out is a share of the commits, above 0 and below 1, not {self.held_out}")
        if self.before is not None:
            git.parse_date(self.before)


@dataclass(frozen=True, slots=True)
class Repository:
    """One resolved source. `commit` is a full commit id, or "" for a plain folder; `license` "" means: find out."""

    name: str
    path: Path
    commit: str
    license: str
    head: str = ""
    """Of a source that is split by time, the commit that it is split at the end of; `commit` is the last one before."""
    interpreter: str = ""

    @property
    def is_git(self) -> bool:
        return bool(self.commit)


@dataclass(frozen=True, slots=True)
class File:
    """One file of a repository. `skip` is a reason not to read it, found without opening it."""

    path: str
    size: int
    object_id: str
    skip: str = ""


Sources = Sequence[str | Path | Mapping[str, Any] | Source]


def _as_source(source: str | Path | Mapping[str, Any] | Source) -> Source:
    if isinstance(source, str | Path):
        source = Source(Location(str(source)))
    elif isinstance(source, Mapping) and not source.get("path"):
        raise ValueError(f"a source needs `path`: {dict(source)}")
    return from_mapping(Source, source)


def resolve(sources: Sources, clone_dir: Path | None = None) -> list[Repository]:
    """Expand globs, clone URLs into `clone_dir`, resolve commits. In the order given, globs sorted; no duplicates."""
    if not sources:
        raise ValueError("no sources: name at least one repository, folder, glob or URL")
    found: dict[tuple[Path, str], Repository] = {}
    for source in sources:
        wanted = _as_source(source)
        for path, name in _expand(str(wanted.path), clone_dir):
            repository = _open(path, wanted.name or name, wanted)
            found.setdefault((repository.path, repository.commit), repository)
    return _distinct_names(list(found.values()))


def _expand(location: str, clone_dir: Path | None) -> list[tuple[Path, str]]:
    if is_url(location):
        if clone_dir is None:
            raise ValueError(f"{strip_credentials(location)} is remote: give a folder for clones (`clone_dir`)")
        return [(clone(location, clone_dir), repository_name(location))]
    path = Path(location).expanduser()
    if not path.exists() and any(char in location for char in "*?["):
        matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        folders = [match for match in matches if match.is_dir()]
        if not folders:
            raise ValueError(f"no folder matches {location}")
        return [(match, match.name) for match in folders]
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ValueError(f"source {location} {what}; name a git repository or a folder")
    return [(path, (Path.cwd() / path).name or path.resolve().name)]


def resolved_location(location: str, folder: Path) -> str:
    """A location relative to `folder`, made absolute; URLs stay as they are."""
    return location if is_url(location) else os.path.normpath(folder / Path(location).expanduser())


def problem_of(location: str, settings: Mapping[str, Any]) -> str:
    """What is wrong with an absolute location and the settings of a `Source`, or "". Nothing is asked of a remote."""
    known = {"commit": str, "before": str, "held_out": float | int}
    given = {name: settings[name] for name, kind in known.items() if isinstance(settings.get(name), kind)}
    try:
        wanted = from_mapping(Source, {"path": location, **given})
        for path, name in [] if is_url(location) else _expand(location, None):
            _open(path, name, wanted)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def inputs(sources: Sources, **_: Any) -> list[list[str]]:
    """What the content of `sources` depends on: commit ids; for a plain folder the sizes and times of its files.

    A URL without a full commit id is asked for what it points to now.
    """
    return [[name, commit] for name, commit, _ in _states(sources)]


def inputs_with_head(sources: Sources, **_: Any) -> list[list[str]]:
    """The same with the commits that sources are split at the end of, for what reads the held-out share."""
    return [list(state) for state in _states(sources)]


def _states(sources: Sources) -> Iterator[tuple[str, str, str]]:
    for source in sources:
        wanted = _as_source(source)
        location = str(wanted.path)
        if is_url(location):
            commit = wanted.commit or "HEAD"
            yield strip_credentials(location), commit if _COMMIT_ID.fullmatch(commit) else remote_state(location), ""
            continue
        for path, name in _expand(location, None):
            repository = _open(path, wanted.name or name, wanted)
            yield repository.name, repository.commit or _state(repository), repository.head


def _state(folder: Repository) -> str:
    digest = hashlib.sha256()
    for file in list_files(folder, 1 << 62):
        times = os.lstat(folder.path / file.path).st_mtime_ns if not file.skip else 0
        digest.update(f"{file.size} {times} {file.skip} ".encode() + os.fsencode(file.path) + b"\0")
    return digest.hexdigest()


def _open(path: Path, name: str, wanted: Source) -> Repository:
    license, interpreter = wanted.license or "", wanted.interpreter or ""
    git_dir = git.find_git_dir(path)
    if git_dir is None:
        if wanted.commit:
            raise ValueError(f"{path} is not a git repository, so it has no commit {wanted.commit!r}")
        if wanted.before is not None or wanted.held_out is not None:
            raise ValueError(f"{path} is not a git repository: without a history it can't be split by time")
        return Repository(name, path.resolve(), "", license, interpreter=interpreter)
    if name == ".git":
        name = path.resolve().parent.name
    commit = head = git.resolve_commit(git_dir, wanted.commit or "HEAD")
    if wanted.before is not None:
        commit = git.commit_before(git_dir, head, wanted.before)
    elif wanted.held_out is not None:
        commit = git.commit_before_newest(git_dir, head, wanted.held_out)
    return Repository(name.removesuffix(".git"), git_dir, commit, license, head if head != commit else "", interpreter)


def _distinct_names(repositories: list[Repository]) -> list[Repository]:
    """Two checkouts called `app` become `app` and `app-2`: rows are grouped by repository name."""
    seen: dict[str, int] = {}
    distinct = []
    for repository in repositories:
        count = seen[repository.name] = seen.get(repository.name, 0) + 1
        name = repository.name if count == 1 else f"{repository.name}-{count}"
        distinct.append(replace(repository, name=name))
    return distinct


def list_files(repository: Repository, max_bytes: int, max_notebook_bytes: int = 0) -> list[File]:
    """All files of a repository, as `iterate_files` gives them."""
    return list(iterate_files(repository, max_bytes, max_notebook_bytes))


def iterate_files(
    repository: Repository, max_bytes: int, max_notebook_bytes: int = 0, *, top: bool = False
) -> Iterator[File]:
    """The files of a repository, sorted by path in byte order; with `top`, those of its top level alone.

    Links, submodules, over-long files and what has a path that leads elsewhere come with a reason to skip. A notebook may
    be longer (`max_notebook_bytes`): most of it is pictures, which no row gets. Memory does not grow with the files.
    """

    def limit(path: str) -> int:
        return max(max_bytes, max_notebook_bytes) if path.endswith(".ipynb") else max_bytes

    if not repository.is_git:
        yield from _walk(repository.path, limit, top)
        return
    for entry in git.list_tree(repository.path, repository.commit, top=top):
        skip = "symlink" if entry.is_symlink else "submodule" if entry.is_submodule else ""
        if not skip and entry.size > limit(entry.path):
            skip = "too_large"
        if not {"", ".", ".."}.isdisjoint(entry.path.split("/")):
            skip = "unsafe_path"  # git makes no such tree, but reads it
        yield File(entry.path, entry.size, entry.object_id, skip)


def _walk(root: Path, limit: Callable[[str], int], top: bool) -> Iterator[File]:
    """Regular files under `root`; links are never followed, so loops and escapes end here."""
    waiting = [""]  # what is still to come, the next one last; a folder's path ends in a slash, the root's is empty
    while waiting:
        path = waiting.pop()
        try:
            if not path or path.endswith("/"):
                found = []
                with os.scandir(root / path) as entries:
                    for entry in entries:
                        folder = entry.is_dir(follow_symlinks=False)
                        if not (folder and (top or entry.name == ".git")):
                            found.append(path + entry.name + "/" * folder)
                waiting += sorted(found, key=os.fsencode, reverse=True)
                continue
            status = os.lstat(root / path)
        except OSError:
            yield File(path.rstrip("/"), 0, "", "unreadable")
            continue
        if stat.S_ISLNK(status.st_mode):
            yield File(path, 0, "", "symlink")
        elif not stat.S_ISREG(status.st_mode):
            yield File(path, 0, "", "special_file")
        else:
            yield File(path, status.st_size, "", "too_large" if status.st_size > limit(path) else "")


class Reader:
    """Reads files of one repository; keeps one git process open. A context manager."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.blobs = git.BlobReader(repository.path) if repository.is_git else None

    def read(self, file: File) -> bytes | None:
        """The bytes of a file, or None where it can't be read."""
        return next(self.read_many([file]))

    def read_many(self, files: Iterable[File]) -> Iterator[bytes | None]:
        """`read` of each, in order. Take all of them before anything else is asked of this reader."""
        if self.blobs is not None:
            return self.blobs.read_many(file.object_id for file in files)
        return map(self._open, files)

    def _open(self, file: File) -> bytes | None:
        try:
            # O_NOFOLLOW: the file may have become a link since it was listed.
            handle = os.open(self.repository.path / file.path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return None
        with os.fdopen(handle, "rb") as stream:
            return stream.read()

    def close(self) -> None:
        if self.blobs is not None:
            self.blobs.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_texts(repository: Repository, max_bytes: int = 1 << 20) -> dict[str, str]:
    """The files of a repository that are UTF-8 text, by path; others, and longer ones, are left out."""
    found = {}
    with Reader(repository) as reader:
        for file in list_files(repository, max_bytes):
            content = None if file.skip else reader.read(file)
            if content is not None and b"\0" not in content:
                with contextlib.suppress(UnicodeDecodeError):
                    found[file.path] = content.decode("utf-8")
    return found
