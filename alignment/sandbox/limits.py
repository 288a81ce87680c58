"""Resource limits of one program."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

WALL_GRACE = 6.0
"""Maximum wall time of programs that had to wait for a free core, as a multiple of `wall_seconds`."""


@dataclass(frozen=True)
class Limits:
    """Limits of one run. If a program exceeds a limit, the program is killed or a system call of the program fails."""

    cpu_seconds: float = 10.0
    """CPU time of all processes of the program together, in seconds."""
    wall_seconds: float = 10.0
    """Wall time in seconds, without the time in which the program had to wait because other programs used the cores. See
    `WALL_GRACE`."""
    memory_bytes: int = 1 << 30
    """Resident memory of all processes of the program together, with their page tables, in bytes. The same limit applies
    to the address space of each process (for node, Java, Go and C#: 2 GiB of its data segment, if that is more)."""
    processes: int = 32
    files: int = 64
    """Largest number of open descriptors of one process."""
    file_bytes: int = 16 << 20
    """Largest size of one file, in bytes."""
    tmp_bytes: int = 32 << 20
    """Largest size of the program's /tmp, in bytes."""
    tmp_inodes: int = 2048
    """Largest number of files in the program's /tmp."""
    output_bytes: int = 1 << 20
    """Largest size of standard output, in bytes. The same limit applies separately to standard error."""
    reply_bytes: int = 32 << 20
    """Largest total size, in bytes, of the values that a Python program returns in all calls."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise ValueError(f"limits.{name} is {value}: it must be greater than 0")

    def at_least(self, **values: Any) -> Limits:
        """Return these limits, with each limit raised to its value in `values` if that value is higher."""
        return replace(self, **{name: max(getattr(self, name), value) for name, value in values.items()})


COMPILE = Limits(
    memory_bytes=4 << 30, processes=128, files=1024, file_bytes=128 << 20,
    tmp_bytes=256 << 20, tmp_inodes=16384, reply_bytes=256 << 20,
)  # fmt: skip
"""Limits of a compiler. Its time limits are those of the language (`Language.compile_seconds`)."""
