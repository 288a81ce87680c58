"""Store rows and fingerprints on disk between two passes, so that memory does not grow with the size of the texts."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BANDS = 32
"""Number of LSH bands. A text has one MinHash key per band, see `cleaning.duplicates`."""


class RowStore:
    """Rows in a temporary file, accessed by index. The store uses 8 bytes of memory per row.

    Use the store as a context manager, which removes the file at the end.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("w+b")
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, row: dict[str, Any]) -> None:
        # ASCII JSON preserves lone surrogates, which stand for bytes of a file name that are not UTF-8.
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


class _Fingerprint(Protocol):
    @property
    def exact(self) -> bytes: ...
    @property
    def bands(self) -> bytes: ...


class FingerprintStore:
    """Fingerprints of texts in temporary files. The store uses 8 bytes of memory per text.

    Use the store as a context manager. The temporary files have no name, so that nothing remains after a crash.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._exact, *self._bands = [tempfile.TemporaryFile(dir=folder) for _ in range(1 + BANDS)]  # noqa: SIM115
        self._banded = array("q")
        self._count = 0

    def append(self, prints: Iterable[_Fingerprint]) -> None:
        batch = list(prints)
        self._exact.write(b"".join(item.exact for item in batch))
        banded = [number for number, item in enumerate(batch, self._count) if item.bands]
        keys = np.frombuffer(b"".join(item.bands for item in batch), dtype=np.uint64).reshape(-1, BANDS)
        for band, file in enumerate(self._bands):
            file.write(keys[:, band].tobytes())
        self._banded.extend(banded)
        self._count += len(batch)

    def exact(self) -> NDArray[np.uint64]:
        """Return the hash of each whole text, as two 64-bit numbers. Shape: (texts, 2)."""
        return self._load(self._exact).reshape(-1, 2)

    def banded(self) -> NDArray[np.int64]:
        """Return the indices of the texts that have LSH keys for near-duplicate search, in order. Shape: (indices,)."""
        return np.array(self._banded, dtype=np.int64)

    def band(self, number: int) -> NDArray[np.uint64]:
        """Return the keys of the LSH band with index `number`, in the order of `banded()`. Shape: (indices,)."""
        return self._load(self._bands[number])

    @staticmethod
    def _load(file: Any) -> NDArray[np.uint64]:
        file.seek(0)
        return np.frombuffer(file.read(), dtype=np.uint64)

    def __enter__(self) -> FingerprintStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._exact, *self._bands):
            file.close()
