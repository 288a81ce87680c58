"""Settings of a launcher (the process that starts programs): which files programs see, and how they are isolated."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass

START_SECONDS = 60.0


@dataclass(frozen=True)
class LauncherSettings:
    """Settings with which a launcher is started."""

    namespaces: bool = True
    """Whether programs are isolated in namespaces. If False, only Landlock and seccomp restrict the programs."""
    allow_weaker: bool = False
    """Allow a weaker sandbox: without namespaces if the kernel refuses namespaces, and without a process limit if the
    kernel treats the programs as the machine's root."""
    readable: tuple[str, ...] = ()
    """Files and folders that programs can read, besides the system folders."""
    packages: tuple[str, ...] = ()
    """Folders appended to the launcher's `sys.path`."""
    hidden: tuple[str, ...] = ()
    """Files and folders that programs see as empty."""
    interpreter: str = ""
    """Python executable of the launcher. If empty, the launcher uses the executable of this process."""
    suite: str = ""
    """Path of a JSON file that describes a repository. The launcher loads the repository before it starts programs (see
    `inside.suite`). If empty, no repository is loaded."""
    role: str = ""
    """Role of the launcher (see `inside.suite`), if it differs from the role in the file `suite`."""
    start_seconds: float = START_SECONDS
    """Time limit for the start of the launcher, in seconds."""
    mounts: tuple[tuple[str, str], ...] = ()
    """Additional read-only folders, as pairs (path on this machine, path inside the sandbox)."""


def launcher_settings(
    allow_weaker: bool = False, extra: Sequence[str] = (), hidden: Sequence[str] = ()
) -> LauncherSettings:
    """Return settings with which programs see the installation of this interpreter and its packages.

    The installation and the packages are listed explicitly, because they may be in a home folder, and programs do not
    see home folders.

    Args:
        allow_weaker: See `LauncherSettings.allow_weaker`.
        extra: Additional files and folders that programs can read.
        hidden: Files and folders that programs see as empty.
    """
    packages = tuple(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))
    base = (sys.base_prefix,) if not sys.base_prefix.startswith("/usr") else ()
    return LauncherSettings(True, allow_weaker, (*base, *packages, *extra), packages, tuple(hidden))
