"""Index of the rollouts of a GRPO stage, so that a page can show ten thousand of them without reading all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alignment.report.growing_file import GrowingFile
from alignment.stages.rollout_rows import FOLDER, RolloutFilter

_TASK_CHARACTERS = 200


@dataclass(frozen=True)
class RolloutEntry:
    """The place of one rollout in its file, and what the list shows of it."""

    file: str
    offset: int
    step: int
    task: str | None
    reward: float | None
    verdict: str
    tokens: int
    turns: int

    def as_json(self) -> dict[str, Any]:
        """Return the entry for the page."""
        return vars(self)


class RolloutIndex:
    """The rollouts of one stage, of all its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._files: dict[Path, GrowingFile[RolloutEntry]] = {}
        self._state: list[tuple[Path, int]] = []
        self._entries: list[RolloutEntry] = []

    def entries(self) -> list[RolloutEntry]:
        """Return all entries, by step. Reads what was added to the files since the last call."""
        for path in sorted(self.folder.glob("rank-*.jsonl")):
            if path not in self._files:
                self._files[path] = GrowingFile(path, partial(_entry, path.name))
        for file in self._files.values():
            file.refresh()
        state = [(path, file.changes) for path, file in self._files.items()]
        if state != self._state:
            rows = [entry for file in self._files.values() for entry in file.rows]
            self._state, self._entries = state, sorted(rows, key=lambda entry: entry.step)
        return self._entries

    def select(self, wanted: RolloutFilter, task_part: str = "", verdict: str = "") -> list[RolloutEntry]:
        """Return the entries that a filter accepts.

        Args:
            wanted: conditions on step, task and reward.
            task_part: text that the task's id must contain, in any case.
            verdict: the verdict that the rollout must have. Empty: any.
        """
        part = task_part.lower()
        return [
            entry
            for entry in self.entries()
            if wanted.accepts(vars(entry))
            and (not part or part in (entry.task or "").lower())
            and (not verdict or entry.verdict == verdict)
        ]

    def row(self, file: str, offset: int) -> dict[str, Any] | None:
        """Return the whole rollout at a place, or None if no rollout is there."""
        if not any(entry.file == file and entry.offset == offset for entry in self.entries()):
            return None  # also protects against names of other files
        with (self.folder / file).open("rb") as stream:
            stream.seek(offset)
            line = stream.readline()
        try:
            row = json.loads(line)
        except ValueError:
            return None
        return row if isinstance(row, dict) else None


def _entry(file: str, offset: int, line: bytes) -> RolloutEntry | None:
    try:
        row = json.loads(line)
        reward = row["reward"]
        return RolloutEntry(
            file=file,
            offset=offset,
            step=int(row["step"]),
            task=None if row.get("task") is None else str(row["task"])[:_TASK_CHARACTERS],
            reward=float(reward) if reward is not None and math.isfinite(reward) else None,
            verdict=_verdict(row),
            tokens=int(row.get("tokens", 0)),
            turns=len(row.get("turns", ())),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _verdict(row: Mapping[str, Any]) -> str:
    """Return the reason of a failed verdict, or `passed`. Rows of rewards without verdicts give an empty text."""
    if "verdict" not in row:
        return ""
    return str(row["verdict"] or "passed")[:40]
