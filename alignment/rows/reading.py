"""Reads rows from JSONL and JSON files, gzipped or not, and from Parquet files."""

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
"""The suffixes of supported files, for error messages."""
# Start of an escaped surrogate. A lone surrogate is valid JSON but not valid text: tokenizers and Arrow refuse it.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_JSON_SUFFIXES = (".json", ".json.gz")
"""Suffixes of files that are read only if their path is given. In a folder they are skipped: most are reports."""
_PARQUET_ROWS = 1024


def files(path: Path) -> list[Path]:
    """Return the data files at a path, sorted by name.

    Args:
        path: a data file, or a folder that is searched with all its subfolders. If the folder has a subfolder `data`,
            only `data` is searched.

    Raises:
        ValueError: the path does not exist, the folder contains no data file, or the suffix is not supported.
    """
    if path.is_file():
        if not path.name.endswith((*_SUFFIXES, *_JSON_SUFFIXES)):
            raise ValueError(f"{path}: rows must be in {NAMES} files, not {path.suffix or 'a file without suffix'}")
        return [path]
    if not path.exists():
        near = did_you_mean(path.name, [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else [])
        raise ValueError(f"there is no file or folder {path}.{near}")
    data_files = sorted(file for file in folder_of(path).rglob("*") if file.name.endswith(_SUFFIXES) and file.is_file())
    if not data_files:
        raise ValueError(f"{path} has no {NAMES} file")
    return data_files


def folder_of(dataset: Path) -> Path:
    """Return the folder that contains the rows of a dataset: the subfolder `data` if it exists, otherwise the dataset.

    The builders write card, reports and removed rows next to the subfolder `data`.
    """
    return dataset / "data" if (dataset / "data").is_dir() else dataset


def read_rows(path: str | Path, limit: int | None = None) -> list[Row]:
    """Return the rows of a file or folder as a list. See `read`."""
    return list(read(Path(path), limit))


def read(path: Path, limit: int | None = None) -> Iterator[Row]:
    """Stream the rows of a file or folder.

    Args:
        path: see `files`. A JSON file contains a list of rows, a single row, or one row per line.
        limit: maximum number of rows.

    Raises:
        ValueError: a file can't be read. The message names the file and, for JSON, the line.
    """
    count = 0
    for file in files(path):
        for row in _rows_of(file):
            if limit is not None and count >= limit:
                return
            count += 1
            yield row


def _rows_of(file: Path) -> Iterator[Row]:
    if file.suffix == ".parquet":
        return _read_parquet(file)
    return _read_json(file) if file.name.endswith(_JSON_SUFFIXES) else _read_lines(file)


def _read_lines(file: Path) -> Iterator[Row]:
    open_text: Any = gzip.open if file.suffix == ".gz" else open
    with open_text(file, "rt", encoding="utf-8-sig", errors="strict") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _parsed(line, f"{file}:{number}")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}:{_first_undecodable_line(file, open_text)}: not UTF-8: {error.reason}") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{file}: not gzip, or cut off: {error}") from None


def _first_undecodable_line(file: Path, open_text: Any) -> int:
    """Return the number of the first line that is not UTF-8."""
    with open_text(file, "rt", encoding="utf-8-sig", errors="surrogateescape") as lines:
        return next(number for number, line in enumerate(lines, 1) if re.search("[\udc80-\udcff]", line))


def _read_json(file: Path) -> Iterator[Row]:
    """Yield the rows of a JSON file.

    A file that is not a single JSON value is read line by line, so that error messages name the line.
    """
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError, EOFError, zlib.error, gzip.BadGzipFile):
        yield from _read_lines(file)
        return
    for number, row in enumerate(content if isinstance(content, list) else [content], 1):
        yield _checked(row, json.dumps(row), f"{file}, row {number}")


def _parsed(line: str, where: str) -> Row:
    """Parse one line of JSON as a row. `where` is the file and line number, for error messages."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON: {error}") from None
    return _checked(row, line, where)


def _checked(row: Any, text: str, where: str) -> Row:
    """Return the row. Raises ValueError if the row is not an object, or its source `text` has lone surrogates."""
    if _SURROGATE.search(text):
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{where}: half of a surrogate pair (\\ud800 to \\udfff), which is not a character: remove it"
            ) from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a row is a JSON object, not a {type(row).__name__}")
    return row


def _read_parquet(file: Path) -> Iterator[Row]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise ValueError(f"{file}: not Parquet: {error}") from None
