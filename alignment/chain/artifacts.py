"""Computes the digests that decide whether an artifact is up to date, and links artifacts.

An artifact is the result of a step: the folder `<output>/<recipe>/artifacts/<step>-<fingerprint>/`. It is complete when
it contains `artifact.json`, which is written last and atomically. `<output>/<recipe>/<step>` is a link to the newest
artifact of the step. Older artifacts are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.files import write_json
from alignment.fingerprints import fingerprint

VERSIONS: Mapping[str, int] = {
    "build": 5,
    "pretrain": 3,
    "sft": 3,
    "dpo": 2,
    "kto": 1,
    "grpo": 4,
    "evaluate": 4,
    "merge": 1,
    "export": 2,
    "custom": 1,
}
"""Kind of stage -> version of its code. The version is part of a step's fingerprint. Raise it if a change of the code
changes the results for the same inputs."""


class Digests:
    """Computes content hashes of files and folders.

    The hashes are cached in a JSON file. A file is read again only if its size or modification time has changed.
    """

    def __init__(self, cache: Path):
        self.cache = cache
        try:
            self.known: dict[str, list[Any]] = json.loads(cache.read_text())
        except (OSError, ValueError):
            self.known = {}
        self.changed = False

    def of(self, path: Path) -> str:
        """Return the digest of a file's content, or of the names and contents of a folder's files (hidden files
        excluded).
        """
        if path.is_dir():
            files = sorted(
                file
                for file in path.rglob("*")
                if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
            )
            return fingerprint([[file.relative_to(path).as_posix(), self._file(file)] for file in files])
        return self._file(path)

    def _file(self, path: Path) -> str:
        status = path.stat()
        state = [status.st_size, status.st_mtime_ns]
        entry = self.known.get(str(path))
        if entry is None or entry[:2] != state:
            with path.open("rb") as file:
                entry = [*state, hashlib.file_digest(file, "sha256").hexdigest()]
            self.known[str(path)] = entry
            self.changed = True
        return str(entry[2])

    def save(self) -> None:
        """Write new digests to the JSON file. Errors are ignored: `align plan` may lack the right to write there."""
        if self.changed:
            with contextlib.suppress(OSError):
                write_json(self.cache, self.known)
            self.changed = False


def link(folder: Path, name: str, target: Path) -> None:
    """Make `<folder>/<name>` a link to an artifact. An existing link is replaced atomically."""
    temporary = folder / f".{name}.{os.getpid()}.link"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, folder))
    temporary.replace(folder / name)


def git_commit(folder: Path) -> str | None:
    """Return the commit of the git checkout that contains `folder`, or None if there is no checkout.

    A `+` is appended if the checkout has changes that are not committed.
    """
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
