"""Limits memory and processes of programs with control groups (cgroup v2), where this user may make such groups.

Without control groups, the launcher adds up the memory of all processes of a program at short intervals. The kernel
enforces the limit of a group at every allocation, and also counts kernel memory and files in memory.

A group is made beside or below the group of this process, in a folder in which the administrator (or systemd) has enabled
the controllers `memory` and `pids` for this user. Each launcher makes one group for each program that it can run at the
same time, and opens the files of the groups before it enters the namespaces, where the folder cannot be reached.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

CONTROLLERS = ("memory", "pids")
PREFIX = "align-"
PROGRAMS = 2
"""How many programs one launcher runs at the same time: the tests and the program that they call."""
SPARE_PROCESSES = 2
REMOVE_SECONDS = 2.0
"""How long the removal of a group waits until the kernel has removed the group's last process, in seconds."""


def parent_folder(controllers: Sequence[str] = CONTROLLERS) -> Path | None:
    """Return the folder in which this process may make groups that have these controllers, or None."""
    mount = _mount_point()
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if mount is None or path is None:
        return None
    own = mount / path
    return next((folder for folder in (own, own.parent) if _allows(folder, mount, controllers)), None)


def _mount_point() -> Path | None:
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        before, _, after = line.partition(" - ")
        if after.split(" ")[0] == "cgroup2":
            return Path(before.split(" ")[4])
    return None


def _allows(folder: Path, mount: Path, controllers: Sequence[str]) -> bool:
    """Whether this user can make groups with the controllers in a folder, and move processes into them."""
    if folder != mount and mount not in folder.parents:
        return False
    try:
        enabled = (folder / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False
    return set(controllers) <= set(enabled) and all(
        os.access(path, os.W_OK) for path in (folder, folder / "cgroup.procs")
    )


class ProgramGroup:
    """The group of one running program.

    Args:
        folder: Folder of the group. The files in it are opened now.
    """

    def __init__(self, folder: Path) -> None:
        self.is_free = True
        self.kills = 0
        self.processes = os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        self.limits = {
            name: os.open(folder / name, os.O_WRONLY | os.O_CLOEXEC)
            for name in ("memory.max", "memory.swap.max", "pids.max")
            if (folder / name).exists()
        }
        events = folder / "memory.events"
        self.events = os.open(events, os.O_RDONLY | os.O_CLOEXEC) if events.exists() else -1

    def prepare(self, memory_bytes: int, processes: int) -> None:
        """Set the limits of the next program."""
        values = {"memory.max": memory_bytes, "memory.swap.max": 0, "pids.max": processes + SPARE_PROCESSES}
        for name, descriptor in self.limits.items():
            os.write(descriptor, str(int(values[name])).encode())
        self.is_free, self.kills = False, self._count_kills()

    def enter(self) -> None:
        """Move the calling process into the group."""
        os.write(self.processes, b"0")

    def end(self) -> bool:
        """Free the group for the next program. Return whether the kernel killed a process at the memory limit."""
        self.is_free = True
        return self._count_kills() > self.kills

    def _count_kills(self) -> int:
        if self.events < 0:
            return 0
        lines = os.pread(self.events, 4096, 0).decode().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def make_groups(parent: Path, controllers: Sequence[str] = CONTROLLERS) -> list[ProgramGroup]:
    """Make the groups of this launcher below `parent`, and return them. Raises OSError if the kernel refuses."""
    _remove_stale(parent)
    folder = parent / f"{PREFIX}{os.getpid()}"
    folder.mkdir()
    try:
        if controllers:
            (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
        groups = []
        for number in range(PROGRAMS):
            (folder / str(number)).mkdir()
            groups.append(ProgramGroup(folder / str(number)))
        return groups
    except OSError:
        remove_groups(parent, os.getpid())
        raise


def remove_groups(parent: Path, pid: int) -> None:
    """Remove the groups of the launcher with this process id, after the launcher has ended."""
    folder = parent / f"{PREFIX}{pid}"
    end = time.monotonic() + REMOVE_SECONDS
    for path in (*(folder / str(number) for number in range(PROGRAMS)), folder):
        while path.exists():
            try:
                path.rmdir()
            except OSError:
                if time.monotonic() >= end:
                    return  # a later launcher removes the group, see `_remove_stale`
                time.sleep(0.01)


def _remove_stale(parent: Path) -> None:
    """Remove empty groups of launchers whose parent was killed."""
    for pid in _pids_of_groups(parent):
        if not Path(f"/proc/{pid}").exists():
            for path in (
                *(parent / f"{PREFIX}{pid}" / str(number) for number in range(PROGRAMS)),
                parent / f"{PREFIX}{pid}",
            ):
                with contextlib.suppress(OSError):
                    path.rmdir()


def _pids_of_groups(parent: Path) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            if name.startswith(PREFIX) and name.removeprefix(PREFIX).isdecimal():
                yield int(name.removeprefix(PREFIX))
