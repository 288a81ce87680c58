"""Make executable tasks from the tests of a JavaScript or TypeScript repository, in the same steps as for Python."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.evaluation.answer_forms import ANSWER, TEXT_FORMS, AnswerForm
from alignment.grading import Limits, SandboxSettings
from alignment.grading.node_syntax import TYPESCRIPT
from alignment.sandbox.slot import SandboxUnavailable
from alignment.sandbox.toolchains import NoToolchain
from data_builders.cleaning.held_out import HELD_OUT_COLUMN
from data_builders.repositories.sources import Repository
from data_builders.tasks.javascript.javascript_context import (
    js_code_before,
    js_code_of_tests,
    js_needed_code,
    js_prompt,
    js_rank_of_tests,
)
from data_builders.tasks.javascript.javascript_coverage import JsCoverage, js_advice, js_coverage
from data_builders.tasks.javascript.javascript_mutants import JsFunction, definition, js_mutants, js_trivial
from data_builders.tasks.javascript.javascript_suite import JsPreparedSuite, prepare_js_suite
from data_builders.tasks.task_rows import redacted_lines, split_names, without_secrets
from data_builders.tasks.validation import (
    Candidate,
    TaskSettings,
    TaskValidator,
    account,
    make_candidate,
    tests_of,
)

LIMITS = Limits(cpu_seconds=10, wall_seconds=10)
MASK = ' throw new Error("not implemented"); '
"""Replacement of the body of a masked function."""


@dataclass
class JsTasks:
    """The JavaScript functions of a repository after validation. Valid functions become rows."""

    repository: Repository
    prepared: JsPreparedSuite | None
    """The snapshot. None if node is not installed."""
    candidates: list[Candidate[JsFunction]]
    coverage: JsCoverage
    advice: list[str]
    hidden_share: float
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of valid functions that do not become rows, keyed by reason."""
    answer: AnswerForm = "function"
    """Answer form of the rows."""
    redacted: int = 0
    """Number of rows in which a secret or personal data around the masked body was replaced."""

    def report(self) -> dict[str, Any]:
        """Return counts, outcomes of the tests and advice, for the build report."""
        return {
            **account(self.candidates), "tests": sum(self.coverage.outcomes.values()), "outcomes": dict(sorted(self.coverage.outcomes.items())),
            "map_seconds": self.coverage.seconds, "left_out": dict(+self.left_out),
            "redacted_contexts": self.redacted, "advice": redacted_lines(self.advice),
        }  # fmt: skip

    def rows(self, part: str, characters: int, *, fim: bool = False) -> list[dict[str, Any]]:
        """Make the task rows. With `fim`, the list is empty: there are no fill-in-the-middle rows with the whole file.

        Args:
            part: value of the column `split`: `train`, or `heldout` for a benchmark.
            characters: maximum number of characters of code that a prompt shows (`context_characters`).
            fim: whether fill-in-the-middle rows are asked for.
        """
        if fim:
            return []
        rows = [self._row(item, part, characters) for item in self.candidates if item.tier]
        clean, redacted = without_secrets((row for row in rows if row is not None), self.left_out)
        self.redacted += redacted
        return clean

    def _form(self, function: JsFunction, visible: Sequence[str], characters: int) -> dict[str, Any] | None:
        """Return the columns with the prompt.

        Return None if the function can't be written from a prompt. The reason is counted in `left_out`.
        """
        assert self.prepared is not None
        needed = js_needed_code(self.prepared.source | self.prepared.texts, function)
        if needed.unresolved:
            self.left_out["unresolved_names"] += 1
        elif needed.size > characters:
            self.left_out["context_too_long"] += 1
        else:
            tests = js_code_of_tests(self.prepared.snapshot.tests, visible, characters // 3)
            columns = {
                "prompt": js_prompt(self.repository.name, function, needed, tests, self.answer),
                ANSWER: self.answer,
            }
            if self.answer in TEXT_FORMS:
                columns["prefix"] = js_code_before(function, needed)
                columns["suffix"] = f"\n{needed.tail}\n" if self.answer == "fim" else ""
            return columns
        return None

    def _split(self, item: Candidate[JsFunction]) -> tuple[list[str], list[str]]:
        """Return the visible and the hidden tests of a function. The forms without a chat show no tests."""
        assert self.prepared is not None
        if self.answer in TEXT_FORMS:
            return [], item.tests
        function = item.function
        ranks = js_rank_of_tests(self.prepared.snapshot.tests, function.name.rpartition(".")[2], item.tests)
        return split_names(f"{function.file}:{function.name}", item.tests, self.hidden_share, ranks)

    def _row(self, item: Candidate[JsFunction], part: str, characters: int) -> dict[str, Any] | None:
        assert self.prepared is not None
        function = item.function
        visible, hidden = self._split(item)
        columns = self._form(function, visible, characters)
        if columns is None:
            return None
        tests = tests_of(self.prepared.id, item, item.tier, visible, hidden)
        row = {
            "id": f"{self.repository.name}/{function.file}:{function.line}:{function.name}", **columns,
            "language": "typescript" if function.file.endswith(TYPESCRIPT) else "javascript", "kind": "node",
            "tests": json.dumps(tests), "entry_point": function.name.rpartition(".")[2],
            "source": f"{self.repository.name}@{self.repository.commit[:12]}", "split": part, "forgeable": item.tier == "B",
            "mutation_score": round(item.score, 3),
        }  # fmt: skip
        text = self.prepared.texts[function.file]
        body = text[function.start : function.end]
        if part == "heldout":
            return row | {HELD_OUT_COLUMN: body}
        return row | {"reference": definition(text, function), "reference_body": body.strip("\n")}


def js_repository_tasks(
    repository: Repository,
    settings: TaskSettings,
    sandbox: SandboxSettings,
    *,
    workers: int = 1,
    only: Callable[[JsFunction, str], bool] | None = None,
    paths: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    budget_seconds: float = 600.0,
) -> JsTasks:
    """Run the tests of a repository, and validate its JavaScript and TypeScript functions as tasks.

    Args:
        repository: the repository with functions and tests.
        settings: conditions that a function must meet to become a task.
        sandbox: settings of the sandbox, of which only `allow_weaker` is used.
        workers: number of grading processes.
        only: filter that is called with a function and the text of the function's file. A function for which the filter
            returns False is left out.
        paths: files and folders of the tests. If empty, all files that look like tests are used.
        environment: environment variables that the tests need.
        budget_seconds: maximum wall time for running the tests to find out which functions they call.

    Returns:
        The tasks. If node is not installed, the result has no tasks, only advice to install it.

    Raises:
        ValueError: the repository is too large, or no sandbox is available.
    """
    empty = JsCoverage({}, Counter(), [], set(), 0.0)
    try:
        prepared = prepare_js_suite(repository, paths, environment, allow_weaker=sandbox.allow_weaker)
    except NoToolchain as error:
        return JsTasks(repository, None, [], empty, [f"JavaScript: {error}"], settings.hidden_share)
    try:
        coverage = js_coverage(prepared, budget_seconds, allow_weaker=sandbox.allow_weaker)
        candidates = [
            _candidate(prepared, coverage, number, item, settings) for number, item in enumerate(prepared.functions)
            if only is None or only(item, prepared.texts[item.file])
        ]  # fmt: skip
        task_validator(prepared).validate(candidates, settings, workers, sandbox)
    except SandboxUnavailable as error:
        raise ValueError(f"tasks need the sandbox: {error}") from None
    return JsTasks(
        repository,
        prepared,
        candidates,
        coverage,
        js_advice(prepared, coverage),
        settings.hidden_share,
        answer=settings.answer,
    )


def task_validator(prepared: JsPreparedSuite) -> TaskValidator[JsFunction]:
    """Make the validator that runs the repository's tests on JavaScript and TypeScript functions."""
    texts = prepared.texts

    def answer(function: JsFunction, body: str | None = None) -> str:
        return definition(texts[function.file], function, body)

    def wrong(function: JsFunction, max_mutants: int) -> list[str]:
        return js_mutants(texts[function.file], function, max_mutants)

    def trivial(function: JsFunction) -> list[str]:
        return js_trivial(texts[function.file], function)

    return TaskValidator(
        prepared.id, "node", "javascript", answer, lambda function: answer(function, MASK), wrong, trivial, LIMITS
    )


def _candidate(
    prepared: JsPreparedSuite, coverage: JsCoverage, number: int, function: JsFunction, settings: TaskSettings
) -> Candidate[JsFunction]:
    covering = coverage.covering.get(number, [])
    problem = "runs_at_import_only" if not covering and number in coverage.loaded else ""
    body = prepared.texts[function.file][function.start : function.end]
    return make_candidate(function, covering, prepared.flat, body, settings, problem)
