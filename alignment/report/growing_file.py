"""Reads JSONL files that grow, and reads only what was added since the last time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

T = TypeVar("T")


class GrowingFile(Generic[T]):
    """Parses each complete line of a file once.

    If the file was written anew, for example because a resumed stage drops the steps after its checkpoint, it is read
    from the start again. This is noticed by its size, its inode, and the line that was read last.
    """

    def __init__(self, path: Path, parse: Callable[[int, bytes], T | None]) -> None:
        """Prepare for reading.

        Args:
            path: the file. It need not exist yet.
            parse: function of a line's offset and content. If it returns None, the line is left out.
        """
        self.path, self.parse = path, parse
        self.rows: list[T] = []
        self.changes = 0
        """Number of times that `rows` has changed."""
        self._inode, self._end = -1, 0
        self._last = (0, b"")

    def refresh(self) -> list[T]:
        """Read the lines that were added, and return the parsed rows of all lines."""
        try:
            with self.path.open("rb") as file:
                status = self.path.stat()
                if status.st_ino != self._inode or status.st_size < self._end or not self._last_line_is_in(file):
                    self._restart(status.st_ino)
                file.seek(self._end)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # still being written
                    self._add(line)
        except FileNotFoundError:
            if self.rows:
                self._restart(-1)
        return self.rows

    def _last_line_is_in(self, file: BinaryIO) -> bool:
        offset, line = self._last
        file.seek(offset)
        return bool(file.read(len(line)) == line)

    def _restart(self, inode: int) -> None:
        self.rows, self._inode, self._end, self._last = [], inode, 0, (0, b"")
        self.changes += 1

    def _add(self, line: bytes) -> None:
        row = self.parse(self._end, line)
        self._last = (self._end, line)
        self._end += len(line)
        if row is not None:
            self.rows.append(row)
            self.changes += 1
