"""Resource limits of one program."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

WALL_GRACE = 6.0
"""On a busy machine, a program that waits for a core may run for up to this many times its wall limit."""


@dataclass(frozen=True)
class Limits:
    """Limits of one run. A program that exceeds one is killed, or its system call fails; either way it has failed."""

    cpu_seconds: float = 10.0
    """CPU time of one process."""
    wall_seconds: float = 10.0
    """Wall time, without the time in which the program was ready to run but had no free core; see `WALL_GRACE`."""
    memory_bytes: int = 1 << 30
    """Address space of one process (for node, Java, Go and C#: its data segment), and resident memory of all its
    processes together."""
    processes: int = 32
    files: int = 64
    """Open descriptors of one process."""
    file_bytes: int = 16 << 20
    """Size of one file."""
    tmp_bytes: int = 32 << 20
    """Size of the program's /tmp."""
    tmp_inodes: int = 2048
    """Number of files in the program's /tmp."""
    output_bytes: int = 1 << 20
    """Standard output, and as much again of standard error."""
    reply_bytes: int = 32 << 20
    """Values that a Python program returns, all calls together."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise ValueError(f"limits.{name} is {value}: it must be greater than 0")

    def at_least(self, **values: Any) -> Limits:
        """These limits, raised to `values` where those are higher."""
        return replace(self, **{name: max(getattr(self, name), value) for name, value in values.items()})


COMPILE = Limits(
    cpu_seconds=60, wall_seconds=60, memory_bytes=4 << 30, processes=128, files=1024, file_bytes=128 << 20,
    tmp_bytes=256 << 20, tmp_inodes=16384, reply_bytes=256 << 20,
)  # fmt: skip
"""Limits of a compiler."""
