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
from pathlib import Path
from typing import Any

from alignment.logs import get_logger
from alignment.settings import Positive
from data_builders.builder import BuildContext
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.repositories.sources import Repository, Sources, cloned, list_files
from data_builders.shared_settings import Decontaminated
from data_builders.storage.dataset import sorted_counts, write_card
from data_builders.tasks.python.python_suite import MAX_FILE
from data_builders.tasks.suite_settings import SuiteSettings, suite_card
from data_builders.tasks.task_language import PYTHON, TASK_LANGUAGES, LanguageTasks
from data_builders.tasks.task_tiers import ABOVE_SHARE, cap_forgeable, tier_lines
from data_builders.tasks.validation import Maskable, TaskSettings

logger = get_logger(__name__)


class TaskBuilderSettings(Decontaminated):
    """Settings of the builder `tasks`."""

    sources: Sources
    """Repositories with tests: pytest suites, tests in JavaScript or TypeScript, or Go modules."""
    tests: SuiteSettings = SuiteSettings()
    """Settings for running the tests."""
    settings: TaskSettings = TaskSettings()
    """Conditions that a function must meet to become a task."""
    context_characters: Positive = 6000
    """Maximum number of characters of code that a prompt shows: the imports, constants, signatures and classes that the
    masked body needs. A function that needs more is left out. The shown tests have at most a third of this number."""


def build_tasks(settings: TaskBuilderSettings, context: BuildContext) -> dict[str, Any]:
    """Build executable tasks: the body of a function is masked, and the repository's tests grade the answer.

    Test frameworks: pytest; for JavaScript and TypeScript node:test, mocha, jest, vitest, tape, tap and uvu; for Go
    `go test`.

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
                tasks.left_out[ABOVE_SHARE] += len(clean) - len(final)
                rows += final
                report[name] = tasks.report() | {"rows": len(final)}
    for line in tier_lines(report):
        logger.info("%s", line)
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


def tasks_by_language(
    repository: Repository,
    tests: SuiteSettings,
    settings: TaskSettings,
    context: BuildContext,
    only: Callable[[Maskable, str], bool] | None = None,
) -> Iterator[tuple[str, LanguageTasks]]:
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
    present = [language for language in TASK_LANGUAGES if language.has_tests(paths)] or [PYTHON]
    for language in present:
        name = repository.name if language is PYTHON else f"{repository.name} ({language.name})"
        yield name, language.tasks(repository, tests, settings, context, only)


def summary(rows: Sequence[dict[str, Any]], report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of a finished build: rows, rows by language, and omitted functions by reason."""
    removed = Counter[str]()
    for language_report in report.values():
        removed.update({**language_report["dropped"], **language_report["left_out"]})
    return {
        "tasks": len(rows), "forgeable": sum(row["forgeable"] for row in rows),
        "languages": sorted_counts(Counter(row["language"] for row in rows)), "removed": sorted_counts(removed),
        "tiers": tier_lines(report), "repositories": report,
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
