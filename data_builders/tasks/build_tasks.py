"""Executable tasks from repositories' own tests: map, mask, validate, split, ask."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from alignment.grading import Limits, SandboxSettings
from alignment.sandbox.slot import SandboxUnavailable
from alignment.settings import Count, Settings
from data_builders.builder import BuildContext
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.cleaning.held_out import HELD_OUT_COLUMN
from data_builders.parsing.python_functions import MASK, Function, definition
from data_builders.repositories.sources import Repository, Sources, cloned, list_files
from data_builders.shared_settings import Decontaminated
from data_builders.storage.dataset import sorted_counts, write_card
from data_builders.tasks.advice import advice
from data_builders.tasks.javascript.javascript_mutants import JsFunction
from data_builders.tasks.javascript.javascript_suite import has_javascript
from data_builders.tasks.javascript.javascript_tasks import JsTasks, js_repository_tasks
from data_builders.tasks.python.python_coverage import CoverageMap, coverage_map
from data_builders.tasks.python.python_mutants import indented, mutants, trivial_bodies
from data_builders.tasks.python.python_suite import MAX_FILE, PreparedSuite, is_test_file, prepare_suite
from data_builders.tasks.python.task_context import prompt, window
from data_builders.tasks.validation import (
    Candidate,
    TaskSettings,
    TaskValidator,
    account,
    candidate,
    flat,
    split_names,
    tests_of,
    without_secrets,
)

FIM_BEFORE, FIM_AFTER = 4000, 2000
LIMITS = Limits(cpu_seconds=5, wall_seconds=5)


class SuiteSettings(Settings):
    """How the tests of a repository are run: in the sandbox, without a network."""

    interpreter: str | None = None
    """Python interpreter with the packages that the tests need, for example `/srv/venv/bin/python`; by default the one
    that runs the builder. JavaScript tests use the `node_modules` of the checkout."""
    paths: list[str] = Field(default_factory=list)
    """Files and folders of the tests. By default pytest's own configuration decides, and for JavaScript every file that
    looks like a test; so it does for JavaScript if none of these paths holds JavaScript tests."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables that the tests need."""
    budget_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Time limit for the run of the whole suite; tests that it does not reach are counted and left out."""


class TaskBuilderSettings(Decontaminated):
    """Settings of the builder `tasks`."""

    sources: Sources
    """Repositories with pytest suites, or with tests in JavaScript or TypeScript."""
    tests: SuiteSettings = SuiteSettings()
    """How their tests are run."""
    settings: TaskSettings = TaskSettings()
    """What a function needs to become a task."""
    context_characters: Count = 6000
    """Characters of the file around the masked body in a prompt, about."""


def build_tasks(settings: TaskBuilderSettings, context: BuildContext) -> dict[str, Any]:
    """Executable tasks from repositories' own tests: the body of one function is masked, and its tests grade the answer.

    Test frameworks: pytest; for JavaScript and TypeScript node:test, mocha, jest, vitest, tape, tap and uvu.

    Raises:
        ValueError: a source is wrong, or no function became a task; the message has the reasons.
    """
    benchmarks = settings.decontaminator()
    rows: list[dict[str, Any]] = []
    report: dict[str, Any] = {}
    names: list[str] = []
    with cloned(settings.sources, context.clone_folder) as repositories:
        for repository in repositories:
            names.append(f"{repository.name} {repository.commit or 'folder'}")
            for name, found in tasks_by_language(repository, settings.tests, settings.settings, context):
                task_rows = found.rows("train", settings.context_characters)
                clean = uncontaminated(task_rows, benchmarks, found.left_out)
                made = cap_forgeable(clean, settings.settings.forgeable_share)
                found.left_out["above_forgeable_share"] += len(clean) - len(made)
                rows += made
                report[name] = found.report() | {"rows": len(made)}
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
    """The settings as a dataset card shows them: of the environment only the names, of the interpreter only whether."""
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
    """Tasks of each language that the repository has tests in; of Python also if it has none at all."""
    paths = {file.path for file in list_files(repository, MAX_FILE)}
    javascript = has_javascript(paths)
    workers, sandbox = context.workers, context.sandbox
    if not javascript or any(path.endswith(".py") and is_test_file(path) for path in paths):
        yield repository.name, repository_tasks(repository, tests, settings, sandbox, workers=workers, only=only)
    if javascript:
        found = js_repository_tasks(
            repository, settings, sandbox, workers=workers, only=only, paths=tests.paths, environment=tests.environment,
            budget_seconds=tests.budget_seconds,
        )  # fmt: skip
        yield f"{repository.name} (javascript)", found


def summary(rows: Sequence[dict[str, Any]], report: Mapping[str, Any]) -> dict[str, Any]:
    removed = Counter[str]()
    for found in report.values():
        removed.update({**found["dropped"], **found["left_out"]})
    return {
        "tasks": len(rows), "forgeable": sum(row["forgeable"] for row in rows),
        "languages": sorted_counts(Counter(row["language"] for row in rows)), "removed": sorted_counts(removed), "repositories": report,
    }  # fmt: skip


def uncontaminated(
    rows: Sequence[dict[str, Any]], benchmarks: Decontaminator | None, left_out: Counter[str]
) -> list[dict[str, Any]]:
    """The rows that hold no text of a benchmark; the others are counted."""
    clean = [row for row in rows if benchmarks is None or benchmarks.check_row(row) is None]
    left_out["contaminated"] += len(rows) - len(clean)
    return clean


def failure_reasons(report: Mapping[str, Any]) -> str:
    """One line per repository: what can't be done, and why."""
    lines = []
    for name, found in report.items():
        said = "; ".join(found["advice"]) or ", ".join(
            f"{reason} {count}" for reason, count in (found["dropped"] | found.get("left_out", {})).items()
        )
        lines.append(f"{name}: {said}")
    return " | ".join(lines)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


@dataclass
class PythonTasks:
    """A repository's functions after validation."""

    repository: Repository
    prepared: PreparedSuite
    coverage: CoverageMap
    candidates: list[Candidate[Function]]
    hidden_share: float
    left_out: Counter[str]
    redacted: int = 0
    """Rows whose context held a secret or a personal datum, which was replaced."""

    def report(self) -> dict[str, Any]:
        return {
            **account(self.candidates), "tests": len(self.prepared.tests), "outcomes": self.coverage.account(),
            "map_seconds": self.coverage.seconds, "left_out": dict(+self.left_out),
            "redacted_contexts": self.redacted, "advice": advice(self.prepared, self.coverage),
        }  # fmt: skip

    def rows(self, part: str, characters: int, *, fim: bool = False) -> list[dict[str, Any]]:
        """Task rows, asked in chat or (fim) with `prefix`, `suffix` and `middle`."""
        made = (self._row(item, part, characters, fim) for item in self.candidates if item.tier)
        kept, replaced = without_secrets(made, self.left_out)
        self.redacted += replaced
        return kept

    def _row(self, item: Candidate[Function], part: str, characters: int, fim: bool) -> dict[str, Any]:
        function = item.function
        visible, hidden = split_names(f"{function.file}:{function.name}", item.tests, self.hidden_share)
        tests = tests_of(self.prepared.id, item, item.tier, visible, hidden)
        where = f"{self.repository.name}/{function.file}:{function.line}:{function.qualname}"
        row: dict[str, Any] = {
            "id": where, "prompt": "", "language": "python", "kind": "pytest", "tests": "", "split": part,
            "entry_point": function.qualname.rpartition(".")[2], "source": f"{self.repository.name}@{self.repository.commit[:12]}",
            "forgeable": item.tier == "B", "mutation_score": round(item.score, 3),
        }  # fmt: skip
        text = self.prepared.texts[function.file]
        if part == "heldout":
            row[HELD_OUT_COLUMN] = text[function.start : function.end]
        else:
            row["reference"] = definition(text, function)
        if fim:
            opening, closing = window(text, function, FIM_BEFORE, FIM_AFTER)
            tests["cut"] = [opening, function.start, function.end, closing]
            row |= {"prefix": text[opening : function.start], "middle": text[function.start : function.end],
                    "suffix": text[function.end : closing], "id": f"{where}:fim"}  # fmt: skip
        else:
            row["prompt"] = prompt(self.prepared, function, visible, characters)
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
    """Map, mask and validate one repository. `only(function, text)` says which functions are of interest."""
    prepared = prepare_suite(
        repository,
        interpreter=repository.interpreter or tests.interpreter,
        tests=tests.paths,
        environment=tests.environment,
        allow_weaker=sandbox.allow_weaker,
    )
    coverage = coverage_map(prepared, budget_seconds=tests.budget_seconds, allow_weaker=sandbox.allow_weaker)
    texts = prepared.texts
    flat_texts = {path: flat(text) for path, text in texts.items()}
    candidates = [
        candidate(item, coverage.of(item), flat_texts, texts[item.file][item.start : item.end], settings, item.problem)
        for item in prepared.functions if only is None or only(item, texts[item.file])
    ]  # fmt: skip
    try:
        task_validator(prepared).validate(candidates, settings, workers, sandbox)
    except SandboxUnavailable as error:
        raise ValueError(f"tasks need the sandbox: {error}") from None
    return PythonTasks(repository, prepared, coverage, candidates, settings.hidden_share, Counter())


def task_validator(prepared: PreparedSuite) -> TaskValidator[Function]:
    """How functions of Python stand before pytest's tests."""

    def original(function: Function) -> str:
        """The body as the file has it; one on the line of its ``def`` moves to a line of its own."""
        text = prepared.texts[function.file][function.start : function.end]
        return text if text[:1] in (" ", "\t", "\n", "#") else indented(text)

    def wrong(function: Function, most: int) -> list[str]:
        return [*mutants(function, most), *trivial_bodies(function)]

    return TaskValidator(prepared.id, "pytest", "python", original, lambda _: indented(MASK), wrong, LIMITS)


def cap_forgeable(rows: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """The rows with at most this share of forgeable ones: those with the best tests stay."""
    safe = [row for row in rows if not row["forgeable"]]
    forgeable = [row for row in rows if row["forgeable"]]
    room = len(forgeable) if share >= 1 else int(share * len(safe) / (1 - share))
    kept = {row["id"] for row in sorted(forgeable, key=lambda row: (-row["mutation_score"], row["id"]))[:room]}
    return [row for row in rows if not row["forgeable"] or row["id"] in kept]
