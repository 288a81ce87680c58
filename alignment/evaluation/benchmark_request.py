"""Describe a benchmark to run and its settings: an entry of a recipe's `evaluate:`, or a value of `--tasks`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignment.grading import SandboxSettings
from alignment.wording import did_you_mean

NOT_SETTINGS = ("only", "sandbox")
"""Fields of `BenchmarkRequest` that can't be set in a recipe or on the command line."""
_USER_CODE = re.compile(r"(?P<code>.+\.py:[A-Za-z_]\w*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+:[A-Za-z_]\w*)(?::(?P<data>.+))?")


@dataclass(frozen=True)
class BenchmarkRequest:
    """One benchmark to run. If a setting is None, the benchmark's published value applies.

    Raises:
        ValueError: a number is out of its range, or the mode is neither `base` nor `chat`.
    """

    benchmark: str
    """A name in `catalogue.BENCHMARKS`, or the user's own code as `path/to/file.py:name` or `package.module:name`."""
    name: str = ""
    """Name of the benchmark in the results; by default the value of `benchmark`."""
    data: str | None = None
    """File or folder of the benchmark's rows. Required for a benchmark whose rows are not public."""
    mode: Literal["base", "chat"] | None = None
    n: int | None = None
    """Number of completions that are sampled for each task."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    limit: int | None = None
    """Use only the first tasks, at most this many."""
    only: frozenset[str] | None = None
    """Use only the tasks with these ids, in any spelling that `resolve_task_id` accepts.

    Set when existing completions are graded.
    """
    batch_size: int | None = None
    """Number of sequences that are generated at the same time."""
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    """Sandbox for programs that run while the benchmark is loaded, such as EvalPlus's reference solutions."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.benchmark.rpartition(":")[2])
        for key in ("n", "max_new_tokens", "limit", "batch_size"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{self.name}: {key} is {value}: it must be at least 1")
        if self.top_k is not None and self.top_k < 0:
            raise ValueError(f"{self.name}: top_k is {self.top_k}: it must be at least 0, which means all tokens")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"{self.name}: min_p is {self.min_p}: it must be from 0 to 1")
        if self.repetition_penalty is not None and not self.repetition_penalty > 0:
            raise ValueError(f"{self.name}: repetition_penalty is {self.repetition_penalty}: it must be above 0")
        if self.mode not in (None, "base", "chat"):
            raise ValueError(f"{self.name}: mode is {self.mode!r}: it must be `base` or `chat`")


def parse_request(entry: str | Mapping[str, Any] | BenchmarkRequest | Any) -> BenchmarkRequest:
    """Create a request from a string, a mapping or an object.

    Args:
        entry: a string, a mapping of settings, or an object with settings as attributes. A string names a benchmark
            (`humaneval`), optionally with its rows (`fim:held-out.jsonl`), or the user's code (`my_bench.py:Tasks` or
            `package.module:Tasks`), optionally with rows (`my_bench.py:Tasks:rows.jsonl`).

    Raises:
        ValueError: a setting is unknown or has a wrong value, or no benchmark is named.
    """
    if isinstance(entry, BenchmarkRequest):
        return entry
    if isinstance(entry, str):
        if match := _USER_CODE.fullmatch(entry):
            return BenchmarkRequest(benchmark=match["code"], data=match["data"])
        benchmark, _, data = entry.partition(":")
        return BenchmarkRequest(benchmark=benchmark, name=Path(data).stem if data else benchmark, data=data or None)
    known = [item.name for item in dataclasses.fields(BenchmarkRequest) if item.name not in NOT_SETTINGS]
    if isinstance(entry, Mapping):
        values = dict(entry)
        for key in values:
            if key not in known:
                raise ValueError(f"a benchmark has no setting {key!r}.{did_you_mean(key, known)}")
    else:
        values = {key: getattr(entry, key) for key in known if hasattr(entry, key)}
    if "benchmark" not in values:
        raise ValueError(f"no benchmark is named in {values}: add `benchmark:`")
    if values.get("data") is not None:
        values["data"] = str(values["data"])
    return BenchmarkRequest(**values)


def resolve_task_id(task_id: str, known: Collection[str]) -> str | None:
    """Return the benchmark's spelling of a task id, or None if the benchmark does not have the task.

    `HumanEval_3`, `humaneval/3` and a bare `3` are spellings of `HumanEval/3`. The same spellings work for MBPP.
    """
    if task_id in known:
        return task_id
    number = re.fullmatch(r"(?i)(?:(?:HumanEval|MBPP)[/_])?(\d+)", task_id)
    spellings = [f"{family}/{int(number[1])}" for family in ("HumanEval", "Mbpp")] if number else []
    return next((spelling for spelling in spellings if spelling in known), None)
