"""Rows of GRPO's rollouts: each completion with its prompt, turns, verdict, reward and tokens, in the stage's artifact.

Every process writes `rollouts/rank-N.jsonl`. `align rollouts` shows the rows.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `align rollouts` and `align ui` read rows without loading rewards and sandboxes
    from alignment.environments.rollout_environment import RolloutEnvironment
    from alignment.rewards import Completion, Prompt, RewardFunction
    from alignment.rewards.reward_protocol import Scores

FOLDER = "rollouts"
_EXTRAS = {"verdict": "verdict", "verdict_detail": "detail"}
"""Names of columns in the rows, keyed by the names under which rewards log these columns for TRL's table of
completions."""


class RolloutRows:
    """Writes the rollouts of one process."""

    def __init__(self, out: Path, rank: int) -> None:
        self.path = out / FOLDER / f"rank-{rank}.jsonl"
        self._resumed = False

    def recording(self, reward: RewardFunction) -> RewardFunction:
        """Return a reward function that calls `reward`, and also writes every rollout that is scored."""

        async def recorded(prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any) -> Scores:
            extras: dict[str, list[Any]] = {}
            if (log_extra := columns.get("log_extra")) is not None:
                columns["log_extra"] = _keeping(log_extra, extras)
            scores = await reward(prompts, completions, **columns)
            self._write(prompts, completions, columns, extras, scores)
            return scores

        recorded.__name__ = getattr(reward, "__name__", "reward")
        return recorded

    def _write(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        columns: Mapping[str, Any],
        extras: Mapping[str, list[Any]],
        scores: Scores,
    ) -> None:
        step = int(getattr(columns.get("trainer_state"), "global_step", 0))
        self._drop_later_steps(step)
        environments: Sequence[RolloutEnvironment] = columns.get("environments") or []
        ids = columns.get("completion_ids") or [()] * len(completions)
        with self.path.open("a", encoding="utf-8") as file:
            for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
                row = {
                    "step": step,
                    "task": (columns.get("id") or [None] * len(scores))[index],
                    **({"tier": columns["tier"][index]} if "tier" in columns else {}),
                    "reward": scores[index],
                    **{name: extras[column][index] for column, name in _EXTRAS.items() if column in extras},
                    "tokens": len(ids[index]),
                    "prompt": _messages(prompt, "user"),
                    "turns": _messages(completion, "assistant"),
                }
                if environments:
                    outcome = environments[index].outcome
                    row |= {"submission": outcome.submission, "problem": outcome.problem, "environment": outcome.counts}
                file.write(json.dumps(row, ensure_ascii=True, default=str) + "\n")

    def _drop_later_steps(self, step: int) -> None:
        """Drop rows that were written after the checkpoint from which the run resumes. They are written again."""
        if self._resumed:
            return
        self._resumed = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            kept = [row for row in read_rollouts(self.path) if row["step"] < step]
            self.path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def _keeping(log_extra: Callable[[str, list[Any]], None], extras: dict[str, list[Any]]) -> Callable[..., None]:
    def log(column: str, values: list[Any]) -> None:
        extras[column] = list(values)
        log_extra(column, values)

    return log


def _messages(text: Prompt | Completion, role: str) -> list[dict[str, Any]]:
    if isinstance(text, str):
        return [{"role": role, "content": text}]
    return [dict(message) for message in text]


def read_rollouts(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file. A last line that was cut off by the end of a process is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


@dataclass(frozen=True)
class RolloutFilter:
    """Conditions that decide which rollouts are shown. A condition that is None is not checked."""

    step: int | None = None
    task: str | None = None
    below: float | None = None
    above: float | None = None
    ungraded: bool = False

    def accepts(self, row: Mapping[str, Any]) -> bool:
        """Whether a row meets the conditions. A rollout without a reward is neither below nor above a limit."""
        reward = row["reward"]
        if self.ungraded or reward is None:
            wanted = reward is None and self.below is None and self.above is None
        else:
            wanted = (self.below is None or reward < self.below) and (self.above is None or reward > self.above)
        return wanted and self.step in (None, row["step"]) and self.task in (None, row["task"])


def rollout_files(run: Path) -> list[Path]:
    """Return the rollout files in the folder of a recipe or a stage. If `run` is a file, return this file.

    Raises:
        ValueError: there are no rollout files.
    """
    if run.is_file():
        return [run]
    for pattern in (f"{FOLDER}/rank-*.jsonl", f"*/{FOLDER}/rank-*.jsonl"):
        if files := sorted(run.glob(pattern)):
            return files
    raise ValueError(f"{run} has no rollouts: name the folder of a recipe's results, or of one of its GRPO stages")


def select(run: Path, wanted: RolloutFilter, count: int) -> list[dict[str, Any]]:
    """Return the last `count` rollouts that a filter accepts.

    Raises:
        ValueError: the filter accepts no rollout.
    """
    if count < 1:
        raise ValueError(f"the number of rollouts to show must be at least 1, not {count}")
    files = rollout_files(run)
    rows = deque((row for file in files for row in read_rollouts(file) if wanted.accepts(row)), count)
    if not rows:
        steps = [row["step"] for file in files for row in read_rollouts(file)]
        has = f"has {len(steps)} rollouts of the steps {min(steps)} to {max(steps)}" if steps else "has no rollouts"
        raise ValueError(f"no rollout is selected; {run} {has}")
    return list(rows)


def written(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a row in which tool calls are part of the text of the messages."""
    shown = dict(row)
    for column in ("prompt", "turns"):
        shown[column] = [{**message, "content": _with_calls(message)} for message in row[column]]
    return shown


def _with_calls(message: Mapping[str, Any]) -> str:
    lines = [str(message["content"])] if message.get("content") else []
    for call in message.get("tool_calls") or []:
        function = call.get("function") or call
        lines.append(f"-> {function.get('name')}({json.dumps(function.get('arguments'), ensure_ascii=False)})")
    return "\n".join(lines)
