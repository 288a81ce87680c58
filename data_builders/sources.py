"""From what the user names (repositories, folders, globs, remote URLs) to the files in them, in a fixed order.

A source is a path, a glob or a URL, or a mapping with `path` and optionally `commit`, `name` and `license`:

    sources:
      - /srv/git/*.git
      - {path: ../service, commit: v2.1, license: owned}
      - ssh://git@git.example/team/tool.git
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders import git

_URL = re.compile(r"^(?:(?:https?|ssh|git|file)://|[\w.-]+@[\w.-]+:)")
_SETTINGS = {"path", "commit", "name", "license"}


@dataclass(frozen=True)
class Repository:
    """One resolved source. `commit` is a full commit id, or "" for a plain folder; `license` "" means: find out."""

    name: str
    path: Path
    commit: str
    license: str

    @property
    def is_git(self) -> bool:
        return bool(self.commit)


@dataclass(frozen=True)
class File:
    """One file of a repository. `skip` is a reason not to read it, found without opening it."""

    path: str
    size: int
    object_id: str
    skip: str = ""


def resolve(sources: Sequence[str | Path | dict[str, Any]], clone_dir: Path | None = None) -> list[Repository]:
    """Expand globs, clone URLs into `clone_dir`, resolve commits. In the order given, globs sorted; no duplicates."""
    if not sources:
        raise ValueError("no sources: name at least one repository, folder, glob or URL")
    found: dict[tuple[Path, str], Repository] = {}
    for source in sources:
        settings = source if isinstance(source, dict) else {"path": str(source)}
        if unknown := set(settings) - _SETTINGS:
            raise ValueError(
                f"unknown setting {sorted(unknown)[0]!r} in source {settings}; known: {', '.join(sorted(_SETTINGS))}"
            )
        if not settings.get("path"):
            raise ValueError(f"a source needs `path`: {settings}")
        for path, name in _expand(str(settings["path"]), clone_dir):
            repository = _open(
                path, settings.get("name") or name, settings.get("commit"), settings.get("license") or ""
            )
            found.setdefault((repository.path, repository.commit), repository)
    return _distinct_names(list(found.values()))


def _expand(location: str, clone_dir: Path | None) -> list[tuple[Path, str]]:
    if _URL.match(location):
        if clone_dir is None:
            raise ValueError(f"{strip_credentials(location)} is remote: give a folder for clones (`clone_dir`)")
        return [(clone(location, clone_dir), _name_of_url(location))]
    path = Path(location).expanduser()
    if not path.exists() and any(char in location for char in "*?["):
        matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        folders = [match for match in matches if match.is_dir()]
        if not folders:
            raise ValueError(f"no folder matches {location}")
        return [(match, match.resolve().name) for match in folders]
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ValueError(f"source {location} {what}; name a git repository or a folder")
    return [(path, path.resolve().name)]


def _open(path: Path, name: str, commit: str | None, license: str) -> Repository:
    git_dir = git.find_git_dir(path)
    if git_dir is None:
        if commit:
            raise ValueError(f"{path} is not a git repository, so it has no commit {commit!r}")
        return Repository(name, path.resolve(), "", license)
    if name == ".git":
        name = path.resolve().parent.name
    return Repository(name.removesuffix(".git"), git_dir, git.resolve_commit(git_dir, commit or "HEAD"), license)


def _distinct_names(repositories: list[Repository]) -> list[Repository]:
    """Two checkouts called `app` become `app` and `app-2`: rows are grouped by repository name."""
    seen: dict[str, int] = {}
    distinct = []
    for repository in repositories:
        count = seen[repository.name] = seen.get(repository.name, 0) + 1
        name = repository.name if count == 1 else f"{repository.name}-{count}"
        distinct.append(Repository(name, repository.path, repository.commit, repository.license))
    return distinct


def strip_credentials(url: str) -> str:
    return re.sub(r"(://)[^/@]*@", r"\1", url)


def _name_of_url(url: str) -> str:
    return re.split(r"[/:]", url.rstrip("/"))[-1].removesuffix(".git")


def clone(url: str, clone_dir: Path) -> Path:
    """Fetch all branches of `url` into a bare repository with the user's own git; the URL is not written anywhere."""
    target = clone_dir / f"{_name_of_url(url)}.git"
    arguments = ["git", *git.SAFE_OPTIONS, f"--git-dir={target}"]
    environment = git.environment("https:http:ssh:git:file")
    clone_dir.mkdir(parents=True, exist_ok=True)
    steps = [
        ["git", "init", "--quiet", "--bare", str(target)],
        [
            *arguments,
            "fetch",
            "--quiet",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--",
            url,
            "+refs/*:refs/*",
        ],
        [*arguments, "ls-remote", "--symref", "--", url, "HEAD"],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, env=environment)
        if done.returncode:
            lines = strip_credentials(done.stderr).strip().splitlines() or ["no message"]
            raise ValueError(f"could not clone {strip_credentials(url)}: {lines[-1]}")
    head = re.match(r"ref: (refs/\S+)\tHEAD", done.stdout)
    if head:
        git.run(target, "symbolic-ref", "HEAD", head.group(1))
    return target


def list_files(repository: Repository, max_bytes: int) -> list[File]:
    """All files of a repository, sorted by path. Links, submodules and over-long files come with a reason to skip."""
    if not repository.is_git:
        return sorted(_walk(repository.path, max_bytes), key=lambda file: os.fsencode(file.path))
    files = []
    for entry in git.list_tree(repository.path, repository.commit):
        skip = "symlink" if entry.is_symlink else "submodule" if entry.is_submodule else ""
        if not skip and entry.size > max_bytes:
            skip = "too_large"
        files.append(File(entry.path, entry.size, entry.object_id, skip))
    return sorted(files, key=lambda file: os.fsencode(file.path))


def _walk(root: Path, max_bytes: int) -> Iterator[File]:
    """Regular files under `root`; links are never followed, so loops and escapes end here."""
    for folder, names, filenames in os.walk(root, followlinks=False):
        linked = [name for name in names if (Path(folder) / name).is_symlink()]
        names[:] = sorted(name for name in names if name != ".git" and name not in linked)
        for name in [*linked, *filenames]:
            full = Path(folder) / name
            path = os.path.relpath(full, root).replace(os.sep, "/")
            try:
                status = os.lstat(full)
            except OSError:
                yield File(path, 0, "", "unreadable")
                continue
            if stat.S_ISLNK(status.st_mode):
                yield File(path, 0, "", "symlink")
            elif not stat.S_ISREG(status.st_mode):
                yield File(path, 0, "", "special_file")
            else:
                yield File(path, status.st_size, "", "too_large" if status.st_size > max_bytes else "")


class Reader:
    """Reads files of one repository; keeps one git process open. A context manager."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.blobs = git.BlobReader(repository.path) if repository.is_git else None

    def read(self, file: File) -> bytes | None:
        """The bytes of a file, or None where it can't be read."""
        if self.blobs is not None:
            return self.blobs.read(file.object_id)
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
