"""Store completions and verdicts as JSON lines, so that an interrupted or repeated evaluation reuses them.

The key of a record is a hash of everything that can change the record (prompt, sampling settings, checkpoint, task,
program). A record that was made with other settings is therefore never reused.
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
    """Return a hash of values that JSON can represent, as 32 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def model_fingerprint(model_path: str | Path) -> str:
    """Return a hash of the names, sizes and modification times of a checkpoint's files.

    `model_path` is a folder or a GGUF file. If the path does not exist, as with a name on the hub, the path is hashed.
    Weights are not read, since that would take minutes. A copy of a checkpoint counts as a different checkpoint.
    """
    path = Path(model_path)
    if not path.exists():
        return digest(str(model_path))
    endings = (".safetensors", ".bin", ".json", ".jinja")
    files = [file for file in sorted(path.iterdir()) if file.suffix in endings] if path.is_dir() else [path]
    return digest([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file. Skip incomplete lines, which an interrupted run can leave."""
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
    """Records of one kind in one folder.

    Reads the files `<kind>.<rank>.jsonl` of all ranks, and appends to the file of this rank.

    To append records, use the store as a context manager. Every record is written as soon as it is added.
    """

    def __init__(self, folder: Path, kind: str, rank: int = 0) -> None:
        self.folder, self.kind = folder, kind
        self.path = folder / f"{kind}.{rank}.jsonl"
        self.records: dict[str, dict[str, Any]] = {}
        self.reload()

    def reload(self) -> None:
        """Read the records that all ranks have written so far."""
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
        """Append a record. The field `key` identifies the record."""
        self.records[record["key"]] = record
        self._file.write(json.dumps(record, ensure_ascii=True) + "\n")
        self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
