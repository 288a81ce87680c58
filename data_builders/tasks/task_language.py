"""The interface through which the builders use the languages of executable tasks, and the list of the languages.

Everything that depends on a language is behind `TaskLanguage`. Compiled languages share one implementation
(`ProjectTaskLanguage`), which needs a `ProjectLanguage` (how to list tests, measure coverage, build, run and read results)
and a `ProjectSource` (how functions are changed and shown).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from alignment.grading.node_syntax import js_functions
from alignment.grading.projects.project_language import ProjectLanguage
from alignment.grading.projects.project_languages import PROJECT_LANGUAGES
from alignment.grading.protected_files import is_test_file
from data_builders.builder import BuildContext
from data_builders.parsing.python_functions import functions
from data_builders.repositories.sources import Repository
from data_builders.tasks.javascript.javascript_runners import SOURCE
from data_builders.tasks.javascript.javascript_suite import has_javascript
from data_builders.tasks.javascript.javascript_tasks import js_repository_tasks
from data_builders.tasks.projects.go_source import GoSource
from data_builders.tasks.projects.project_source import ProjectSource
from data_builders.tasks.projects.project_tasks import project_tasks
from data_builders.tasks.python.python_tasks import repository_tasks
from data_builders.tasks.suite_settings import SuiteSettings
from data_builders.tasks.validation import Maskable, TaskSettings

Filter = Callable[[Any, str], bool]
"""Function that takes a function of a repository and the text of its file, and decides whether to use the function."""


class LanguageTasks(Protocol):
    """The functions of a repository in one language after validation."""

    left_out: Counter[str]

    def report(self) -> dict[str, Any]:
        """Return counts, outcomes of the tests and advice, for the build report."""
        ...

    def rows(self, part: str, characters: int, *, fim: bool = False) -> list[dict[str, Any]]:
        """Make the task rows. With `fim`, make fill-in-the-middle rows that show the whole file, if the language has them."""
        ...


class TaskLanguage(Protocol):
    """A language, or a group of languages with one test runner."""

    @property
    def name(self) -> str: ...

    def has_tests(self, paths: Collection[str]) -> bool:
        """Whether a repository with these files may have tests in the language."""
        ...

    def functions(self, path: str, text: str) -> Sequence[Maskable]:
        """Return the functions of a file. The sequence is empty if the file is in another language."""
        ...

    def tasks(
        self,
        repository: Repository,
        tests: SuiteSettings,
        settings: TaskSettings,
        context: BuildContext,
        only: Filter | None,
    ) -> LanguageTasks:
        """Run the tests of a repository, and validate its functions as tasks."""
        ...


@dataclass(frozen=True)
class PythonTaskLanguage:
    """Python with pytest."""

    name: str = "python"

    def has_tests(self, paths: Collection[str]) -> bool:
        return any(path.endswith(".py") and is_test_file(path) for path in paths)

    def functions(self, path: str, text: str) -> Sequence[Maskable]:
        return functions(path, text) if path.endswith(".py") else []

    def tasks(
        self,
        repository: Repository,
        tests: SuiteSettings,
        settings: TaskSettings,
        context: BuildContext,
        only: Filter | None,
    ) -> LanguageTasks:
        return repository_tasks(repository, tests, settings, context.sandbox, workers=context.workers, only=only)


@dataclass(frozen=True)
class JavascriptTaskLanguage:
    """JavaScript and TypeScript with the test runners of node."""

    name: str = "javascript"

    def has_tests(self, paths: Collection[str]) -> bool:
        return has_javascript(set(paths))

    def functions(self, path: str, text: str) -> Sequence[Maskable]:
        return js_functions(path, text) if path.endswith(SOURCE) else []

    def tasks(
        self,
        repository: Repository,
        tests: SuiteSettings,
        settings: TaskSettings,
        context: BuildContext,
        only: Filter | None,
    ) -> LanguageTasks:
        return js_repository_tasks(
            repository, settings, context.sandbox, workers=context.workers, only=only, paths=tests.paths,
            environment=tests.environment, budget_seconds=tests.budget_seconds,
        )  # fmt: skip


@dataclass(frozen=True)
class ProjectTaskLanguage:
    """A compiled language."""

    language: ProjectLanguage
    source: ProjectSource

    @property
    def name(self) -> str:
        return self.language.name

    def has_tests(self, paths: Collection[str]) -> bool:
        return self.language.manifest(list(paths))

    def functions(self, path: str, text: str) -> Sequence[Maskable]:
        fits = path.endswith(self.language.suffix) and not self.language.is_test(path)
        return self.language.functions(path, text) if fits else []

    def tasks(
        self,
        repository: Repository,
        tests: SuiteSettings,
        settings: TaskSettings,
        context: BuildContext,
        only: Filter | None,
    ) -> LanguageTasks:
        return project_tasks(
            self.language, self.source, repository, tests, settings, context.sandbox, workers=context.workers, only=only
        )  # fmt: skip


PYTHON = PythonTaskLanguage()
TASK_LANGUAGES: tuple[TaskLanguage, ...] = (
    PYTHON,
    JavascriptTaskLanguage(),
    ProjectTaskLanguage(PROJECT_LANGUAGES["go"], GoSource()),
)
