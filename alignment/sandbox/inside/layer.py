"""Shows a repository with changed files to one program: an overlay of the changes over the read-only tree.

The overlay costs milliseconds and nothing of the tree is copied. It is mounted before the program's own code begins, and
the program can change neither the overlay nor the files below it.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

from . import kernel

ROOT = "/repository"
"""Path of the repository's tree in the sandbox."""
STAGE = "/tmp/.layer"
"""Folder of the changed files until the overlay is mounted."""
FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV
BYTES = 1 << 30
"""Largest size of the changed files, or of the copied tree if the kernel refuses the overlay."""
DELETED = -1
"""Size that stands for a deleted file."""


def read(descriptor: int, size: int) -> list[tuple[str, bytes | None]]:
    """Read the changed files from a descriptor, as (path relative to the repository, content or None if deleted)."""
    data = bytearray()
    while len(data) < size:
        part = os.read(descriptor, min(size - len(data), 1 << 20))
        if not part:
            raise OSError(32, "the changed files ended early")
        data += part
    line, _, rest = bytes(data).partition(b"\n")
    changes: list[tuple[str, bytes | None]] = []
    for path, length in json.loads(line):
        changes.append((path, None if length == DELETED else rest[:length]))
        rest = rest[max(length, 0) :]
    return changes


def mount(changes: list[tuple[str, bytes | None]]) -> None:
    """Mount an overlay with the changes over `ROOT`. If the kernel refuses overlays, mount a changed copy of the tree."""
    os.mkdir(STAGE)
    kernel.mount("layer", STAGE, "tmpfs", FLAGS, f"size={BYTES},mode=755")
    try:
        _write(changes, mark_deleted=True)
        kernel.mount("layer", ROOT, "overlay", FLAGS | kernel.MS_RDONLY, f"userxattr,lowerdir={STAGE}:{ROOT}")
    except OSError:
        for item in Path(STAGE).iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        shutil.copytree(ROOT, STAGE, symlinks=True, dirs_exist_ok=True, copy_function=shutil.copyfile)
        _write(changes, mark_deleted=False)
        kernel.mount(STAGE, ROOT, None, kernel.MS_BIND)
        kernel.make_read_only(ROOT)
    kernel.checked(kernel.LIBC.umount2(STAGE.encode(), kernel.MNT_DETACH), "umount2")
    os.rmdir(STAGE)


def _write(changes: list[tuple[str, bytes | None]], mark_deleted: bool) -> None:
    """Write the changed files below `STAGE`.

    Args:
        changes: The changed files.
        mark_deleted: Whether a deleted file is marked, as an overlay needs it, or removed.
    """
    for path, content in changes:
        target = Path(STAGE) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            target.unlink(missing_ok=True)
            target.write_bytes(content)
        elif mark_deleted:
            os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))
        else:
            target.unlink(missing_ok=True)
