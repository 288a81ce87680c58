"""Execution rewards for GRPO: tasks and completions in, one weighted reward each out; None where nothing can be said.

One asynchronous TRL reward function holds all parts of a recipe's `rewards:`, so that an infrastructure error makes the
whole reward None (advantage 0) instead of leaving the parts that need no execution to decide alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignment.evaluation.extraction import extract_code
from alignment.grading import Grader, Verdict

logger = logging.getLogger(__name__)

# What a task row holds that a grader reads; TRL hands every column to the reward as a list.
COLUMNS = ("id", "language", "kind", "tests", "entry_point", "source")
_FENCE = "```"

Part = Callable[[str, str, Verdict, int], float]


def _tests_passed(answer: str, program: str, verdict: Verdict, tokens: int) -> float:
    """1 when every test passed, else 0: the reward that can't be had in part."""
    return float(verdict.status == "passed")


def _share_of_tests(answer: str, program: str, verdict: Verdict, tokens: int) -> float:
    """The share of tests passed, from 0 to 1: more signal on hard tasks, and more to exploit."""
    return float(verdict.fraction)


def _parses(answer: str, program: str, verdict: Verdict, tokens: int) -> float:
    """1 when there is a whole program that the language accepts."""
    return float(bool(program.strip()) and verdict.reason not in ("syntax", "compile", "cut_off"))


def _format(answer: str, program: str, verdict: Verdict, tokens: int) -> float:
    """1 for an answer with exactly one closed code block."""
    return float(answer.count(_FENCE) == 2)


def _length_penalty(answer: str, program: str, verdict: Verdict, tokens: int) -> float:
    """From 0 for an empty answer towards -1 for an endless one: -tokens / (tokens + 1024)."""
    return -tokens / (tokens + 1024)


PARTS: Mapping[str, Part] = {
    "tests_passed": _tests_passed,
    "share_of_tests": _share_of_tests,
    "parses": _parses,
    "format": _format,
    "length_penalty": _length_penalty,
}


class ExecutionReward:
    """A TRL reward function: weighted parts, computed from one execution of each completion.

    weights: part -> weight, in the recipe's order; names are keys of `PARTS`.
    grader: where the programs run.
    end_ids: token ids that end an answer; a completion without one was cut off and counts as failed.
    """

    __name__ = "execution"

    def __init__(self, weights: Mapping[str, float], grader: Grader, end_ids: Sequence[int]):
        unknown = [name for name in weights if name not in PARTS]
        if unknown:
            raise ValueError(f"there is no reward {unknown[0]!r}: {', '.join(PARTS)}")
        if not weights:
            raise ValueError("give at least one reward")
        self.weights = dict(weights)
        self.grader = grader
        self.end_ids = frozenset(end_ids)

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Rewards in order; None where the sandbox, not the program, failed."""
        tasks = [{key: columns[key][index] for key in COLUMNS if key in columns} for index in range(len(completions))]
        answers = [_text(completion) for completion in completions]
        programs = [
            extract_code(answer, language=task["language"], entry_point=task.get("entry_point"))
            for answer, task in zip(answers, tasks, strict=True)
        ]
        verdicts = await asyncio.gather(
            *(
                self._verdict(task, program, ids)
                for task, program, ids in zip(tasks, programs, completion_ids, strict=True)
            )
        )
        rewards: list[float | None] = []
        parts: dict[str, list[float]] = {name: [] for name in self.weights}
        for answer, program, verdict, ids in zip(answers, programs, verdicts, completion_ids, strict=True):
            if verdict.status == "error":
                rewards.append(None)
                continue
            scores = {name: PARTS[name](answer, program, verdict, len(ids)) for name in self.weights}
            for name, score in scores.items():
                parts[name].append(score)
            rewards.append(sum(self.weights[name] * score for name, score in scores.items()))
        self._report(tasks, verdicts, parts, log_metric, log_extra)
        return rewards

    async def _verdict(self, task: dict[str, Any], program: str, ids: Sequence[int]) -> Verdict:
        if not self.end_ids.intersection(ids):
            return Verdict(status="failed", reason="cut_off", detail="the answer did not end")
        return await self.grader.grade(task, program)

    def _report(
        self,
        tasks: Sequence[dict[str, Any]],
        verdicts: Sequence[Verdict],
        parts: Mapping[str, Sequence[float]],
        log_metric: Callable[[str, float], None] | None,
        log_extra: Callable[[str, list[Any]], None] | None,
    ) -> None:
        kinds = Counter(verdict.status if verdict.status != "failed" else verdict.reason for verdict in verdicts)
        if log_metric is not None:
            for name, scores in parts.items():
                if scores:
                    log_metric(f"rewards/{name}", sum(scores) / len(scores))
            for kind, count in sorted(kinds.items()):
                log_metric(f"verdicts/{kind}", count / len(verdicts))
            # always there, so that a curve of zeros proves that nothing failed
            log_metric("verdicts/error_share", kinds["error"] / len(verdicts))
        if log_extra is not None:
            log_extra("verdict", [verdict.status for verdict in verdicts])
            log_extra("reason", [verdict.reason for verdict in verdicts])
        groups: dict[str, list[Verdict]] = {}
        for task, verdict in zip(tasks, verdicts, strict=True):
            groups.setdefault(str(task.get("id")), []).append(verdict)
        for identity, group in groups.items():
            if all(verdict.status == "error" for verdict in group):
                logger.error(
                    "task %s: all %d completions met an infrastructure error (%s: %s); the group teaches nothing",
                    identity, len(group), group[0].reason, group[0].detail[:200],
                )  # fmt: skip


def _text(completion: Any) -> str:
    """The answer's text: TRL hands over a string, or the messages of a conversation."""
    if isinstance(completion, str):
        return completion
    return str(completion[-1]["content"]) if completion else ""
