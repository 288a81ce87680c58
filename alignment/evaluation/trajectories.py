"""Run benchmarks with several turns: the model answers, its tool calls are executed, and it answers again.

A trajectory is the dialogue of one sample. All trajectories of a group take their turns together, so that the engine
generates many answers at a time. A trajectory ends at an answer without calls, at an answer that was cut off, or after
`TurnPlan.turns` answers. After each turn, the current program is recorded: the last submission or, without one, the
program in the answer. All recorded programs are graded by the hidden tests, which the environment does not have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from alignment.environments.rollout_environment import RESERVED, RolloutEnvironment
from alignment.evaluation.answer_forms import program_of_answer
from alignment.evaluation.problem import Benchmark, ChatPrompt, Problem, Row
from alignment.evaluation.scoring import Outcome
from alignment.evaluation.written_calls import Call, written_calls
from alignment.grading import Grader, RemoteGrader

GROUP = 64
"""Maximum number of trajectories that run at the same time, each with an open environment."""
BAD_CALL = 'error: a call is a JSON object {"name": <function-name>, "arguments": <args-json-object>}'
Answers = Callable[[Sequence[tuple[Problem, int]]], list[Row]]
"""Takes pairs (problem, index of the sample) and returns the stored completion (`text`, `finish`, `tokens`) of each."""


@dataclass
class Trajectory:
    """One running trajectory."""

    problem: Problem
    sample: int
    environment: RolloutEnvironment
    messages: list[dict[str, Any]]
    """The dialogue so far."""
    turns: list[Row] = field(default_factory=list)
    """One record for each answer: `completion`, `finish`, `tokens`, `calls`, `invalid_calls` and `program`."""
    ended: bool = False

    @classmethod
    def begin(cls, problem: Problem, sample: int, environment: RolloutEnvironment) -> Trajectory:
        """Reset an environment for a problem. Text that the environment returns is appended to the prompt."""
        assert isinstance(problem.prompt, ChatPrompt)
        messages = [dict(message) for message in problem.prompt.messages]
        observation = environment.reset(**problem.row)
        if observation is not None:
            messages[-1]["content"] += observation
        return cls(problem, sample, environment, messages)

    def next_problem(self) -> Problem:
        """Return the problem whose prompt is the dialogue so far."""
        assert isinstance(self.problem.prompt, ChatPrompt)
        return replace(self.problem, prompt=replace(self.problem.prompt, messages=tuple(self.messages)))

    def take(self, completion: Row) -> None:
        """Add an answer, and execute its calls."""
        text = completion["text"]
        calls = written_calls(text)
        invalid_before = self.environment.outcome.counts["wrong_calls"]
        unknown = 0
        self.messages.append({"role": "assistant", "content": text})
        for call in calls:
            result = self._result(call)
            unknown += result is None
            self.messages.append({"role": "tool", "content": BAD_CALL if result is None else result})
        outcome = self.environment.outcome
        self.turns.append(
            {
                "completion": text, "finish": completion["finish"], "tokens": completion["tokens"], "calls": len(calls),
                "invalid_calls": unknown + int(outcome.counts["wrong_calls"] - invalid_before),
                "program": self._program(text, outcome.submission),
            }
        )  # fmt: skip
        self.ended = not calls or completion["finish"] != "stop" or outcome.problem is not None

    def _result(self, call: Call | None) -> str | None:
        """Execute a call. Return None if the call has the wrong form or names no tool."""
        if call is None:
            return None
        name = call["name"]
        tool = None if name.startswith("_") or name in RESERVED else getattr(self.environment, name, None)
        return tool(**call["arguments"]) if callable(tool) and name in self.tool_names else None

    @property
    def tool_names(self) -> set[str]:
        """Names of the tools that the prompt lists."""
        assert isinstance(self.problem.prompt, ChatPrompt)
        return {tool["function"]["name"] for tool in self.problem.prompt.tools}

    def _program(self, text: str, submission: str | None) -> str:
        """Return what is graded after this turn: the last submission or, without one, the program in the answer."""
        if submission is not None:
            return submission
        if self.problem.row.get("kind") == "repository":
            return ""
        return program_of_answer(self.problem.row, text)

    def record(self, key: str) -> Row:
        """Return the record of an ended trajectory for the store."""
        outcome = self.environment.outcome
        return {
            "key": key, "messages": self.messages, "turns": self.turns, "problem": outcome.problem,
            "counts": outcome.counts,
        }  # fmt: skip


def play(
    benchmark: Benchmark, pairs: Sequence[tuple[Problem, int]], answers: Answers, grader: Grader | RemoteGrader
) -> list[Trajectory]:
    """Run one trajectory for each pair (problem, index of the sample), and return them in the same order.

    Args:
        benchmark: the benchmark, with a `plan`.
        pairs: the trajectories to run. They all have an open environment at the same time.
        answers: generates answers.
        grader: runs the programs of the environments.
    """
    plan = benchmark.plan
    assert plan is not None
    make = plan.environment(grader)
    trajectories = [Trajectory.begin(problem, sample, make()) for problem, sample in pairs]
    with ThreadPoolExecutor(min(16, max(1, len(trajectories))), thread_name_prefix="turns") as pool:
        for _ in range(plan.turns):
            active = [item for item in trajectories if not item.ended]
            if not active:
                break
            completions = answers([(item.next_problem(), item.sample) for item in active])
            for _ in pool.map(Trajectory.take, active, completions):
                pass
    return trajectories


def outcome_of_trajectory(
    problem: Problem, sample: int, record: Row, verdicts: Sequence[Outcome], turns: int
) -> Outcome:
    """Return the outcome of a trajectory.

    Scores: `pass` (the program after the last turn passes the hidden tests), `pass_turn_1` to `pass_turn_N` (the program
    after this turn, or after the last turn if the trajectory ended earlier), `invalid_calls` (share of the calls), `called`
    (whether a tool was called) and `cut` (whether an answer reached the token limit).

    Args:
        problem: the problem.
        sample: index of the sample.
        record: the record of the trajectory.
        verdicts: the outcome of the program after each turn.
        turns: number of turns of the benchmark.
    """
    last = verdicts[-1]
    outcome = replace(
        last,
        task_id=problem.cluster or problem.id,
        sample=sample + problem.part,
        completion=json.dumps(record["messages"], ensure_ascii=False),
        tokens=sum(turn["tokens"] for turn in record["turns"]),
        tries=len(record["turns"]),
        scores={},
    )
    if record["problem"] is not None:
        return replace(outcome, status="error", reason="environment", detail=record["problem"])
    if any(verdict.status == "error" for verdict in verdicts):
        first = next(verdict for verdict in verdicts if verdict.status == "error")
        return replace(outcome, status="error", reason=first.reason, detail=first.detail)
    passed = [float(verdict.status == "passed") for verdict in verdicts]
    passed += [passed[-1]] * (turns - len(passed))
    calls, invalid = (sum(turn[name] for turn in record["turns"]) for name in ("calls", "invalid_calls"))
    scores = {
        "pass": passed[-1],
        **{f"pass_turn_{number}": value for number, value in enumerate(passed, 1)},
        "called": float(calls > 0),
        "cut": float(any(turn["finish"] == "length" for turn in record["turns"])),
    }
    if calls:
        scores["invalid_calls"] = invalid / calls
    return replace(outcome, scores=scores)
