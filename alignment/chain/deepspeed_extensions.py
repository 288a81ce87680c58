"""Sets the build folder of DeepSpeed's compiled extensions, and removes the locks that killed builds left in it.

DeepSpeed compiles extensions at their first use: shared-memory collectives and Adam on CPUs, fused Adam on GPUs. While
torch builds an extension, a plain file `lock` exists (`torch.utils.file_baton` of torch 2.13). A build that is killed
leaves this file behind, and every later process waits without a message until the file is gone. Therefore stages use a
separate build folder, and before a stage starts, lock files that no process has open are removed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from alignment.cache import cache_root
from alignment.fingerprints import package_versions

VARIABLE = "TORCH_EXTENSIONS_DIR"


def build_folder(environment: Mapping[str, str]) -> Path:
    """Return the build folder: `$TORCH_EXTENSIONS_DIR` if it is set, otherwise a folder in the toolkit's cache.

    The folder in the cache is different for each machine and each version of Python, torch and DeepSpeed: extensions
    are compiled for the processor of one machine, and several machines may share a home folder.
    """
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE])
    versions = package_versions()
    parts = (
        platform.node() or "machine",
        f"py{sys.version_info.major}{sys.version_info.minor}",
        f"torch{versions.get('torch', '')}",
        f"deepspeed{versions.get('deepspeed', '')}",
    )
    return cache_root() / "extensions" / "-".join(parts)


def prepare(environment: dict[str, str]) -> None:
    """Set the build folder in the environment of a stage's process, and remove the locks of killed builds in it.

    Raises:
        ValueError: a lock can't be removed, or this system does not show whether a build still uses the lock. The
            message names the file.
    """
    folder = build_folder(environment)
    environment[VARIABLE] = str(folder)
    # DeepSpeed looks for ninja on the PATH, and pip installs it next to the interpreter.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    locks = sorted(folder.glob("*/lock"))
    if locks and not Path("/proc/self/fd").is_dir():
        raise ValueError(
            f"{locks[0]}: a build of DeepSpeed is running, or was killed. If no build is running, delete this file"
        )
    locks = _without_holder(locks)
    if locks:
        time.sleep(0.5)  # a build that ends closes its lock file shortly before it removes the file: check again
    for lock in _without_holder(locks):
        try:
            lock.unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(
                f"{lock}: left by a killed build of DeepSpeed, and every later build would wait for it. "
                f"It can't be removed ({error.strerror}): delete this file"
            ) from None


def _without_holder(files: Sequence[Path]) -> list[Path]:
    """Return those of the files that exist and that no process on this machine has open. Works on Linux only."""
    remaining: dict[tuple[int, int], Path] = {}
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            remaining[status.st_dev, status.st_ino] = file
    for descriptor in Path("/proc").glob("[0-9]*/fd/*") if remaining else ():
        with contextlib.suppress(OSError):  # the process ended, or is of another user, who builds in another folder
            status = descriptor.stat()
            remaining.pop((status.st_dev, status.st_ino), None)
    return list(remaining.values())
