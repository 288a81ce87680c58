"""What one program may use."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

WALL_GRACE = 6.0
"""Where the machine is so busy that a program waits for a core, it may run for this many times its wall limit."""


@dataclass(frozen=True)
class Limits:
    """Limits of one run; more than these ends it, as a failure of the program."""

    cpu_seconds: float = 10.0
    """CPU time of one process."""
    wall_seconds: float = 10.0
    """Wall time, less the time in which the program was ready and the machine busy (at most six times this)."""
    memory_bytes: int = 1 << 30
    """Address space of one process (node, Java, Go, C#: its data), and resident memory of all its processes
    together."""
    processes: int = 32
    files: int = 64
    """Open descriptors of one process."""
    file_bytes: int = 16 << 20
    tmp_bytes: int = 32 << 20
    tmp_inodes: int = 2048
    output_bytes: int = 1 << 20
    """Of standard output; the same again of standard error."""
    reply_bytes: int = 32 << 20
    """Of the values that a Python program returns, all calls together."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise ValueError(f"limits.{name} is {value}: it must be greater than 0")

    def at_least(self, **values: Any) -> Limits:
        """These limits, raised where a value given here is higher."""
        return replace(self, **{name: max(getattr(self, name), value) for name, value in values.items()})


COMPILE = Limits(
    cpu_seconds=60, wall_seconds=60, memory_bytes=4 << 30, processes=128, files=1024, file_bytes=128 << 20,
    tmp_bytes=256 << 20, tmp_inodes=16384, reply_bytes=256 << 20,
)  # fmt: skip
