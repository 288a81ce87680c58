"""Reads rows from JSONL and JSON files, gzipped or not, and from Parquet files."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.rows.kinds import Row
from alignment.wording import did_you_mean, display

NAMES = ".jsonl, .jsonl.gz or .parquet"
"""The suffixes of supported files, for error messages."""
# Start of an escaped surrogate. A lone surrogate is valid JSON but not valid text: tokenizers and Arrow refuse it.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""Matches the characters by which Python's error handler `surrogateescape` replaces bytes that are not UTF-8."""
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
    for _, row in read_located(path, limit):
        if isinstance(row, ValueError):
            raise row
        yield row


def read_located(path: Path, limit: int | None = None) -> Iterator[tuple[str, Row | ValueError]]:
    """Stream the rows of a file or folder, each with its place. Reading continues after a line that is not a row.

    Args:
        path: see `files`.
        limit: maximum number of rows. Lines that are not rows count too.

    Yields:
        The place (`rows.jsonl:4`, or `rows.parquet, row 4` for files without lines), and the row or the error in its
        line.

    Raises:
        ValueError: `path` names no data file.
    """
    entries = (entry for file in files(path) for entry in _rows_of(file))
    return itertools.islice(entries, limit)


def _rows_of(file: Path) -> Iterator[tuple[str, Row | ValueError]]:
    if file.suffix == ".parquet":
        return _read_parquet(file)
    return _read_json(file) if file.name.endswith(_JSON_SUFFIXES) else _read_lines(file)


def _read_lines(file: Path) -> Iterator[tuple[str, Row | ValueError]]:
    open_text: Any = gzip.open if file.suffix == ".gz" else open
    # Bytes that are not UTF-8 become lone surrogates, so that the line with them can be named and the next one be read.
    with open_text(file, "rt", encoding="utf-8-sig", errors="surrogateescape") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{display(file)}:{number}"
                    yield where, _parsed(line, where)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield display(file), ValueError(f"{display(file)}: not gzip, or cut off: {error}")


def _read_json(file: Path) -> Iterator[tuple[str, Row | ValueError]]:
    """Yield the rows of a JSON file, each with its place.

    A file that is not a single JSON value is read line by line, so that error messages name the line.
    """
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError, EOFError, zlib.error, gzip.BadGzipFile):
        yield from _read_lines(file)
        return
    for number, row in enumerate(content if isinstance(content, list) else [content], 1):
        where = f"{display(file)}, row {number}"
        yield where, _checked(row, json.dumps(row), where)


def _parsed(line: str, where: str) -> Row | ValueError:
    """Parse one line of JSON as a row. `where` is the file and line number, for error messages."""
    if not line.isascii() and _NOT_UTF8.search(line):
        return ValueError(f"{where}: not UTF-8: save the file as UTF-8")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return ValueError(f"{where}: not JSON: {error}")
    return _checked(row, line, where)


def _checked(row: Any, text: str, where: str) -> Row | ValueError:
    """Return the row, or a ValueError if it is not an object or its JSON `text` contains lone surrogates."""
    if _SURROGATE.search(text):
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return ValueError(
                f"{where}: half of a surrogate pair (\\ud800 to \\udfff), which is not a character: remove it"
            )
    if isinstance(row, list):
        return ValueError(
            f"{where}: a row is a JSON object, not a list: write one object per line, or name the file .json if it is one array"
        )
    if not isinstance(row, dict):
        return ValueError(f"{where}: a row is a JSON object, not a {type(row).__name__}")
    return row


def _read_parquet(file: Path) -> Iterator[tuple[str, Row | ValueError]]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            rows = (row for batch in table.iter_batches(batch_size=_PARQUET_ROWS) for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield f"{display(file)}, row {number}", row
    except (OSError, pyarrow.ArrowInvalid) as error:
        yield display(file), ValueError(f"{display(file)}: not Parquet: {error}")
