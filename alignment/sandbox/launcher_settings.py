"""Settings of a launcher: which files its programs see, and which kernel features contain them."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass

START_SECONDS = 60.0


@dataclass(frozen=True)
class LauncherSettings:
    """How a launcher is started."""

    namespaces: bool = True
    """Contain programs in namespaces; without them, Landlock and seccomp alone contain them."""
    allow_weaker: bool = False
    """Allow a weaker sandbox: no namespaces if the kernel refuses them, and no process limit if the kernel treats the
    programs as the machine's root."""
    readable: tuple[str, ...] = ()
    """Files and folders that programs can read, besides the system folders."""
    packages: tuple[str, ...] = ()
    """Folders appended to the launcher's `sys.path`."""
    hidden: tuple[str, ...] = ()
    """Files and folders that programs see as empty."""
    interpreter: str = ""
    """Python executable of the launcher; by default the running one."""
    suite: str = ""
    """JSON file that describes the repository which the launcher loads before it starts programs (`inside.suite`)."""
    start_seconds: float = START_SECONDS
    """Time limit for the launcher to report that it is ready."""
    mounts: tuple[tuple[str, str], ...] = ()
    """Further read-only folders, as pairs: path on this machine, path inside the sandbox."""


def launcher_settings(
    allow_weaker: bool = False, extra: Sequence[str] = (), hidden: Sequence[str] = ()
) -> LauncherSettings:
    """Settings under which programs see this interpreter's installation and its packages.

    Both are named explicitly, because they may lie in a home folder, which programs otherwise do not see.

    Args:
        allow_weaker: See `LauncherSettings.allow_weaker`.
        extra: Further files and folders that programs can read.
        hidden: Files and folders that programs see as empty.
    """
    packages = tuple(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))
    base = (sys.base_prefix,) if not sys.base_prefix.startswith("/usr") else ()
    return LauncherSettings(True, allow_weaker, (*base, *packages, *extra), packages, tuple(hidden))
