"""Where DeepSpeed's compiled extensions go, and what becomes of a lock that a killed build left behind.

DeepSpeed compiles at the first use: shared-memory collectives and Adam on CPUs, fused Adam on GPUs. torch builds such an
extension under a plain file `lock`; a build that is killed leaves it there, and every later process then waits for it in
silence (`torch.utils.file_baton` of torch 2.13). So stages build in a folder of the toolkit's own, and before they start
a lock that no process holds open is removed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from alignment.fingerprints import package_versions

VARIABLE = "TORCH_EXTENSIONS_DIR"


def folder(environment: Mapping[str, str]) -> Path:
    """The user's own choice, or a folder per machine, Python, torch and DeepSpeed in the user's cache.

    Per machine, since extensions are compiled for its very processor, and a home may be shared by several.
    """
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE])
    cache = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home()) / ".cache")
    found = package_versions()
    parts = (
        platform.node() or "machine",
        f"py{sys.version_info.major}{sys.version_info.minor}",
        f"torch{found.get('torch', '')}",
        f"deepspeed{found.get('deepspeed', '')}",
    )
    return cache / "code-alignment" / "extensions" / "-".join(parts)


def prepare(environment: dict[str, str]) -> None:
    """Set the folder in the environment of a stage's process, and remove the locks of killed builds in it.

    Raises ValueError, naming the file, for a lock that is in the way and can't be removed, or of which this system does
    not say whether a build still holds it.
    """
    where = folder(environment)
    environment[VARIABLE] = str(where)
    # DeepSpeed looks for ninja on the PATH, and pip puts it beside the interpreter.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    locks = sorted(where.glob("*/lock"))
    if locks and not Path("/proc/self/fd").is_dir():
        raise ValueError(
            f"{locks[0]}: a build of DeepSpeed's goes on, or was killed. If none goes on, delete this file"
        )
    locks = _unheld(locks)
    if locks:
        time.sleep(0.5)  # a build that ends closes its lock a moment before it removes it: look again
    for lock in _unheld(locks):
        try:
            lock.unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(
                f"{lock}: left by a build of DeepSpeed's that was killed; every later one would wait for it. "
                f"It can't be removed ({error.strerror}): delete this file"
            ) from None


def _unheld(files: Sequence[Path]) -> list[Path]:
    """Those of the files that are there and that no process of this machine has open; only Linux tells."""
    wanted: dict[tuple[int, int], Path] = {}
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            wanted[status.st_dev, status.st_ino] = file
    for descriptor in Path("/proc").glob("[0-9]*/fd/*") if wanted else ():
        with contextlib.suppress(OSError):  # it ended, or is somebody else's, who does not build in this folder
            status = descriptor.stat()
            wanted.pop((status.st_dev, status.st_ino), None)
    return list(wanted.values())
