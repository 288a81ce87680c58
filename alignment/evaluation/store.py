"""Raw completions and verdicts on disk, one JSON line each, written as they come, so that nothing is done twice.

A record is found again by its key, a hash over everything that could change it; so a second start goes on where the
first one stopped, and a changed prompt, setting or checkpoint makes no use of what is stale.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any


def digest(*parts: Any) -> str:
    """A short hash of JSON-like values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def model_fingerprint(model_path: str | Path) -> str:
    """Names, sizes and times of a checkpoint's files; the path itself where it is no folder."""
    folder = Path(model_path)
    if not folder.is_dir():
        return digest(str(model_path))
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".bin", ".json", ".jinja")]
    return digest([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a file that may end in half a line."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the line at which an earlier run was killed
            if isinstance(record, dict):
                yield record


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    """Write all at once: the file is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    partial.replace(path)


class Store:
    """Records of one kind: reads every rank's file `<kind>.*.jsonl`, appends to its own."""

    def __init__(self, folder: Path, kind: str, rank: int = 0) -> None:
        self.folder, self.kind = folder, kind
        self.path = folder / f"{kind}.{rank}.jsonl"
        self.records: dict[str, dict[str, Any]] = {}
        self.reload()

    def reload(self) -> None:
        """Read what all ranks have written so far."""
        for path in sorted(self.folder.glob(f"{self.kind}.*.jsonl")):
            for record in read_jsonl(path):
                if "key" in record:
                    self.records[record["key"]] = record

    def __enter__(self) -> Store:
        self.folder.mkdir(parents=True, exist_ok=True)
        cut = self.path.exists() and self.path.stat().st_size > 0 and self.path.read_bytes()[-1:] != b"\n"
        self._file = self.path.open("a", encoding="utf-8")
        if cut:
            self._file.write("\n")
        return self

    def add(self, record: dict[str, Any]) -> None:
        self.records[record["key"]] = record
        self._file.write(json.dumps(record, ensure_ascii=True) + "\n")
        self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
