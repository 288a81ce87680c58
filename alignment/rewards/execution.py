"""Rewards that run the tests of a task on the program in a completion.

All rewards that need verdicts share one `Verdicts` object, which grades every pair of task and program once per batch.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from alignment.evaluation.answer_forms import ends_by_syntax
from alignment.grading import Grader, RemoteGrader, Verdict
from alignment.grading.verdict import error
from alignment.logs import get_logger
from alignment.rewards.answers import SUBMISSION, program_of, row_at, text_of
from alignment.rewards.reward_protocol import Completion, Prompt, RewardFunction, Scores

logger = get_logger(__name__)

TASK_COLUMNS = ("kind", "tests", "entry_point", "language")
PROBLEM = "environment_problem"
"""Name of a column that `combination.combined` adds for rollouts with an environment: its error, or None."""
CUT_OFF = Verdict("failed", "cut_off", "the completion was cut off: it holds no token that ends an answer")
"""The verdict (result of grading) for completions that reached the length limit, unless they contain the end of the
body."""


class Verdicts:
    """Runs the tests on the completions of a batch once, and gives the results (verdicts) to all rewards that need
    them.
    """

    def __init__(self, grader: Grader | RemoteGrader, end_ids: Sequence[int] = ()) -> None:
        """Store the grader and the end tokens. No program is graded yet.

        Args:
            grader: runs the programs.
            end_ids: ids of the tokens that end an answer. A completion without an end token was cut off and fails,
                whatever its text is, except if its answer form lets the end be found by syntax (`ends_by_syntax`).
                Evaluation and preference pairs follow the same rule. If `end_ids` is empty, no completion counts as
                cut off.
        """
        self.grader = grader
        self.end_ids = frozenset(end_ids)
        self._batch: dict[tuple[str, ...], asyncio.Future[Verdict]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def grade(self, completions: Sequence[Completion], columns: Mapping[str, Sequence[Any]]) -> list[Verdict]:
        """Return one verdict per completion. Equal programs for equal tasks are graded only once."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._batch, self._loop = {}, loop
        keys: list[tuple[str, ...] | None] = []
        ids = columns.get("completion_ids") or [()] * len(completions)
        # Every turn with a call ends with an end token: only the last token says whether the answer was cut off.
        multi_turn = SUBMISSION in columns
        for index, completion in enumerate(completions):
            row = row_at(columns, index, len(completions))
            has_end_token = self.end_ids.intersection(ids[index][-1:] if multi_turn else ids[index])
            if self.end_ids and not has_end_token and not ends_by_syntax(row, text_of(completion)):
                keys.append(None)
                continue
            task = {name: columns[name][index] for name in TASK_COLUMNS if name in columns}
            program = program_of(completion, row)
            key = (*(str(task.get(name)) for name in TASK_COLUMNS), program)
            keys.append(key)
            if key not in self._batch:
                self._batch[key] = asyncio.ensure_future(self.grader.grade(task, program))
        pending = {key: self._batch[key] for key in keys if key is not None}
        done = dict(zip(pending, await asyncio.gather(*pending.values()), strict=True))
        verdicts = [CUT_OFF if key is None else done[key] for key in keys]
        problems = columns.get(PROBLEM) or [None] * len(completions)
        verdicts = [
            verdict if problem is None else error("environment", problem)
            for verdict, problem in zip(verdicts, problems, strict=True)
        ]
        # Cached for the other rewards of this batch. Verdicts with an error are not cached, so they are graded again.
        self._batch = {key: future for key, future in pending.items() if done[key].status != "error"}
        return verdicts


def tests_passed(verdicts: Verdicts) -> RewardFunction:
    """Return a reward function. A score is 1 if all tests passed, None if grading was not possible, otherwise 0."""
    return _from_verdicts("tests_passed", verdicts, lambda verdict, tests: float(verdict.status == "passed"))


def tests_fraction(verdicts: Verdicts) -> RewardFunction:
    """Return a reward function. A score is the share of passed tests (0 to 1), or None if grading was not possible."""
    return _from_verdicts("tests_fraction", verdicts, lambda verdict, tests: verdict.fraction)


def hidden_fraction(verdicts: Verdicts) -> RewardFunction:
    """Return a reward function. A score is the share of passed tests that have to be earned (0 to 1).

    For tasks of repositories (kinds `pytest` and `node`), these are the hidden tests without those that a trivial body
    passes. An answer that only repeats the values of the shown tests, or returns a constant, gets no credit. The score
    is 0 if there are no such tests, 1 if all tests pass, and None if grading was not possible. For other kinds of
    tasks, the score is the share of passed tests.
    """
    return _from_verdicts("hidden_fraction", verdicts, earned_share)


def earned_share(verdict: Verdict, tests: str | None) -> float:
    """Return the score of `hidden_fraction` for a verdict.

    Args:
        verdict: the verdict on the program.
        tests: the column `tests` of the task.
    """
    if verdict.status == "passed":
        return 1.0
    visible, hidden, easy = _tests_by_role(tests or "{}")
    if not hidden:
        return verdict.fraction
    names = [*visible, *hidden]
    if len(verdict.tests) != len(names):
        return 0.0
    earned = [
        result.passed for name, result in zip(names, verdict.tests, strict=True) if name in hidden and name not in easy
    ]
    return sum(earned) / len(earned) if earned else 0.0


@lru_cache(maxsize=4096)
def _tests_by_role(tests: str) -> tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]:
    """Return the names of the visible tests, of the hidden tests, and of the tests that a trivial body passes."""
    described = json.loads(tests)
    return (
        tuple(described.get("visible") or ()),
        tuple(described.get("hidden") or ()),
        frozenset(described.get("easy") or ()),
    )


def _from_verdicts(name: str, verdicts: Verdicts, score: Callable[[Verdict, str | None], float]) -> RewardFunction:
    async def reward(prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any) -> Scores:
        graded = await verdicts.grade(completions, columns)
        log_verdicts(prompts, graded, columns.get("log_metric"), columns.get("log_extra"))
        tests = columns.get("tests") or [None] * len(completions)
        return [
            None if verdict.status == "error" else score(verdict, described)
            for verdict, described in zip(graded, tests, strict=True)
        ]

    reward.__name__ = name
    return reward


def log_verdicts(
    prompts: Sequence[Prompt],
    verdicts: Sequence[Verdict],
    log_metric: Callable[[str, float], None] | None,
    log_extra: Callable[[str, list[Any]], None] | None,
) -> None:
    """Log the share of each status and reason. Warn about each prompt for which no completion could be graded.

    Args:
        prompts: one prompt for each verdict.
        log_metric: takes the name and value of a metric.
        log_extra: takes the name and values of a column for the table of completions.
    """
    counts = Counter(verdict.status for verdict in verdicts)
    reasons = Counter(verdict.reason for verdict in verdicts if verdict.status != "passed")
    if log_metric is not None and verdicts:
        for status in ("passed", "failed", "error"):
            log_metric(f"verdicts/{status}", counts[status] / len(verdicts))
        for reason, count in reasons.items():
            log_metric(f"verdicts/reason/{reason}", count / len(verdicts))
        log_metric("verdicts/cpu_seconds", sum(verdict.cpu_seconds for verdict in verdicts) / len(verdicts))
    if log_extra is not None:
        log_extra("verdict", [verdict.reason for verdict in verdicts])
        log_extra("verdict_detail", [verdict.detail[:200] for verdict in verdicts])
    groups: dict[str, list[Verdict]] = {}
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        groups.setdefault(str(prompt), []).append(verdict)
    ungraded = [group for group in groups.values() if all(verdict.status == "error" for verdict in group)]
    if ungraded:
        first = ungraded[0][0]
        logger.warning(
            "%d of %d prompts could not be graded and have no effect on this step: %s: %s",
            len(ungraded), len(groups), first.reason, first.detail,
        )  # fmt: skip
        if log_metric is not None:
            log_metric("verdicts/prompts_without_any", len(ungraded) / len(groups))
