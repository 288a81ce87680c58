"""Find repositories and folders from paths, globs and URLs, and list and read their files in a fixed order.

In a recipe, a source of code is a path, a glob, a URL, or a mapping (`Source`) with `path` and optional settings:

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
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from alignment.settings import Settings
from data_builders.builder import BuildContext
from data_builders.repositories import git
from data_builders.repositories.locations import Interpreter, Location
from data_builders.repositories.remote_git import clone, is_url, remote_state, repository_name, strip_credentials
from data_builders.repositories.text_decoding import decode, printable_path

LFS_POINTER = "version https://git-lfs.github.com/spec/"
"""Beginning of a file that stands for a large file, which Git LFS keeps elsewhere."""
_COMMIT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Source(Settings):
    """One source of code. In a recipe, a string is short for the mapping `{path: STRING}`."""

    path: Location
    """Path of a repository or folder, a glob that matches repositories or folders, or a URL that git can clone."""
    commit: str | None = None
    """Commit, branch or tag to read. The default is HEAD. For a URL, only a full commit id makes the result
    reproducible."""
    name: str | None = None
    """Name of the repository in the rows. The default is the name of the folder."""
    license: str | None = None
    """License of the code: an SPDX id, or `owned` for private code. By default, it is detected from license files."""
    before: str | None = None
    """Date (`2026-01-31`, UTC) before which commits are read. Later commits are left for the private benchmark."""
    held_out: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the newest commits that are left for the private benchmark, for example 0.1. Alternative to `before`."""
    interpreter: Interpreter | None = None
    """Python interpreter with all packages that the tests of the repository need, for example
    `/srv/venv/bin/python`. A relative path starts at the folder of the recipe."""

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _check_split(self) -> Self:
        if self.before is not None and self.held_out is not None:
            raise ValueError("give either `before` or `held_out`, not both: each selects the commits to hold out")
        if self.before is not None:
            git.parse_date(self.before)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        reference = handler(schema)
        definition = handler.resolve_ref_schema(reference)
        mapping = dict(definition)
        definition.clear()
        definition["anyOf"] = [{"type": "string"}, mapping]
        return reference


Sources = Annotated[list[Source], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository or folder that a source refers to."""

    name: str
    path: Path
    """The git directory of a repository, or the path of a plain folder."""
    commit: str
    """Full id of the commit to read, or "" for a plain folder. If the source is split by time, this is the last commit
    before the split."""
    license: str
    """License that the user declares for the source, or "" if the license is to be detected."""
    head: str = ""
    """Newest commit of a source that is split by time, or "" for any other source."""
    interpreter: str = ""
    """Python interpreter for the tests of the repository, or "" for the default interpreter."""

    @property
    def is_git(self) -> bool:
        """Whether the source is a git repository (true) or a plain folder (false)."""
        return bool(self.commit)

    def record(self) -> dict[str, str]:
        """Return what an artifact records about the repository, without its path."""
        values = {"name": self.name, "commit": self.commit, "license": self.license, "head": self.head}
        return {key: value for key, value in values.items() if value or key != "head"}


@dataclass(frozen=True, slots=True)
class File:
    """One file of a repository."""

    path: str
    size: int
    """Size of the file in bytes."""
    object_id: str
    """Id of the git blob that holds the file, or "" for a file of a plain folder."""
    skip: str = ""
    """Reason to skip the file (`symlink`, `too_large`, ...), or "" to read the file."""


def resolve(sources: Iterable[Source | str | Path], clone_folder: Path | None = None) -> list[Repository]:
    """Find the repositories and folders of sources: expand globs, clone URLs and resolve commits.

    Args:
        sources: sources, or only their paths and URLs.
        clone_folder: folder for clones. If None, a source with a URL is an error.

    Returns:
        The repositories without duplicates, in the order of `sources`. Matches of a glob are sorted.

    Raises:
        ValueError: a source does not exist, or does not contain the commit that it names.
    """
    repositories: dict[tuple[Path, str], Repository] = {}
    for source in map(Source.model_validate, sources):
        for path, name in _expand(source.path.absolute(), clone_folder):
            repository = _open(path, source.name or name, source)
            repositories.setdefault((repository.path, repository.commit), repository)
    if not repositories:
        raise ValueError("no sources: name at least one repository, folder, glob or URL")
    return _distinct_names(list(repositories.values()))


@contextlib.contextmanager
def cloned(sources: Iterable[Source | str | Path], context: BuildContext | None = None) -> Iterator[list[Repository]]:
    """Resolve sources in a context manager, and add the repositories to `context.repositories`.

    Clones are made in `context.clone_folder`, or else in a temporary folder.
    """
    with tempfile.TemporaryDirectory(prefix="clones-") as temporary:
        repositories = resolve(sources, (context and context.clone_folder) or Path(temporary))
        if context is not None:
            context.repositories.extend(repository.record() for repository in repositories)
        yield repositories


def _expand(location: str, clone_folder: Path | None) -> list[tuple[Path, str]]:
    if is_url(location):
        if clone_folder is None:
            raise ValueError(f"{strip_credentials(location)} is remote: give a folder for clones (`clone_folder`)")
        return [(clone(location, clone_folder), repository_name(location))]
    path = Path(location).expanduser()
    if not path.exists() and any(char in location for char in "*?["):
        matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        folders = [match for match in matches if match.is_dir()]
        if not folders:
            raise ValueError(f"no folder matches {location}")
        return [(match, match.name) for match in folders]
    if not path.is_dir():
        problem = "is a file" if path.exists() else "does not exist"
        raise ValueError(f"source {location} {problem}; give a git repository or a folder")
    return [(path, (Path.cwd() / path).name or path.resolve().name)]


def location_problem(location: Location) -> str:
    """Return a description of the error in a location, or "" for a valid location. Remotes are not contacted."""
    try:
        absolute = location.absolute()
        if not is_url(absolute):
            _expand(absolute, None)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def source_problem(source: Source) -> str:
    """Return a description of the error in a source, for example an unknown commit, or "" for a valid source.

    The location of the source must exist, see `location_problem`.
    """
    location = source.path.absolute()
    try:
        for path, name in [] if is_url(location) else _expand(location, None):
            _open(path, name, source)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


class ReadsSources(Protocol):
    """Settings of a builder that reads sources of code (field `sources`)."""

    @property
    def sources(self) -> list[Source]: ...


def source_states(settings: ReadsSources) -> list[list[str]]:
    """Return [name, state] of each repository, for fingerprints.

    The state of a git repository is the id of its commit. The state of a plain folder is a hash of the sizes and times
    of its files. For a URL without a full commit id, the remote is asked for its refs, and the state is a hash of these
    refs.
    """
    return [[name, commit] for name, commit, _ in _states(settings.sources)]


def source_states_with_head(settings: ReadsSources) -> list[list[str]]:
    """Return [name, state, head] of each repository, for fingerprints of builders that read held-out code.

    `head` is the head commit of a source that is split by time. For the name and the state, see `source_states`.
    """
    return [list(state) for state in _states(settings.sources)]


def _states(sources: Iterable[Source]) -> Iterator[tuple[str, str, str]]:
    for source in sources:
        location = source.path.absolute()
        if is_url(location):
            commit = source.commit or "HEAD"
            yield strip_credentials(location), commit if _COMMIT_ID.fullmatch(commit) else remote_state(location), ""
            continue
        for path, name in _expand(location, None):
            repository = _open(path, source.name or name, source)
            yield repository.name, repository.commit or _state(repository), repository.head


def _state(folder: Repository) -> str:
    digest = hashlib.sha256()
    for file in list_files(folder, 1 << 62):
        times = os.lstat(folder.path / file.path).st_mtime_ns if not file.skip else 0
        digest.update(f"{file.size} {times} {file.skip} ".encode() + os.fsencode(file.path) + b"\0")
    return digest.hexdigest()


def _open(path: Path, name: str, source: Source) -> Repository:
    license, interpreter = source.license or "", source.interpreter.absolute() if source.interpreter is not None else ""
    git_dir = git.find_git_dir(path)
    if git_dir is None:
        if source.commit:
            raise ValueError(f"{path} is not a git repository, so it has no commit {source.commit!r}")
        if source.before is not None or source.held_out is not None:
            raise ValueError(f"{path} is not a git repository: it has no history to split by time")
        return Repository(name, path.resolve(), "", license, interpreter=interpreter)
    if name == ".git":
        name = path.resolve().parent.name
    commit = head = git.resolve_commit(git_dir, source.commit or "HEAD")
    if source.before is not None:
        commit = git.commit_before(git_dir, head, source.before)
    elif source.held_out is not None:
        commit = git.commit_before_newest(git_dir, head, source.held_out)
    if git.is_partial(git_dir):
        for _ in git.list_tree(git_dir, commit):  # raises ValueError if most files are missing
            break
    return Repository(name.removesuffix(".git"), git_dir, commit, license, head if head != commit else "", interpreter)


def _distinct_names(repositories: list[Repository]) -> list[Repository]:
    """Make the names of repositories unique: two repositories named `app` become `app` and `app-2`.

    This is needed because rows are grouped by the name of the repository.
    """
    seen: dict[str, int] = {}
    distinct = []
    for repository in repositories:
        count = seen[repository.name] = seen.get(repository.name, 0) + 1
        name = repository.name if count == 1 else f"{repository.name}-{count}"
        distinct.append(replace(repository, name=name))
    return distinct


def list_files(repository: Repository, max_bytes: int, max_notebook_bytes: int = 0) -> list[File]:
    """Return the files that `iterate_files` yields, as a list."""
    return list(iterate_files(repository, max_bytes, max_notebook_bytes))


def iterate_files(
    repository: Repository, max_bytes: int, max_notebook_bytes: int = 0, *, top: bool = False
) -> Iterator[File]:
    """Yield the files of a repository, sorted by path in byte order. Memory does not grow with the number of files.

    `File.skip` gives a reason for symbolic links, submodules, large files, and paths that lead out of the repository.

    Args:
        repository: the repository.
        max_bytes: maximum size of a file. Larger files are skipped.
        max_notebook_bytes: maximum size of a notebook, if this number is larger than `max_bytes`. Notebooks may be
            larger than other files, because their pictures are dropped later.
        top: whether to list only the files of the top-level folder.
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
            skip = "unsafe_path"  # git never creates trees with these paths, but can read them
        yield File(entry.path, entry.size, entry.object_id, skip)


def _walk(root: Path, limit: Callable[[str], int], top: bool) -> Iterator[File]:
    """Yield the files of a plain folder. Links are not followed: they could form loops or lead out of `root`."""
    stack = [""]  # paths to visit, the next path last. Paths of folders end in a slash; the path of the root is empty.
    while stack:
        path = stack.pop()
        try:
            if not path or path.endswith("/"):
                paths = []
                with os.scandir(root / path) as entries:
                    for entry in entries:
                        folder = entry.is_dir(follow_symlinks=False)
                        if not (folder and (top or entry.name == ".git")):
                            paths.append(path + entry.name + "/" * folder)
                stack += sorted(paths, key=os.fsencode, reverse=True)
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
    """Reads the files of one repository through one git process. Use the reader as a context manager."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.blobs = git.BlobReader(repository.path) if repository.is_git else None

    def read(self, file: File) -> bytes | None:
        """Return the content of a file, or None if the file can't be read."""
        return next(self.read_many([file]))

    def read_many(self, files: Iterable[File]) -> Iterator[bytes | None]:
        """Yield the contents of several files in order. This is faster than calling `read` for each file.

        The iterator must be exhausted before the next call of `read` or `read_many`.
        """
        if self.blobs is not None:
            return self.blobs.read_many(file.object_id for file in files)
        return map(self._open, files)

    def _open(self, file: File) -> bytes | None:
        try:
            # O_NOFOLLOW: the file may have been replaced by a link since it was listed.
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
    """Read all text files of a repository, keyed by path as `printable_path` returns it, with `\\n` as line ends.

    These files are left out: files larger than `max_bytes`, binary files, and pointers of Git LFS.
    """
    texts = {}
    with Reader(repository) as reader:
        files = [file for file in list_files(repository, max_bytes) if not file.skip]
        for file, content in zip(files, reader.read_many(files), strict=True):
            text, reason = decode(content) if content is not None else ("", "unreadable")
            if not reason and not text.startswith(LFS_POINTER):
                texts[printable_path(file.path)] = text
    return texts
