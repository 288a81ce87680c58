"""Benchmark with several turns: the model calls the tools of an environment, reads the results, and tries again.

Rows are tasks. The environment of a task is `tests`: the tool `submit` runs the visible tests of the task. For tasks of kind
`repository` it is `repository`. The hidden tests decide, as in GRPO with the same environment. `repair@5` measures five turns.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from alignment.environments.environment_registry import REPOSITORY, VISIBLE_TESTS, build_environment
from alignment.environments.rollout_environment import tool_schemas
from alignment.environments.visible_tests import split_tests
from alignment.evaluation.answer_forms import TEXT_FORMS, form_of
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks.user_rows import check_row
from alignment.evaluation.problem import Benchmark, ChatPrompt, Problem, Row, TurnPlan
from alignment.grading import Grader
from alignment.grading.task import check_gradable
from alignment.models.formats import escape_special_text
from alignment.rows.reading import read_rows

DEFAULT_TURNS = 3
VISIBLE_SHARE = 0.5
"""Share of a task's tests that are visible, if the row does not name visible tests."""


@dataclass(frozen=True)
class RepairEnvironment:
    """Settings of the environment, see `EnvironmentSettings`. The values are the defaults of GRPO stages."""

    name: str
    path: None = None
    seconds: float = 60.0
    output_characters: int = 2000


def repair(request: BenchmarkRequest) -> Benchmark:
    """Load tasks that are solved in several turns.

    Raises:
        ValueError: the number of turns is no positive integer, or the tests of a row can't be split into visible and
            hidden tests.
    """
    assert request.data is not None
    turns = turns_of(request.benchmark)
    rows = list(enumerate(read_rows(request.data), 1))
    settings = RepairEnvironment(_environment_name([row for _, row in rows]))
    tools = tuple(tool_schemas(build_environment(settings, Grader())))
    return Benchmark(
        name="repair",
        problems=[_problem(row, f"{request.data}, row {number}", tools) for number, row in rows],
        mode="chat",
        max_new_tokens=1024,
        plan=TurnPlan(functools.partial(build_environment, settings), turns, repr(settings)),
    )


def _environment_name(rows: Sequence[Row]) -> str:
    """Return the environment of the rows: `repository` for tasks of kind `repository`, otherwise `tests`.

    Raises ValueError if the rows need different environments.
    """
    names = {REPOSITORY if row.get("kind") == "repository" else VISIBLE_TESTS for row in rows}
    if len(names) > 1:
        raise ValueError(
            "tasks of kind `repository` have other tools than other tasks: put them into a file of their own"
        )
    return next(iter(names), VISIBLE_TESTS)


def turns_of(benchmark: str) -> int:
    """Return the number of turns in the name of the benchmark: 5 for `repair@5`, `DEFAULT_TURNS` for `repair`."""
    _, mark, number = benchmark.partition("@")
    if not mark:
        return DEFAULT_TURNS
    if not number.isdecimal() or int(number) < 1:
        raise ValueError(f"{benchmark!r}: the number of turns must be a positive integer, as in 'repair@3'")
    return int(number)


def _problem(row: Row, where: str, tools: tuple[Row, ...]) -> Problem:
    check_row(row, "tasks", where)
    if form_of(row, where) in TEXT_FORMS:
        raise ValueError(
            f"{where}: `answer: {row['answer']}` has no chat, which tools need: build tasks with `answer: body`"
        )
    try:
        visible, hidden = split_tests(row | {"tests": _as_text(row["tests"])}, VISIBLE_SHARE)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None
    check_gradable(row | {"tests": visible}, where)
    begin = {name: value for name, value in row.items() if name != "tests"} | {"visible_tests": visible}
    return Problem(
        id=str(row["id"]),
        prompt=ChatPrompt(({"role": "user", "content": escape_special_text(row["prompt"])},), tools=tools),
        task=row | {"tests": hidden},
        row=begin,
    )


def _as_text(tests: object) -> str:
    return tests if isinstance(tests, str) else json.dumps(tests)
