"""Reading benchmark rows: JSONL and JSON, gzipped or not, and Parquet."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from alignment.rows.reading import folder_of

Row = dict[str, Any]


def read_rows(path: str | Path) -> list[Row]:
    """All rows of a file, or of the files of a folder in the order of their names.

    Raises:
        ValueError: the file is missing or cannot be read; the message names file and line.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in folder_of(path).iterdir() if file.suffix in (".jsonl", ".parquet", ".gz"))
        if not files:
            raise ValueError(f"{path} has no .jsonl, .jsonl.gz or .parquet file")
        return [row for file in files for row in read_rows(file)]
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix == ".parquet":
        from datasets import Dataset

        return list(Dataset.from_parquet(str(path)))
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if path.name.endswith((".json", ".json.gz")):
        try:
            content = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        return content if isinstance(content, list) else [content]
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON: {error}") from error
    return rows
