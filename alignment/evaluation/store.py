"""Stored completions and verdicts, one JSON line each, so that an interrupted or repeated evaluation does nothing twice.

The key of a record is a hash of everything that can change it (prompt, sampling settings, checkpoint, task, program), so
a record of other settings is never reused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from alignment.files import write_text


def digest(*parts: Any) -> str:
    """Return a hash of JSON-like values: 32 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def model_fingerprint(model_path: str | Path) -> str:
    """Return a hash of the names, sizes and modification times of a checkpoint's files; of the path itself if it is no
    folder.

    Weights are not read, which would take minutes. A copied checkpoint counts as another one.
    """
    folder = Path(model_path)
    if not folder.is_dir():
        return digest(str(model_path))
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".bin", ".json", ".jinja")]
    return digest([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; lines that are not complete, as an interrupted run leaves them, are skipped."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    """Write records as JSON lines, atomically."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


class Store:
    """Records of one kind in one folder: reads the files `<kind>.<rank>.jsonl` of all ranks, appends to its own.

    Use it as a context manager to append; every record is written as soon as it is added.
    """

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
        incomplete = self.path.exists() and self.path.stat().st_size > 0 and self.path.read_bytes()[-1:] != b"\n"
        self._file = self.path.open("a", encoding="utf-8")
        if incomplete:
            self._file.write("\n")
        return self

    def add(self, record: dict[str, Any]) -> None:
        """Append a record; its `key` identifies it."""
        self.records[record["key"]] = record
        self._file.write(json.dumps(record, ensure_ascii=True) + "\n")
        self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
