"""Make executable tasks from the pytest suite of a repository."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignment.evaluation.answer_forms import ANSWER, TEXT_FORMS, AnswerForm
from alignment.grading import Limits, SandboxSettings
from alignment.logs import get_logger
from alignment.sandbox.slot import SandboxUnavailable
from data_builders.cleaning.held_out import HELD_OUT_COLUMN
from data_builders.parsing.python_functions import MASK, Function, definition
from data_builders.repositories.sources import Repository
from data_builders.tasks.advice import advice
from data_builders.tasks.body_copies import flat
from data_builders.tasks.python.needed_code import RepositoryCode
from data_builders.tasks.python.python_coverage import CoverageMap, coverage_map
from data_builders.tasks.python.python_mutants import indented, mutants, trivial_bodies
from data_builders.tasks.python.python_suite import PreparedSuite, prepare_suite
from data_builders.tasks.python.shown_tests import can_divide, code_of_tests, rank_of_tests
from data_builders.tasks.python.task_context import code_after, code_before, prompt, unresolved_names, window
from data_builders.tasks.suite_settings import SuiteSettings
from data_builders.tasks.task_rows import split_names, without_secrets
from data_builders.tasks.validation import (
    Candidate,
    TaskSettings,
    TaskValidator,
    account,
    make_candidate,
    tests_of,
)

logger = get_logger(__name__)

FIM_BEFORE, FIM_AFTER = 4000, 2000
"""Approximate number of characters before and after the body in a fill-in-the-middle task."""
LIMITS = Limits(cpu_seconds=5, wall_seconds=5)


@dataclass
class PythonTasks:
    """The Python functions of a repository after validation. Valid functions become rows."""

    repository: Repository
    prepared: PreparedSuite
    coverage: CoverageMap
    candidates: list[Candidate[Function]]
    hidden_share: float
    left_out: Counter[str]
    """Number of valid functions that do not become rows, keyed by reason."""
    answer: AnswerForm = "function"
    """Answer form of the rows."""
    redacted: int = 0
    """Number of rows in which a secret or personal data around the masked body was replaced."""

    @cached_property
    def code(self) -> RepositoryCode:
        """The repository's files, from which prompts take the code that a function needs."""
        return RepositoryCode(self.prepared.texts, self.prepared.snapshot.data["name"])

    def report(self) -> dict[str, Any]:
        """Return counts, outcomes of the tests and advice, for the build report."""
        return {
            **account(self.candidates), "tests": len(self.prepared.tests), "outcomes": self.coverage.account(),
            "map_seconds": self.coverage.seconds, "left_out": dict(+self.left_out),
            "redacted_contexts": self.redacted, "advice": advice(self.prepared, self.coverage),
        }  # fmt: skip

    def rows(self, part: str, characters: int, *, fim: bool = False) -> list[dict[str, Any]]:
        """Make the task rows.

        Args:
            part: value of the column `split`: `train`, or `heldout` for a benchmark.
            characters: maximum number of characters of code that a prompt shows (`context_characters`).
            fim: make fill-in-the-middle rows (`prefix`, `suffix` and `middle`) instead of chat prompts.
        """
        rows = [self._row(item, part, characters, fim) for item in self.candidates if item.tier]
        clean, redacted = without_secrets((row for row in rows if row is not None), self.left_out)
        self.redacted += redacted
        return clean

    def _split(self, item: Candidate[Function]) -> tuple[list[str], list[str]]:
        """Return the visible and the hidden tests of a function. The forms without a chat show no tests."""
        if self.answer in TEXT_FORMS:
            return [], item.tests
        texts, name = self.prepared.tests_texts, item.function.qualname.rpartition(".")[2]
        ranks = rank_of_tests(texts, name, item.tests)
        divide = can_divide(texts, self.prepared.tests, item.tests[0].partition("[")[0])
        return split_names(f"{item.function.file}:{item.function.name}", item.tests, self.hidden_share, ranks, divide)

    def _form(self, function: Function, visible: Sequence[str], characters: int) -> dict[str, Any] | None:
        """Return the columns with the prompt.

        Return None if the function can't be written from a prompt. The reason is counted in `left_out`.
        """
        prepared, needed = self.prepared, self.code.needed(function, characters)
        if unresolved_names(prepared.texts[function.file], function, needed):
            self.left_out["unresolved_names"] += 1
        elif needed.size > characters:
            self.left_out["context_too_long"] += 1
        else:
            tests = code_of_tests(prepared.tests_texts, prepared.tests, visible, characters // 3)
            columns = {"prompt": prompt(prepared, function, needed, tests, self.answer), ANSWER: self.answer}
            if self.answer in TEXT_FORMS:
                columns["prefix"] = code_before(function, needed)
                columns["suffix"] = code_after(prepared.texts[function.file], function) if self.answer == "fim" else ""
            return columns
        return None

    def _row(self, item: Candidate[Function], part: str, characters: int, fim: bool) -> dict[str, Any] | None:
        function, text = item.function, self.prepared.texts[item.function.file]
        visible, hidden = self._split(item)
        columns: dict[str, Any] | None = {}
        if not fim:
            columns = self._form(function, visible, characters)
        if columns is None:
            return None
        tests = tests_of(self.prepared.id, item, item.tier, visible, hidden)
        place = f"{self.repository.name}/{function.file}:{function.line}:{function.qualname}"
        row: dict[str, Any] = {
            "id": place, "prompt": "", "language": "python", "kind": "pytest", "tests": "", "split": part,
            "entry_point": function.qualname.rpartition(".")[2], "source": f"{self.repository.name}@{self.repository.commit[:12]}",
            "forgeable": item.tier == "B", "mutation_score": round(item.score, 3), **columns,
        }  # fmt: skip
        body = text[function.start : function.end]
        if part == "heldout":
            row[HELD_OUT_COLUMN] = body
        else:
            row |= {"reference": definition(text, function), "reference_body": body}
        if fim:
            opening, closing = window(text, function, FIM_BEFORE, FIM_AFTER)
            tests["cut"] = [opening, function.start, function.end, closing]
            row |= {"prefix": text[opening : function.start], "middle": body, "suffix": text[function.end : closing],
                    "id": f"{place}:fim"}  # fmt: skip
        return row | {"tests": json.dumps(tests)}


def repository_tasks(
    repository: Repository,
    tests: SuiteSettings,
    settings: TaskSettings,
    sandbox: SandboxSettings,
    *,
    workers: int = 1,
    only: Callable[[Function, str], bool] | None = None,
) -> PythonTasks:
    """Run the suite of a repository, and validate its Python functions as tasks.

    Args:
        repository: the repository with functions and tests.
        tests: settings for running the tests.
        settings: conditions that a function must meet to become a task.
        sandbox: settings of the sandbox, of which only `allow_weaker` is used.
        workers: number of grading processes.
        only: filter that is called with a function and the text of the function's file. A function for which the filter
            returns False is left out.

    Raises:
        ValueError: the interpreter or the paths of the tests are wrong, or no sandbox is available.
    """
    prepared = prepare_suite(
        repository,
        interpreter=repository.interpreter or (tests.interpreter.absolute() if tests.interpreter is not None else None),
        tests=tests.paths,
        environment=tests.environment,
        prepare=tests.prepare,
        allow_weaker=sandbox.allow_weaker,
    )
    coverage = coverage_map(
        prepared,
        budget_seconds=tests.budget_seconds,
        test_seconds=tests.seconds_per_test,
        allow_weaker=sandbox.allow_weaker,
    )
    texts = prepared.texts
    flat_texts = {path: flat(text) for path, text in texts.items()}
    candidates = [
        make_candidate(
            item, coverage.tests_calling(item), flat_texts, texts[item.file][item.start : item.end], settings, item.problem
        )
        for item in prepared.functions if only is None or only(item, texts[item.file])
    ]  # fmt: skip
    waiting = sum(not item.dropped for item in candidates)
    logger.info(
        "%s: running the tests of %d functions with their original, masked and wrong bodies", repository.name, waiting
    )
    try:
        task_validator(prepared).validate(candidates, settings, workers, sandbox)
    except SandboxUnavailable as error:
        raise ValueError(f"tasks need the sandbox: {error}") from None
    return PythonTasks(repository, prepared, coverage, candidates, settings.hidden_share, Counter(), settings.answer)


def task_validator(prepared: PreparedSuite) -> TaskValidator[Function]:
    """Make the validator that runs a pytest suite on Python functions."""

    def original(function: Function) -> str:
        """Return the body as written in the file. A body on the `def` line is moved to a new line."""
        text = prepared.texts[function.file][function.start : function.end]
        return text if text[:1] in (" ", "\t", "\n", "#") else indented(text)

    return TaskValidator(
        prepared.id, "pytest", "python", original, lambda _: indented(MASK), mutants, trivial_bodies, LIMITS
    )
