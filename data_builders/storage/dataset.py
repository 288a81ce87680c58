"""Write and read datasets of Parquet shards, a JSON report and a dataset card. The same rows give the same bytes.

    out_dir/
      data/part-00000.parquet ...
      report.json     settings, counts and hash, for programs
      README.md       dataset card, for people and for `datasets.load_dataset(out_dir)`

`report.json` is written last. A folder without this file is unfinished, and the next build into the folder starts from
the beginning.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignment.files import write_text
from alignment.rows import reading as row_files
from alignment.rows.messages import is_learned

_MESSAGES = pa.list_(
    pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.string()), ("weight", pa.int8())])
)
_STRINGS = {
    "document": "text repository path commit language license kind",
    "task": "id prompt language kind tests entry_point source split",
}
SCHEMAS: dict[str, pa.Schema] = {
    **{kind: pa.schema([(name, pa.string()) for name in names.split()]) for kind, names in _STRINGS.items()},
    "conversation": pa.schema([("messages", _MESSAGES), ("source", pa.string())]),
    "preference": pa.schema(
        [("prompt", _MESSAGES), ("chosen", _MESSAGES), ("rejected", _MESSAGES), ("source", pa.string())]
    ),
}
"""Maps each kind of row to its columns. A builder may append further columns."""

ROW_GROUP_BYTES = 32 * 1024 * 1024
"""Size of a row group in bytes. The rows of one row group are buffered in memory."""
SHARD_BYTES = 256 * 1024 * 1024
COUNTED = {"language": "languages", "license": "licenses", "kind": "kinds"}
"""Columns whose values are counted for the report. Maps each column to the key of its counts in the report."""


def row_size(row: dict[str, Any]) -> int:
    """Estimate the size of a row in bytes: the number of characters of all strings, plus 8 for each value."""
    total = 0
    stack: list[Any] = [row]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            total += len(value) + 8
        elif isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
        else:
            total += 8
    return total


def storable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose messages and tools fit the columns of `SCHEMAS`.

    Tools and calls are stored as JSON strings, because as Arrow columns every call would get the argument names of all
    calls. A key that excludes an answer from the loss, such as `train: false`, is stored as `weight: 0`.
    """
    stored: dict[str, Any] = {
        name: [_storable_message(message) for message in row[name]]
        for name in ("messages", "prompt", "chosen", "rejected")
        if isinstance(row.get(name), list)
    }
    if isinstance(row.get("tools"), list):
        stored["tools"] = json.dumps(row["tools"], ensure_ascii=False)
    return {**row, **stored}


def _storable_message(message: Any) -> Any:
    if not isinstance(message, dict) or "role" not in message:
        return message
    calls = message.get("tool_calls") or None
    written = calls if calls is None or isinstance(calls, str) else json.dumps(calls, ensure_ascii=False)
    unlearned = message["role"] == "assistant" and not is_learned(message)
    return {
        "role": message["role"], "content": message.get("content"), "tool_calls": written, "weight": 0 if unlearned else None
    }  # fmt: skip


def refuse_finished(out_dir: Path) -> None:
    """Raise a ValueError if a folder already holds a finished dataset. Finished datasets are never overwritten."""
    if (out_dir / "report.json").exists():
        raise ValueError(f"{out_dir} already holds a finished dataset; remove it or use another folder")


class DatasetWriter:
    """Streams rows of one kind into Parquet shards. Memory holds one row group. Call `finish` at the end.

    Args:
        out_dir: folder of the dataset. If it contains shards of an unfinished build, they are removed.
        kind: a key of `SCHEMAS`.
        extra: names and types of additional columns.
        shard_bytes: size of a shard before compression.

    Raises:
        ValueError: `out_dir` holds a finished dataset.
    """

    def __init__(
        self, out_dir: Path, kind: str, extra: dict[str, pa.DataType] | None = None, shard_bytes: int = SHARD_BYTES
    ) -> None:
        refuse_finished(out_dir)
        self.out_dir = out_dir
        self.kind = kind
        self.schema = SCHEMAS[kind]
        for name, type_ in (extra or {}).items():
            self.schema = self.schema.append(pa.field(name, type_))
        self.shard_bytes = shard_bytes
        self.rows = 0
        self.bytes = 0
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in COUNTED if name in self.schema.names}
        self._buffer: list[dict[str, Any]] = []
        self._buffered = self._in_shard = 0
        self._shards: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._folder = out_dir / "data"
        self._folder.mkdir(parents=True, exist_ok=True)
        for leftover in self._folder.glob("part-*.parquet"):
            leftover.unlink()

    def write(self, row: dict[str, Any]) -> None:
        """Add a row. Keys of the row that are not in the schema are dropped, and missing keys are written as null."""
        size = row_size(row)
        if self._in_shard + self._buffered + size > self.shard_bytes and self._in_shard + self._buffered:
            self._close_shard()
        self._buffer.append({name: row.get(name) for name in self.schema.names})
        self._buffered += size
        for name, counter in self.counts.items():
            counter[str(row.get(name) or "none")] += 1
        self.rows += 1
        self.bytes += size
        if self._buffered >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._buffer:
            return
        if self._writer is None:
            path = self._folder / f"part-{len(self._shards):05d}.parquet"
            self._shards.append(path)
            self._writer = pq.ParquetWriter(path, self.schema, compression="zstd")
        table = pa.Table.from_pylist(self._buffer, schema=self.schema)
        self._writer.write_table(table, row_group_size=len(self._buffer))
        self._in_shard += self._buffered
        self._buffer, self._buffered = [], 0

    def _close_shard(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
        self._writer, self._in_shard = None, 0

    def finish(self, title: str, settings: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
        """Close the shards, write the card and then `report.json`.

        Args:
            title: title of the card.
            settings: the settings of the builder.
            report: counts of the builder. They are added to the report, after the counts of rows.

        Returns:
            The content of `report.json`.
        """
        if not self._shards and not self._buffer:  # `datasets` needs at least one file, even without rows
            self._writer = pq.ParquetWriter(self._folder / "part-00000.parquet", self.schema, compression="zstd")
            self._shards.append(self._folder / "part-00000.parquet")
        self._close_shard()
        digest = hashlib.sha256()
        for shard in self._shards:
            with shard.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        summary = {
            "title": title, "rows_kind": self.kind, "rows": self.rows, "bytes": self.bytes,
            "shards": len(self._shards), "sha256": digest.hexdigest(),
            **{COUNTED[name]: sorted_counts(counter) for name, counter in self.counts.items()},
            **report, "settings": settings,
        }  # fmt: skip
        _write_escaped(self.out_dir / "README.md", dataset_card(summary))
        _write_escaped(
            self.out_dir / "report.json", json.dumps(summary, indent=2, ensure_ascii=False, default=str) + "\n"
        )
        return summary

    def abort(self) -> None:
        """Close the open shard without finishing the dataset."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def sorted_counts(counter: Mapping[str, int]) -> dict[str, int]:
    """Sort counts from large to small. Equal counts are sorted by name."""
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def read_report(path: Path) -> dict[str, Any] | None:
    """Return the `report.json` of a dataset's folder or of one of its files, or None if there is no report."""
    places = (path / "report.json", path.parent / "report.json")
    file = next((place for place in places if place.is_file()), None)
    report: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file is not None else None
    return report


def lineage(paths: Iterable[Path | str]) -> list[str]:
    """Describe each input dataset of a build by its title, hash and sources.

    An input without `report.json` is described by its file name.
    """
    descriptions = []
    for path in map(Path, paths):
        report = read_report(path)
        if report is None:
            descriptions.append(path.name)
            continue
        sources = f" ({'; '.join(map(str, report['sources']))})" if report.get("sources") else ""
        descriptions.append(f"{report['title']}, sha256 {report['sha256']}{sources}")
    return descriptions


def _write_escaped(path: Path, text: str) -> None:
    """Write a text file atomically. Lone surrogates, which stand for bytes that are not UTF-8, are escaped."""
    write_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))


def write_card(
    out_dir: Path, title: str, files: Mapping[str, int], sources: list[str], settings: Any, report: Mapping[str, Any]
) -> None:
    """Write the card of a dataset of JSONL files. Call this function last: the card contains a hash of the files.

    Args:
        out_dir: folder of the dataset.
        title: title of the card.
        files: maps a file name to its number of rows.
        sources: the repositories or datasets from which the dataset was made.
        settings: the settings of the builder.
        report: counts of the builder.
    """
    digest = hashlib.sha256()
    for name in files:
        with (out_dir / name).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    summary = {
        "title": title, "sha256": digest.hexdigest(), "files": dict(files), "sources": sources, **report, "settings": settings
    }  # fmt: skip
    with_rows = {name.removesuffix(".jsonl"): name for name, rows in files.items() if rows}
    _write_escaped(out_dir / "README.md", dataset_card(summary, with_rows))


def dataset_card(summary: dict[str, Any], configs: Mapping[str, str] | None = None) -> str:
    """Format the dataset card: YAML front matter for `datasets`, then the report as tables.

    Args:
        summary: the report. `title` and `settings` are required.
        configs: maps the name of each configuration to a file pattern. With None, there is one configuration, which
            contains all shards.
    """
    parts = configs or {"default": "data/*.parquet"}
    lines = [
        "---",
        "configs:",
        *(line for name, files in parts.items() for line in (f"- config_name: {name}", f"  data_files: {files}")),
        "---",
        "",
        f"# {summary['title']}",
        "",
    ]
    lines += ["Run `align show` on this folder to see some of its rows.", ""]
    elsewhere = {"title", "settings"}
    scalars = {
        key: value for key, value in summary.items() if key not in elsewhere and not isinstance(value, dict | list)
    }
    lines += ["| key | value |", "|---|---|", *(f"| {key} | {_cell(value)} |" for key, value in scalars.items()), ""]
    for key, value in summary.items():
        if key in elsewhere or not isinstance(value, dict | list):
            continue
        lines += [f"## {key.replace('_', ' ').capitalize()}", ""]
        if not value:
            lines += ["none", ""]
        elif isinstance(value, dict):
            lines += [
                "| key | value |",
                "|---|---|",
                *(f"| {_cell(name)} | {_cell(count)} |" for name, count in value.items()),
                "",
            ]
        else:
            lines += [*(f"- {_cell(item)}" for item in value), ""]
    lines += [
        "## Settings",
        "",
        "```json",
        json.dumps(summary["settings"], indent=2, ensure_ascii=False, default=str),
        "```",
        "",
    ]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else str(value)
    return text.replace("|", "\\|").replace("\n", "\\n")


def read_datasets(paths: Iterable[Path | str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of several datasets, one dataset after another."""
    for path in paths:
        yield from row_files.read(Path(path))
