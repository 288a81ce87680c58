"""Texts and rows that wait on disk between two passes, so that memory stays bounded whatever the corpus weighs."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any


class RowStore:
    """Rows by number, in one file. Costs 8 bytes of memory a row. A context manager that removes its file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("w+b")
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, row: dict[str, Any]) -> None:
        # A file name may carry bytes that are no UTF-8, as lone surrogates; ASCII JSON keeps them.
        content = json.dumps(row, ensure_ascii=True).encode("ascii")
        self._file.seek(self._ends[-1])
        self._file.write(content)
        self._ends.append(self._ends[-1] + len(content))

    def __getitem__(self, index: int) -> dict[str, Any]:
        self._file.seek(self._ends[index])
        row: dict[str, Any] = json.loads(self._file.read(self._ends[index + 1] - self._ends[index]))
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index in range(len(self)):
            yield self[index]

    def __enter__(self) -> RowStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)
