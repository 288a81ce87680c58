"""Make executable tasks from the tests of a repository in a compiled language, in the same steps as for Python."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.evaluation.answer_forms import ANSWER, TEXT_FORMS, AnswerForm
from alignment.grading import Limits, SandboxSettings
from alignment.grading.projects.project_language import ProjectFunction, ProjectLanguage
from alignment.logs import get_logger
from alignment.sandbox.slot import SandboxUnavailable
from alignment.sandbox.toolchains import NoToolchain
from data_builders.cleaning.held_out import HELD_OUT_COLUMN
from data_builders.parsing.code_blocks import code_block
from data_builders.repositories.sources import Repository
from data_builders.tasks.projects.project_source import NeededDeclarations, ProjectSource
from data_builders.tasks.projects.project_suite import PreparedProject, prepare_project
from data_builders.tasks.projects.syntax_mutants import definition
from data_builders.tasks.suite_settings import SuiteSettings
from data_builders.tasks.task_rows import redacted_lines, request_for, split_names, without_secrets
from data_builders.tasks.validation import (
    Candidate,
    TaskSettings,
    TaskValidator,
    account,
    make_candidate,
    tests_of,
)

logger = get_logger(__name__)

LIMITS = Limits(cpu_seconds=10, wall_seconds=10, memory_bytes=2 << 30)
SUFFIX_CHARACTERS = 200
REASONS = (
    ("failed", "tests fail in the repository as it is"),
    ("does_not_build", "tests are in packages that do not build"),
    ("hangs", "tests take longer than `tests.seconds_per_test`"),
    ("over_budget", "tests were not reached within `tests.budget_seconds`"),
    ("needs_network_or_database", "tests need the network or a database: the sandbox has neither"),
    ("writes_into_the_repository", "tests write into the repository, which is read-only in the sandbox"),
    ("left_out_by_build_constraints", "tests are left out by build constraints"),
)  # fmt: skip
"""Pairs (outcome of a test in `Survey.outcomes`, explanation)."""


@dataclass
class ProjectTasks:
    """The functions of a repository after validation. Valid functions become rows."""

    language: ProjectLanguage
    source: ProjectSource
    repository: Repository
    prepared: PreparedProject | None
    """The snapshot. None if the toolchain is not installed."""
    candidates: list[Candidate[ProjectFunction]]
    advice: list[str]
    hidden_share: float
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of valid functions that do not become rows, keyed by reason."""
    answer: AnswerForm = "function"
    redacted: int = 0
    """Number of rows in which a secret or personal data around the masked body was replaced."""

    def report(self) -> dict[str, Any]:
        """Return counts, outcomes of the tests and advice, for the build report."""
        outcomes = Counter(self.prepared.survey.outcomes.values()) if self.prepared is not None else Counter[str]()
        return {
            **account(self.candidates), "tests": sum(outcomes.values()), "outcomes": dict(sorted(outcomes.items())),
            "left_out": dict(+self.left_out), "redacted_contexts": self.redacted, "advice": redacted_lines(self.advice),
        }  # fmt: skip

    def rows(self, part: str, characters: int, *, fim: bool = False) -> list[dict[str, Any]]:
        """Make the task rows.

        Args:
            part: value of the column `split`: `train`, or `heldout` for a benchmark.
            characters: maximum number of characters of code that a prompt shows (`context_characters`).
            fim: not supported: the result is then empty.
        """
        if fim:
            return []
        rows = [self._row(item, part, characters) for item in self.candidates if item.tier]
        clean, redacted = without_secrets((row for row in rows if row is not None), self.left_out)
        self.redacted += redacted
        return clean

    def _form(self, function: ProjectFunction, visible: Sequence[str], characters: int) -> dict[str, Any] | None:
        """Return the columns with the prompt, or None if the function can't be written from a prompt."""
        assert self.prepared is not None
        needed = self.source.needed(self.prepared.sources, function)
        if needed.unresolved:
            self.left_out["unresolved_names"] += 1
            return None
        if needed.size > characters:
            self.left_out["context_too_long"] += 1
            return None
        comment = self.language.comment
        columns: dict[str, Any] = {"prompt": self._prompt(function, needed, visible, characters), ANSWER: self.answer}
        if self.answer in TEXT_FORMS:
            others = needed.other_files(comment)
            head = f"{others}\n\n{comment} {function.file}\n{needed.head}" if others else needed.head
            columns["prefix"] = f"{head}\n"
            columns["suffix"] = f"\n{needed.tail}\n" if self.answer == "fim" else ""
        return columns

    def _prompt(
        self, function: ProjectFunction, needed: NeededDeclarations, visible: Sequence[str], characters: int
    ) -> str:
        assert self.prepared is not None
        name, title = self.language.name, self.language.title
        parts = [request_for(function.name, function.file, self.repository.name, self.answer, title)]
        if needed.others:
            others = needed.other_files(self.language.comment)
            parts.append(f"Other files of the repository have:\n\n{code_block(others, name)}")
        shown = f"{needed.head}\n{self.source.mask_line}\n{needed.tail}"
        parts.append(f"`{function.file}`:\n\n{code_block(shown, name)}")
        tests = self.source.tests_code(self.prepared.sources, visible, characters // 3)
        if tests:
            parts.append(f"Among its tests are:\n\n{code_block(tests, name)}")
        return "\n\n".join(parts)

    def _split(self, item: Candidate[ProjectFunction]) -> tuple[list[str], list[str]]:
        """Return the visible and the hidden tests of a function. The forms without a chat show no tests."""
        assert self.prepared is not None
        if self.answer in TEXT_FORMS:
            return [], item.tests
        short = item.function.name.rpartition(".")[2]
        ranks: dict[str, Any] = {}
        for name in item.tests:
            code = self.source.tests_code(self.prepared.sources, [name], 1 << 20)
            ranks[name.partition("[")[0]] = (re.search(rf"\b{re.escape(short)}\b", code) is None, len(code), name)
        return split_names(f"{item.function.file}:{item.function.name}", item.tests, self.hidden_share, ranks)

    def _row(self, item: Candidate[ProjectFunction], part: str, characters: int) -> dict[str, Any] | None:
        assert self.prepared is not None
        function = item.function
        visible, hidden = self._split(item)
        columns = self._form(function, visible, characters)
        if columns is None:
            return None
        tests = tests_of(self.prepared.id, item, item.tier, visible, hidden)
        row = {
            "id": f"{self.repository.name}/{function.file}:{function.line}:{function.name}", **columns,
            "language": self.language.name, "kind": "project", "tests": json.dumps(tests),
            "entry_point": function.name.rpartition(".")[2],
            "source": f"{self.repository.name}@{self.repository.commit[:12]}", "split": part, "forgeable": item.tier == "B",
            "mutation_score": round(item.score, 3),
        }  # fmt: skip
        text = self.prepared.sources[function.file]
        body = text[function.start : function.end]
        if part == "heldout":
            return row | {HELD_OUT_COLUMN: body}
        return row | {"reference": definition(text, function), "reference_body": body.strip("\n")}


def project_tasks(
    language: ProjectLanguage,
    source: ProjectSource,
    repository: Repository,
    tests: SuiteSettings,
    settings: TaskSettings,
    sandbox: SandboxSettings,
    *,
    workers: int = 1,
    only: Callable[[Any, str], bool] | None = None,
) -> ProjectTasks:
    """Run the tests of a repository, and validate its functions as tasks.

    Args:
        language: how the repository is built and tested.
        source: how its functions are changed and shown.
        repository: the repository with functions and tests.
        tests: settings for running the tests.
        settings: conditions that a function must meet to become a task.
        sandbox: settings of the sandbox, of which only `allow_weaker` is used.
        workers: number of grading processes.
        only: filter that is called with a function and the text of the function's file. A function for which the filter
            returns False is left out.

    Returns:
        The tasks. If the toolchain is not installed, the result has no tasks, only advice to install it.

    Raises:
        ValueError: the repository is too large, or no sandbox is available.
    """
    try:
        prepared = prepare_project(
            language, repository, tests.paths, tests.environment, test_seconds=tests.seconds_per_test,
            budget_seconds=tests.budget_seconds, allow_weaker=sandbox.allow_weaker,
        )  # fmt: skip
    except NoToolchain as error:
        advice = [f"{language.title}: {error}"]
        return ProjectTasks(language, source, repository, None, [], advice, settings.hidden_share)
    candidates = [
        _candidate(prepared, item, settings) for item in prepared.functions
        if only is None or only(item, prepared.sources[item.file])
    ]  # fmt: skip
    waiting = sum(not item.dropped for item in candidates)
    logger.info(
        "%s: running the tests of %d functions with their original, masked and wrong bodies", repository.name, waiting
    )
    try:
        project_validator(prepared, source, settings.mutants).validate(candidates, settings, workers, sandbox)
    except SandboxUnavailable as error:
        raise ValueError(f"tasks need the sandbox: {error}") from None
    return ProjectTasks(
        language, source, repository, prepared, candidates, project_advice(prepared), settings.hidden_share, answer=settings.answer
    )  # fmt: skip


def project_validator(prepared: PreparedProject, source: ProjectSource, count: int) -> TaskValidator[ProjectFunction]:
    """Make the validator that runs the repository's tests on functions. `count` is the maximum number of mutants."""

    def original(function: ProjectFunction) -> str:
        return definition(prepared.sources[function.file], function)

    def masked(function: ProjectFunction) -> str:
        return definition(prepared.sources[function.file], function, source.masked_body)

    def wrong(function: ProjectFunction, count: int) -> list[str]:
        return source.mutants(prepared.sources[function.file], function, count)

    def trivial(function: ProjectFunction) -> list[str]:
        return source.trivial(prepared.sources[function.file], function)

    def variants(function: ProjectFunction) -> list[str]:
        return [masked(function), *wrong(function, count), *trivial(function)]

    language = prepared.snapshot.language
    return TaskValidator(prepared.id, "project", language.name, original, masked, wrong, trivial, LIMITS, variants)


def _candidate(
    prepared: PreparedProject, function: ProjectFunction, settings: TaskSettings
) -> Candidate[ProjectFunction]:
    first, last = function.rows

    def runs(lines: Sequence[tuple[str, int, int]]) -> bool:
        return any(file == function.file and first <= begin and end <= last for file, begin, end in lines)

    survey = prepared.survey
    covering = [name for name in prepared.snapshot.data["tests"] if runs(survey.calls.get(name, ()))]
    problem = "runs_at_import_only" if not covering and runs(survey.loading) else ""
    body = prepared.sources[function.file][function.start : function.end]
    same_unit = [name for name in covering if prepared.snapshot.data["tests"][name] == function.unit] or covering
    return make_candidate(function, same_unit, prepared.flat, body, settings, problem)


def project_advice(prepared: PreparedProject) -> list[str]:
    """Explain why a repository gives few or no tasks: one line per reason, usually with a remedy."""
    survey, language = prepared.survey, prepared.snapshot.language
    lines = [f"{problem}{language.hint(problem)}" for problem in survey.problems[:5]]
    if not prepared.snapshot.data["tests"]:
        lines.append(f"no tests were found: {language.test_help}")
    outcomes = Counter(survey.outcomes.values())
    return lines + [f"{outcomes[key]} {text}" for key, text in REASONS if outcomes[key]]
