"""Builder `tasks`: make executable tasks from the tests of repositories.

These steps are done for each repository:

1. Run the test suite once to find out which tests call which functions.
2. Mask the bodies of the called functions.
3. Keep functions whose tests pass with the original body and fail with masked and mutated bodies.
4. Split the tests of each function into visible and hidden tests.
5. Write the prompts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from alignment.evaluation.answer_forms import ANSWER, TEXT_FORMS, AnswerForm
from alignment.grading import Limits, SandboxSettings
from alignment.grading.protected_files import is_test_file
from alignment.logs import get_logger
from alignment.sandbox.slot import SandboxUnavailable
from alignment.settings import Positive, Settings
from data_builders.builder import BuildContext
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.cleaning.held_out import HELD_OUT_COLUMN
from data_builders.parsing.python_functions import MASK, Function, definition
from data_builders.repositories.locations import Interpreter
from data_builders.repositories.sources import Repository, Sources, cloned, list_files
from data_builders.shared_settings import Decontaminated
from data_builders.storage.dataset import sorted_counts, write_card
from data_builders.tasks.advice import advice
from data_builders.tasks.javascript.javascript_mutants import JsFunction
from data_builders.tasks.javascript.javascript_suite import has_javascript
from data_builders.tasks.javascript.javascript_tasks import JsTasks, js_repository_tasks
from data_builders.tasks.python.needed_code import RepositoryCode
from data_builders.tasks.python.python_coverage import TEST_SECONDS, CoverageMap, coverage_map
from data_builders.tasks.python.python_mutants import indented, mutants, trivial_bodies
from data_builders.tasks.python.python_suite import MAX_FILE, PreparedSuite, prepare_suite
from data_builders.tasks.python.shown_tests import can_divide, code_of_tests, rank_of_tests
from data_builders.tasks.python.task_context import code_after, code_before, prompt, unresolved_names, window
from data_builders.tasks.task_rows import split_names, without_secrets
from data_builders.tasks.validation import (
    Candidate,
    TaskSettings,
    TaskValidator,
    account,
    flat,
    make_candidate,
    tests_of,
)

logger = get_logger(__name__)

FIM_BEFORE, FIM_AFTER = 4000, 2000
"""Approximate number of characters before and after the body in a fill-in-the-middle task."""
LIMITS = Limits(cpu_seconds=5, wall_seconds=5)


class SuiteSettings(Settings):
    """Settings for running the tests of a repository in the sandbox, without a network."""

    interpreter: Interpreter | None = None
    """Python interpreter with the packages that the tests need, for example `/srv/venv/bin/python`. A relative path starts
    at the folder of the recipe. By default the interpreter that runs the builder. JavaScript tests use the
    `node_modules` of the checkout."""
    paths: list[str] = Field(default_factory=list)
    """Files and folders that contain the tests. By default, the paths in pytest's configuration are used, and all
    JavaScript files that look like tests are used. The default for JavaScript also applies if the given paths contain
    no JavaScript tests."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables that the tests need."""
    prepare: list[str] = Field(default_factory=list)
    """Shell commands that make files which the commit lacks, such as extension modules, for example
    `python setup.py build_ext --inplace`. They run in the sandbox in a copy of each Python repository, without a network and
    without git. Version files and files of the installed package are added without a command."""
    seconds_per_test: Annotated[float, Field(gt=0)] = TEST_SECONDS
    """Time limit of one test while the suite runs. A longer test is interrupted and left out."""
    budget_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Time limit for running the whole suite. Tests that have not run by then are counted and left out."""


class TaskBuilderSettings(Decontaminated):
    """Settings of the builder `tasks`."""

    sources: Sources
    """Repositories with pytest suites, or with tests in JavaScript or TypeScript."""
    tests: SuiteSettings = SuiteSettings()
    """Settings for running the tests."""
    settings: TaskSettings = TaskSettings()
    """Conditions that a function must meet to become a task."""
    context_characters: Positive = 6000
    """Maximum number of characters of code that a prompt shows: the imports, constants, signatures and classes that the
    masked body needs. A function that needs more is left out. The shown tests have at most a third of this number."""


def build_tasks(settings: TaskBuilderSettings, context: BuildContext) -> dict[str, Any]:
    """Build executable tasks: the body of a function is masked, and the repository's tests grade the answer.

    Test frameworks: pytest; for JavaScript and TypeScript node:test, mocha, jest, vitest, tape, tap and uvu.

    Raises:
        ValueError: a source is wrong, or no function became a task. The message lists the reasons.
    """
    benchmarks = settings.decontaminator()
    rows: list[dict[str, Any]] = []
    report: dict[str, Any] = {}
    names: list[str] = []
    with cloned(settings.sources, context) as repositories:
        for repository in repositories:
            names.append(f"{repository.name} {repository.commit or 'folder'}")
            for name, tasks in tasks_by_language(repository, settings.tests, settings.settings, context):
                task_rows = tasks.rows("train", settings.context_characters)
                clean = uncontaminated(task_rows, benchmarks, tasks.left_out)
                final = cap_forgeable(clean, settings.settings.forgeable_share)
                tasks.left_out["above_forgeable_share"] += len(clean) - len(final)
                rows += final
                report[name] = tasks.report() | {"rows": len(final)}
    write_rows(context.out / "tasks.jsonl", rows)
    (context.out / "account.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    if not rows:
        raise ValueError(f"no function became a task: {failure_reasons(report)}")
    used = {
        "tests": suite_card(settings.tests), "settings": settings.settings.model_dump(),
        "context_characters": settings.context_characters, "decontaminate": settings.benchmark_names(), "seed": context.seed,
    }  # fmt: skip
    write_card(context.out, "Executable tasks", {"tasks.jsonl": len(rows)}, names, used, summary(rows, report))
    return summary(rows, report)


def suite_card(tests: SuiteSettings) -> dict[str, Any]:
    """Return the settings as the dataset card shows them.

    The values of environment variables and the path of the interpreter are left out.
    """
    return tests.model_dump() | {
        "environment": sorted(tests.environment),
        "interpreter": tests.interpreter is not None,
    }


def tasks_by_language(
    repository: Repository,
    tests: SuiteSettings,
    settings: TaskSettings,
    context: BuildContext,
    only: Callable[[Function | JsFunction, str], bool] | None = None,
) -> Iterator[tuple[str, PythonTasks | JsTasks]]:
    """Yield (name for the report, tasks) for each language in which the repository has tests.

    For a repository without tests, an entry for Python is yielded, so that the report can explain why it has no tasks.

    Args:
        repository: the repository with functions and tests.
        tests: settings for running the tests.
        settings: conditions that a function must meet to become a task.
        context: supplies the number of processes and the settings of the sandbox.
        only: filter that is called with a function and the text of the function's file. A function for which the filter
            returns False is left out.
    """
    paths = {file.path for file in list_files(repository, MAX_FILE)}
    javascript = has_javascript(paths)
    workers, sandbox = context.workers, context.sandbox
    if not javascript or any(path.endswith(".py") and is_test_file(path) for path in paths):
        yield repository.name, repository_tasks(repository, tests, settings, sandbox, workers=workers, only=only)
    if javascript:
        js_tasks = js_repository_tasks(
            repository, settings, sandbox, workers=workers, only=only, paths=tests.paths, environment=tests.environment,
            budget_seconds=tests.budget_seconds,
        )  # fmt: skip
        yield f"{repository.name} (javascript)", js_tasks


def summary(rows: Sequence[dict[str, Any]], report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of a finished build: rows, rows by language, and omitted functions by reason."""
    removed = Counter[str]()
    for language_report in report.values():
        removed.update({**language_report["dropped"], **language_report["left_out"]})
    return {
        "tasks": len(rows), "forgeable": sum(row["forgeable"] for row in rows),
        "languages": sorted_counts(Counter(row["language"] for row in rows)), "removed": sorted_counts(removed), "repositories": report,
    }  # fmt: skip


def uncontaminated(
    rows: Sequence[dict[str, Any]], benchmarks: Decontaminator | None, left_out: Counter[str]
) -> list[dict[str, Any]]:
    """Return the rows that contain no text of a benchmark.

    The number of rows that contain a benchmark text is added to `left_out`.
    """
    clean = [row for row in rows if benchmarks is None or benchmarks.check_row(row) is None]
    left_out["contaminated"] += len(rows) - len(clean)
    return clean


def failure_reasons(report: Mapping[str, Any]) -> str:
    """Explain why each repository gave no task: by advice or, without advice, by the number of functions per reason."""
    lines = []
    for name, language_report in report.items():
        counts = language_report["dropped"] | language_report.get("left_out", {})
        reasons = "; ".join(language_report["advice"]) or ", ".join(
            f"{reason} {count}" for reason, count in counts.items()
        )
        lines.append(f"{name}: {reasons}")
    return " | ".join(lines)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


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


def cap_forgeable(rows: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """Drop forgeable rows (whose tests run in the graded program's process) until they are at most `share` of all rows.

    The forgeable rows with the best mutation scores are kept.
    """
    safe = [row for row in rows if not row["forgeable"]]
    forgeable = [row for row in rows if row["forgeable"]]
    limit = len(forgeable) if share >= 1 else int(share * len(safe) / (1 - share))
    best = {row["id"] for row in sorted(forgeable, key=lambda row: (-row["mutation_score"], row["id"]))[:limit]}
    return [row for row in rows if not row["forgeable"] or row["id"] in best]
