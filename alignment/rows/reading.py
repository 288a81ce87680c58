"""Reading rows from JSONL (gzipped or not), JSON and Parquet files."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.rows.kinds import Row
from alignment.wording import did_you_mean

NAMES = ".jsonl, .jsonl.gz or .parquet"
# The start of an escape that JSON takes, and that alone is no text: tokenizers and Arrow refuse it.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


def files(path: Path) -> list[Path]:
    """The data files of a path: itself, or all JSONL (gzipped or not) and Parquet files below it (below its `data`, if any),
    sorted. Raises ValueError where there are none."""
    if path.is_file():
        if not path.name.endswith((*_SUFFIXES, ".json")):
            raise ValueError(f"{path}: rows come as {NAMES}, not {path.suffix or 'a file without suffix'}")
        return [path]
    if not path.exists():
        near = did_you_mean(path.name, [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else [])
        raise ValueError(f"there is no {path}.{near}")
    found = sorted(file for file in folder_of(path).rglob("*") if file.name.endswith(_SUFFIXES) and file.is_file())
    if not found:
        raise ValueError(f"{path} holds no {NAMES} file")
    return found


def folder_of(dataset: Path) -> Path:
    """Where a dataset's rows lie: its `data`, if it has one, beside which stand the card, reports and what was removed."""
    return dataset / "data" if (dataset / "data").is_dir() else dataset


def read(path: Path, limit: int | None = None) -> Iterator[Row]:
    """Stream the rows of a file or folder. Raises ValueError that names file and line."""
    count = 0
    for file in files(path):
        for row in _read_parquet(file) if file.suffix == ".parquet" else _read_json(file):
            if limit is not None and count >= limit:
                return
            count += 1
            yield row


def _read_json(file: Path) -> Iterator[Row]:
    opened: Any = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8", errors="strict") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    if _SURROGATE.search(line):
                        json.dumps(row, ensure_ascii=False).encode()
                except UnicodeEncodeError:
                    raise ValueError(
                        f"{file}:{number}: holds half of a surrogate pair, which is no character"
                    ) from None
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{file}:{number}: not JSON: {error}") from None
                if not isinstance(row, dict):
                    raise ValueError(f"{file}:{number}: a row is a JSON object, not a {type(row).__name__}")
                yield row
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: not UTF-8: {error}") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{file}: not gzip, or cut off: {error}") from None


def _read_parquet(file: Path) -> Iterator[Row]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise ValueError(f"{file}: not Parquet: {error}") from None
