"""Artifacts: what a stage leaves behind, and the fingerprint that says whether it is still the right one.

An artifact is a folder `<output>/<recipe>/artifacts/<stage>-<fingerprint>/`. It is done when its `artifact.json` is
there, written last and atomically. `<output>/<recipe>/<stage>` links to the newest one; older ones stay.
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

# Raised by hand when a change of the code alters what a stage makes from the same inputs.
VERSIONS: Mapping[str, int] = {
    "build": 4,
    "pretrain": 3,
    "sft": 3,
    "dpo": 1,
    "grpo": 2,
    "evaluate": 4,
    "export": 2,
    "custom": 1,
}
ARTIFACT = "artifact.json"
Artifact = dict[str, Any]
"""The content of an artifact.json, as the conductor writes it."""


class Digests:
    """Content hashes of files and folders, remembered by size and time of change in one JSON file."""

    def __init__(self, cache: Path):
        self.cache = cache
        try:
            self.known: dict[str, list[Any]] = json.loads(cache.read_text())
        except (OSError, ValueError):
            self.known = {}
        self.changed = False

    def of(self, path: Path) -> str:
        """The digest of a file's bytes, or of all names and bytes below a folder (hidden files left out)."""
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
        mark = [status.st_size, status.st_mtime_ns]
        entry = self.known.get(str(path))
        if entry is None or entry[:2] != mark:
            with path.open("rb") as file:
                entry = [*mark, hashlib.file_digest(file, "sha256").hexdigest()]
            self.known[str(path)] = entry
            self.changed = True
        return str(entry[2])

    def save(self) -> None:
        """Keep what is known; where it can't be written (`align plan` of somebody else's runs), it costs only time."""
        if self.changed:
            with contextlib.suppress(OSError):
                write_json(self.cache, self.known)
            self.changed = False


def read(folder: Path) -> Artifact | None:
    """The artifact of a folder, or None where it is not done."""
    try:
        found = json.loads((folder / ARTIFACT).read_text())
        if not isinstance(found, dict) or not found:
            raise ValueError("not what the chain wrote")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder / ARTIFACT} can't be read ({error}): delete the folder {folder} to make it anew"
        ) from None
    return found


def link(folder: Path, name: str, target: Path) -> None:
    """Point `<folder>/<name>` at an artifact, atomically."""
    temporary = folder / f".{name}.{os.getpid()}.link"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, folder))
    temporary.replace(folder / name)


def git_commit(folder: Path) -> str | None:
    """The commit of the checkout that `folder` lies in, with `+` where it has changes; None outside of one."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
