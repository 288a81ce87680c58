"""Completions of the same tasks by two models: before and after a stage."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.evaluation.store import read_jsonl

COMPLETIONS, VERDICTS = "completions.jsonl", "verdicts.jsonl"
Key = tuple[str, str, int]
"""Benchmark, id of the task, and number of the sample."""


@dataclass(frozen=True)
class SamplePair:
    """One task, and how both models did."""

    benchmark: str
    task: str
    sample: int
    before: float | None
    after: float | None

    @property
    def change(self) -> str:
        """`better`, `worse` or `same`."""
        if self.before is None or self.after is None or abs(self.after - self.before) < 1e-9:
            return "same"
        return "better" if self.after > self.before else "worse"

    def as_json(self) -> dict[str, Any]:
        """Return the pair for the page."""
        return {**vars(self), "change": self.change}


class SamplePairs:
    """Pairs of the completions in the folders of two finished evaluations."""

    def __init__(self, before: Path, after: Path) -> None:
        self.folders = (before, after)
        verdicts = [_scores(folder / VERDICTS) for folder in self.folders]
        self._places = [_places(folder / COMPLETIONS) for folder in self.folders]
        self.pairs = [
            SamplePair(*key, before=verdicts[0].get(key), after=verdicts[1].get(key))
            for key in self._places[1]
            if key in self._places[0]
        ]

    def benchmarks(self) -> list[str]:
        """Return the names of the benchmarks."""
        return list(dict.fromkeys(pair.benchmark for pair in self.pairs))

    def select(self, benchmark: str = "", change: str = "", task_part: str = "") -> list[SamplePair]:
        """Return the pairs of a benchmark with a kind of change and a text in the task's id. Empty: any."""
        part = task_part.lower()
        return [
            pair
            for pair in self.pairs
            if benchmark in ("", pair.benchmark) and change in ("", pair.change) and part in pair.task.lower()
        ]

    def detail(self, key: Key) -> list[dict[str, Any]] | None:
        """Return completion and verdict of both models for one task, or None if there is no such task."""
        if any(key not in places for places in self._places):
            return None
        details = []
        for folder, places in zip(self.folders, self._places, strict=True):
            verdict = next((row for row in read_jsonl(folder / VERDICTS) if _key(row) == key), {})
            with (folder / COMPLETIONS).open("rb") as file:
                file.seek(places[key])
                details.append({**verdict, **json.loads(file.readline())})
        return details


def _key(row: Mapping[str, Any]) -> Key:
    return str(row.get("benchmark", "")), str(row.get("task_id", "")), int(row.get("sample", 0))


def _scores(path: Path) -> dict[Key, float]:
    """Return the score of each completion: `pass` if the benchmark has it, else the first score."""
    scores = {}
    for row in read_jsonl(path):
        values = row.get("scores") or {}
        value = values.get("pass", next(iter(values.values()), None))
        if isinstance(value, int | float):
            scores[_key(row)] = float(value)
    return scores


def _places(path: Path) -> dict[Key, int]:
    """Return the offset of each completion in its file."""
    places, offset = {}, 0
    try:
        with path.open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, AttributeError):
                    places[_key(json.loads(line))] = offset
                offset += len(line)
    except FileNotFoundError:
        pass
    return places
