"""Measures the memory and CPU time of all processes of a running program.

A program can start processes, change their sessions, and end the main thread of a process whose other threads go on.
The measurement therefore follows the children of every thread, and reads the memory of a process from any of its threads
that is alive.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MEMORY_LINES = (b"RssAnon:", b"RssShmem:", b"HugetlbPages:", b"VmPTE:")
"""Lines of /proc/PID/status whose sum is the memory of a process. `VmPTE` is the size of the process's page tables."""


@dataclass
class Usage:
    """What all processes of one program use together."""

    memory_bytes: int = 0
    """Anonymous, shared and huge pages and page tables. A shared page is counted once per process that maps it."""
    cpu_seconds: float = 0.0
    """CPU time of all processes, including those that have ended."""
    waited_seconds: float = 0.0
    """Time in which the program had to wait because other programs used the cores."""


class UsageMeter:
    """Measures one program repeatedly, and keeps the CPU time of its processes that have ended.

    Args:
        pid: Process id of the program's first process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.cpu_of: dict[tuple[int, bytes], float] = {}
        """CPU seconds of each process that was seen. The key is the process id and the time of the process's start."""
        self._times: dict[tuple[int, str], tuple[float, float]] = {}
        self._waited = 0.0
        self._last = 0.0
        self._credited: dict[tuple[int, str], float] = {}
        """Waiting of a thread that was counted before the kernel counted it, in seconds."""

    def begin(self, now: float) -> None:
        """Begin to measure, at the time `now` in seconds. What the program used before does not count as waiting."""
        self._last = now
        self._times = {
            (process, thread): _thread_times(process, thread)
            for process in process_tree(self.pid)
            for thread in _threads(process)
        }

    def measure(self, now: float) -> Usage:
        """Return the program's usage at the time `now`, in seconds."""
        usage = Usage()
        times: dict[tuple[int, str], tuple[float, float]] = {}
        reaped = 0.0
        for process in process_tree(self.pid):
            threads = _threads(process)
            usage.memory_bytes += _memory_bytes(process, threads)
            times |= {(process, thread): _thread_times(process, thread) for thread in threads}
            stat = _stat(process)
            if stat:
                self.cpu_of[process, stat[19]] = (int(stat[11]) + int(stat[12])) / TICKS_PER_SECOND
                reaped = (
                    reaped or sum(map(int, stat[11:15])) / TICKS_PER_SECOND
                )  # of the first process and its children
        usage.cpu_seconds = max(sum(self.cpu_of.values()), reaped)
        usage.waited_seconds = self._add_waiting(times, now)
        return usage

    def _add_waiting(self, times: dict[tuple[int, str], tuple[float, float]], now: float) -> float:
        """Add the waiting since the last measurement, and return the sum.

        The waiting is that of the thread that waited most, without the time in which other threads of the same program
        ran: a thread that waits for threads of its own program does not wait for other programs. The waiting of several
        intervals is added because the processes of a program may run, and wait, one after the other.
        """
        changes = []
        interval = now - self._last
        for thread, (ran, waited) in times.items():
            ran_before, waited_before = self._times.get(thread, (0.0, 0.0))
            change = max(0.0, waited - waited_before)
            credited = self._credited.pop(thread, 0.0)
            if ran == ran_before and thread in self._times and _is_runnable(*thread):
                # The kernel counts the waiting of a thread when the thread gets a core. This thread still waits.
                self._credited[thread] = credited + interval
                change = interval
            else:
                change = max(0.0, change - credited)
            changes.append((max(0.0, ran - ran_before), change))
        busy = sum(ran for ran, _ in changes)
        waiting = max((waited - (busy - ran) for ran, waited in changes), default=0.0)
        self._waited += min(max(0.0, waiting), interval)
        self._times, self._last = times, now
        return self._waited


def process_tree(pid: int) -> list[int]:
    """Return the ids of a process and of all its descendants. Children of all threads are included."""
    processes: list[int] = []
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        processes.append(current)
        for thread in _threads(current):
            try:
                with open(f"/proc/{current}/task/{thread}/children") as file:
                    waiting.extend(int(child) for child in file.read().split())
            except OSError:
                continue
    return processes


def _threads(process: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{process}/task")
    except OSError:
        return []


def _memory_bytes(process: int, threads: list[str]) -> int:
    """Return the memory of a process. If the main thread has ended, the kernel shows it only for the other threads."""
    for place in (
        f"/proc/{process}",
        *(f"/proc/{process}/task/{thread}" for thread in threads if thread != str(process)),
    ):
        total, is_alive = 0, False
        try:
            with open(f"{place}/status", "rb") as file:
                for line in file:
                    if line.startswith(MEMORY_LINES):
                        total, is_alive = total + (int(line.split()[1]) << 10), True
        except (OSError, IndexError):
            continue
        if is_alive:
            return total
    return 0


def _thread_times(process: int, thread: str) -> tuple[float, float]:
    """Return the seconds in which a thread ran, and the seconds in which it was ready to run but had no core."""
    try:
        with open(f"/proc/{process}/task/{thread}/schedstat") as file:
            ran, waited = file.read().split()[:2]
        return int(ran) / 1e9, int(waited) / 1e9
    except (OSError, ValueError):
        return 0.0, 0.0


def _is_runnable(process: int, thread: str) -> bool:
    """Whether a thread runs, or waits for a core."""
    return _stat(f"{process}/task/{thread}")[:1] == [b"R"]


def _stat(place: int | str) -> list[bytes]:
    """Return the fields of /proc/PLACE/stat from the third on, or an empty list if the process has ended."""
    try:
        with open(f"/proc/{place}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []
