"""Read safetensors files without torch: the header, and the stored values as memory-mapped arrays.

Format: 8 bytes with the header's length, the header as JSON, then the tensors' data
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# numpy has no bfloat16: its bits are read as unsigned integers.
FLOAT_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<f8"),
}
CHUNK_WEIGHTS = 1 << 22


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file."""

    name: str
    file: Path
    dtype: str
    """Type, under its name in safetensors: F32, F16, BF16, F64, I32, ..."""
    shape: tuple[int, ...]
    offset: int
    """Position of the tensor's first byte in the file."""

    @property
    def weights(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def raw(self) -> np.ndarray:
        """Return the stored values as a memory-mapped array [rows, columns]. A vector is one row.

        Only types in `FLOAT_DTYPES` are supported.
        """
        shape = self.shape if len(self.shape) > 1 else (1, *self.shape)
        return np.memmap(str(self.file), FLOAT_DTYPES[self.dtype], "r", self.offset, shape)

    def chunks(self, weights: int = CHUNK_WEIGHTS) -> Iterator[np.ndarray]:
        """Yield `raw()` in chunks of whole rows with about `weights` values each."""
        array = self.raw()
        step = max(1, weights // array.shape[1])
        for start in range(0, array.shape[0], step):
            yield array[start : start + step]


def to_float32(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Convert stored values of type `dtype` to float32. The conversion is exact for F32, F16 and BF16."""
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(raw, dtype=np.float32)


def read_safetensors_header(file: Path) -> dict[str, StoredTensor]:
    """Read the header of a safetensors file, and return its tensors by name.

    Raises:
        ValueError: The file is damaged, its size differs from the size in its header, or the file is a pointer of Git
            LFS.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if prefix == b"version ":
            raise ValueError(f"{file} is a Git LFS pointer, not the weights: run `git lfs pull` in the repository")
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size:
            raise ValueError(f"{file} is truncated: its header does not fit into its {size} bytes. Copy it again.")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise ValueError(f"{file} is damaged: its header is not JSON. Copy it again.") from error
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end != size:
        state = "truncated" if size < end else "longer than its header says"
        raise ValueError(f"{file} is {state}: it has {size} bytes, expected {end}. Copy it again.")
    return {name: _stored_tensor(file, name, entry, 8 + length) for name, entry in header.items()}


def _stored_tensor(file: Path, name: str, entry: dict[str, Any], data_start: int) -> StoredTensor:
    start, stop = entry["data_offsets"]
    tensor = StoredTensor(name, file, entry["dtype"], tuple(entry["shape"]), data_start + start)
    kind = FLOAT_DTYPES.get(tensor.dtype)
    if kind is not None and stop - start != tensor.weights * kind.itemsize:
        raise ValueError(
            f"{file} is damaged: tensor {name} has {stop - start} bytes, which does not fit its shape. Copy it again."
        )
    return tensor
