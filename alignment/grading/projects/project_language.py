"""The interface of a compiled language: how to list tests, measure coverage, build, run, and read results.

A class of `alignment.grading.projects` implements `ProjectLanguage` for one language. Grading
(`alignment.grading.projects.project`) and the builder `tasks` use only this interface.

The tests of a repository are grouped in units. A unit is what the language compiles to one test program: a package in
Go, a test target in Rust. The identifier of a test is `file::name`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from alignment.sandbox.limits import Limits

ROOT = "/repository"
"""Path of the repository in the sandbox."""
CACHE = "/build-cache"
"""Path in the sandbox of the folder that the language's build tool filled when the snapshot was made. It is read-only."""
MODULES = "/build-modules"
"""Path in the sandbox of the packages that are installed on this machine for all repositories. It is read-only."""
PROGRAM = "align-tests"
"""Name of the compiled test program in the sandbox's /tmp."""


@dataclass(frozen=True)
class ProjectFunction:
    """A function or method with a body in braces. Offsets are counted in characters."""

    file: str
    name: str
    """Name of the function, after the name of its type if it is a method: `Basket.Total`."""
    unit: str
    """The unit that compiles the function."""
    line: int
    first: int
    """Offset at which the definition begins, without the comment above."""
    start: int
    """Offset of the beginning of the body, after the opening brace."""
    end: int
    """Offset of the end of the body, before the closing brace."""
    rows: tuple[int, int]
    """Numbers of the lines with the opening and the closing brace of the body, from 1."""
    tier: str
    """`A` if the language confines every answer that the rules of the language accept, see `ProjectLanguage.refusals`.
    `B` if an answer may use what the original body uses to reach the process of the tests."""
    header: str = ""
    """Source text of the definition, up to the body."""
    doc: str = ""
    """The comment above the function."""
    parameters: tuple[str, ...] = ()
    result: str = ""
    """Source text of the result type. "" if the function returns nothing."""

    @property
    def plain(self) -> bool:
        """Whether the tasks of this function are of tier A."""
        return self.tier == "A"

    def target(self) -> dict[str, Any]:
        """Return the fields by which grading finds this function in its file. They become `RepositoryTests.target`."""
        fields = ("file", "name", "unit", "first", "start", "end")
        return {key: value for key, value in asdict(self).items() if key in fields}


@dataclass(frozen=True)
class FunctionAnswer:
    """The function in a model's answer."""

    body: str
    """The code between the braces."""
    header: str | None = None
    """The definition up to the opening brace. None if the answer has only a body."""
    helpers: tuple[str, ...] = ()
    """Other declarations of the answer."""
    imports: tuple[str, ...] = ()
    """Paths of the imports of the answer."""


@dataclass(frozen=True)
class SandboxStep:
    """A shell script to run in the sandbox, for example to compile."""

    script: str
    """Script for /bin/sh, which starts in /tmp."""
    environment: Mapping[str, str] = field(default_factory=dict)
    collect: tuple[str, ...] = ()
    """Patterns of the files in /tmp that the script makes."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files to write to /tmp before the script runs."""
    limits: Limits = field(default_factory=Limits)


@dataclass
class Survey:
    """What the builder learns from building a repository and running each test once."""

    outcomes: dict[str, str] = field(default_factory=dict)
    """Outcome of each test: `passed`, or the reason why the test cannot be used."""
    calls: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)
    """Lines of code that each passed test runs: tuples (file, first line, last line)."""
    loading: list[tuple[str, int, int]] = field(default_factory=list)
    """Lines of code that run while the test program starts, before any test."""
    problems: list[str] = field(default_factory=list)
    """Messages of units that do not build."""


class ProjectLanguage(Protocol):
    """How the repositories of one language are read, built and tested."""

    name: str
    """Name of the language in `alignment.sandbox.toolchains`."""
    title: str
    """Name of the language in prose."""
    suffix: str
    """Suffix of the source files."""
    comment: str
    """What begins a comment that ends with its line."""
    test_help: str
    """Which files and functions are tests, for the advice to users whose repository has none."""

    cache_folders: tuple[str, ...]
    """Folders that the build cache must have, also if the first build leaves them empty: the build tool cannot make them
    later, because the cache is then read-only."""

    def hint(self, problem: str) -> str:
        """Return a remedy for a failed build, or ""."""
        ...

    def reads(self, path: str) -> bool:
        """Whether the other methods need the text of a file: source files and files of the build tool."""
        ...

    def modules(self) -> list[str]:
        """Return the folder of installed packages on this machine, if there is one. It is mounted at `MODULES`."""
        ...

    def runtime(self) -> list[str]:
        """Return the folders of this machine that a running test program needs besides the system folders."""
        ...

    def manifest(self, paths: Sequence[str]) -> bool:
        """Whether a repository with these files is built by the language's build tool."""
        ...

    def is_test(self, path: str) -> bool:
        """Whether a file contains only tests, so that answers do not see it and its functions become no tasks."""
        ...

    def functions(self, file: str, text: str) -> list[ProjectFunction]:
        """Return the functions of a file, in source order."""
        ...

    def tests(self, sources: Mapping[str, str]) -> dict[str, str]:
        """List the tests of a repository.

        Args:
            sources: the texts of the language's files, keyed by path.

        Returns:
            The unit of each test, keyed by the test's identifier, in the suite's order.
        """
        ...

    def instrumented(self, sources: Mapping[str, str], token: str) -> dict[str, str]:
        """Return changed and added files with which each test reports its begin and its result.

        The test program reads two lines from standard input before it runs tests: a random text (the nonce) and the
        number of the variant (see `combined`). It writes lines to standard output that consist of the nonce and a JSON
        object with `begin` (name of a test), or with `end` (name) and `outcome`.

        Args:
            sources: the texts of the language's files, keyed by path.
            token: random word that is part of every name that is added.
        """
        ...

    def facts(self, sources: Mapping[str, str]) -> dict[str, Any]:
        """Return JSON values about the repository's names, keyed by unit, which `refusals` and `replaced` need."""
        ...

    def survey(self, units: Sequence[str], test_seconds: float, budget_seconds: float) -> SandboxStep:
        """Return the step that builds every unit, fills the build cache, and runs each test with coverage."""
        ...

    def read_survey(self, files: Mapping[str, bytes], tests: Mapping[str, str], units: Sequence[str]) -> Survey:
        """Read the files that the step of `survey` made, except those of the build cache."""
        ...

    def read_answer(self, program: str, target: Mapping[str, Any]) -> FunctionAnswer | None:
        """Find the function in a model's answer. Return None if the answer has neither the function nor a body."""
        ...

    def replaced(
        self, text: str, target: Mapping[str, Any], answer: FunctionAnswer, facts: Mapping[str, Any]
    ) -> str | None:
        """Return the text of a file in which the answer replaces the function, or None if the result does not parse."""
        ...

    def combined(
        self,
        text: str,
        target: Mapping[str, Any],
        answers: Sequence[FunctionAnswer],
        facts: Mapping[str, Any],
        token: str,
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return a file in which the function has several bodies, and the lines of each body.

        The number of the variant selects the body: 1 for the first answer. With any other number, the original body
        runs. The token is that of `instrumented`.
        """
        ...

    def error_lines(self, messages: str, file: str) -> set[int]:
        """Return the lines of a file that the messages of the compiler name."""
        ...

    def refusals(self, text: str, new: str, target: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
        """Return what an answer uses although it could change or read how tests judge.

        Args:
            text: the text of the original file.
            new: the text of the file with the answer.
            target: the function.
            facts: the facts about the function's unit.
        """
        ...

    def build(self, unit: str) -> SandboxStep:
        """Return the step that compiles the test program of a unit to the file `PROGRAM`."""
        ...

    def run(self, unit: str, names: Sequence[str]) -> SandboxStep:
        """Return the step that runs tests with the compiled program in /tmp. `names` are names without the file."""
        ...
