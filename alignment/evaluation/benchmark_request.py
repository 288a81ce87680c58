"""Which benchmark to run and how: one entry of a recipe's `evaluate:`, or one word of `align evaluate --tasks`."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignment.grading import SandboxSettings


@dataclass(frozen=True)
class Request:
    """One benchmark run. What is None keeps the benchmark's own published setting."""

    benchmark: str
    """Its name in `catalogue.BENCHMARKS`."""
    name: str = ""
    """What its figures are called; by default the benchmark's name."""
    data: str | None = None
    """Its rows: a file or folder. Needed where a benchmark has no home of its own."""
    mode: Literal["base", "chat"] | None = None
    n: int | None = None
    """Samples per task."""
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    limit: int | None = None
    """Only the first so many tasks."""
    only: frozenset[str] | None = None
    """Only the tasks with these ids, in any spelling: set where completions of a few tasks are graded."""
    batch_size: int | None = None
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    """How programs run while the benchmark is loaded: EvalPlus's reference solutions give the expected values."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.benchmark)
        for key in ("n", "max_new_tokens", "limit", "batch_size"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{self.name}: {key} is {value}: give 1 or more")
        if self.mode not in (None, "base", "chat"):
            raise ValueError(f"{self.name}: mode is {self.mode!r}: it is `base` or `chat`")


def as_request(entry: str | Mapping[str, Any] | Request | Any) -> Request:
    """A request from a word (`humaneval`, `fim:held-out.jsonl`), a mapping, or an object with such attributes."""
    if isinstance(entry, Request):
        return entry
    if isinstance(entry, str):
        benchmark, _, data = entry.partition(":")
        name = Path(data).stem if data else benchmark
        return Request(benchmark=benchmark, name=name, data=data or None)
    known = [field.name for field in dataclasses.fields(Request) if field.name not in ("only", "sandbox")]
    if isinstance(entry, Mapping):
        values = dict(entry)
        for key in values:
            if key not in known:
                raise ValueError(f"a benchmark has no setting {key!r}.{did_you_mean(key, known)}")
    else:
        values = {key: getattr(entry, key) for key in known if hasattr(entry, key)}
    if "benchmark" not in values:
        raise ValueError(f"which benchmark? give `benchmark:` in {values}")
    if values.get("data") is not None:
        values["data"] = str(values["data"])
    return Request(**values)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def resolved(task_id: str, known: Collection[str]) -> str | None:
    """The benchmark's own spelling of an id: `HumanEval_3`, `humaneval/3` and a bare `3` are `HumanEval/3`."""
    if task_id in known:
        return task_id
    number = re.fullmatch(r"(?i)(?:(?:HumanEval|MBPP)[/_])?(\d+)", task_id)
    spellings = [f"{family}/{int(number[1])}" for family in ("HumanEval", "Mbpp")] if number else []
    return next((spelling for spelling in spellings if spelling in known), None)
