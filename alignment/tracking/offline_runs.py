"""Reads the files of offline runs of Weights & Biases, and joins the runs of a stage that was started several times.

wandb 0.31 reads such files in a binary, without a Python interface. A file is a log in the format of LevelDB
(https://github.com/google/leveldb/blob/main/doc/log_format.md) whose records are protobuf messages of `wandb.proto`:
a header of 7 bytes (`:W&B`, magic number, version), then blocks of 32 KiB. A record begins with CRC-32, length and type,
and is continued in the next block if it does not fit.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_MAGIC = b":W&B\xe1\xbe\x00"
_BLOCK = 32 * 1024
_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_SEED = {kind: zlib.crc32(bytes([kind])) for kind in (_FULL, _FIRST, _MIDDLE, _LAST)}
"""Type of a record -> checksum of the type, with which the record's checksum begins."""
STEP = "train/global_step"
"""Metric with the optimizer step, which transformers logs in every row."""
Row = dict[str, Any]
"""The metrics of one log call, with the time `_timestamp`."""


@dataclass(frozen=True)
class OfflineRun:
    """One offline run: what wandb wrote between start and end, or kill, of a process."""

    file: Path
    id: str
    name: str
    group: str
    project: str
    entity: str
    started: float
    """Seconds since 1970."""
    config: dict[str, Any] = field(repr=False)
    rows: list[Row] = field(repr=False)


@dataclass(frozen=True)
class JoinedRun:
    """All starts of one stage as a single run."""

    id: str
    name: str
    group: str
    project: str
    entity: str
    config: dict[str, Any] = field(repr=False)
    rows: list[Row] = field(repr=False)
    starts: int = 1


def records(file: Path) -> Iterator[bytes]:
    """Yield the records of a `.wandb` file. A file of a killed process ends with the last whole record.

    Raises:
        ValueError: the file is no `.wandb` file, or a record before its end is damaged.
    """
    content = file.read_bytes()
    if not content.startswith(_MAGIC):
        raise ValueError(f"{file} is not a file of wandb: it does not begin with `:W&B`")
    place, parts = len(_MAGIC), b""
    while place + _HEADER.size <= len(content):
        if (left := _BLOCK - place % _BLOCK) < _HEADER.size:
            place += left  # the rest of a block is padding
            continue
        checksum, length, kind = _HEADER.unpack_from(content, place)
        data = content[place + _HEADER.size : place + _HEADER.size + length]
        if len(data) < length or (checksum, length, kind) == (0, 0, 0):
            return  # written by a process that was killed
        if kind not in _SEED or zlib.crc32(data, _SEED[kind]) != checksum:
            if not content[place + _HEADER.size + length :].strip(b"\0"):
                return  # the last record was not written whole
            raise ValueError(
                f"{file} is damaged at byte {place}: restore it from a copy, or move the run's folder away"
            )
        parts = parts + data if kind in (_MIDDLE, _LAST) else data
        if kind in (_FULL, _LAST):
            yield parts
        place += _HEADER.size + length


def read_offline_run(file: Path) -> OfflineRun | None:
    """Read a `.wandb` file. Return None if the process was killed before wandb had written what run it is."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # generated, without types

    run: Any = None
    config: dict[str, Any] = {}
    rows: list[Row] = []
    for data in records(file):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            _update(config, run.config.update)
        elif kind == "config":
            _update(config, record.config.update)
        elif kind == "history":
            rows.append(
                {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            )
    if run is None:
        return None
    started = run.start_time.seconds + run.start_time.nanos / 1e9
    return OfflineRun(file, run.run_id, run.display_name, run.run_group, run.project, run.entity, started, config, rows)


def _update(config: dict[str, Any], items: Any) -> None:
    for item in items:
        key = item.key or ".".join(item.nested_key)
        if key != "_wandb":
            config[key] = json.loads(item.value_json)


def fill(run: JoinedRun, metrics: Path) -> JoinedRun:
    """Add the steps that a killed process had not yet written to its `.wandb` file, from the stage's `metrics.jsonl`.

    The names of metrics become those that transformers gives them in W&B. Without optimizer steps nothing is added.
    """
    known = {row[STEP] for row in run.rows if STEP in row}
    if not known or not metrics.is_file():
        return run
    added: list[Row] = []
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            log = json.loads(line)
        except ValueError:  # the last line of a killed process
            continue
        if isinstance(log, dict) and log.get("step", -1) not in known and "step" in log:
            added.append({STEP: log["step"], **{_wandb_name(key): log[key] for key in log if key not in _NOT_LOGGED}})
    ordered = sorted(enumerate([*run.rows, *added]), key=lambda item: (item[1].get(STEP, -1), item[0]))
    return replace(run, rows=[row for _, row in ordered])


_NOT_LOGGED = ("step", "max_steps", "seconds")
"""Keys of `metrics.jsonl` that transformers does not log."""


def _wandb_name(key: str) -> str:
    prefix = next((prefix for prefix in ("eval_", "test_") if key.startswith(prefix)), "")
    return f"{prefix[:-1]}/{key[len(prefix) :]}" if prefix else f"train/{key}"


def offline_runs(stage: Path) -> list[OfflineRun]:
    """Return the offline runs in the folder of a stage, in the order in which they were started."""
    files = sorted((stage / "wandb").glob("offline-run-*/run-*.wandb"))
    runs = [run for file in files if (run := read_offline_run(file)) is not None]
    return sorted(runs, key=lambda run: run.started)


def join(runs: Sequence[OfflineRun]) -> JoinedRun:
    """Join the runs of all starts of one stage. The steps that a resumed process trained again are taken from it.

    Runs without optimizer steps are evaluations; of several starts the last one that logged something counts.

    Args:
        runs: at least one run, in the order in which they were started.
    """
    first = runs[0]
    config: dict[str, Any] = {}
    rows: list[Row] = []
    for run in runs:
        config |= run.config
        steps = [row[STEP] for row in run.rows if STEP in row]
        if steps:
            rows = [row for row in rows if row.get(STEP, -1) < steps[0]] + run.rows
        elif run.rows and not any(STEP in row for row in rows):
            rows = list(run.rows)
    suffix = re.compile(r" \(\d+\)$")
    metrics = [
        {key: value for key, value in row.items() if not key.startswith("_") or key == "_timestamp"} for row in rows
    ]
    return JoinedRun(
        first.id, suffix.sub("", first.name), first.group, first.project, first.entity, config, metrics, len(runs)
    )
