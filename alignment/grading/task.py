"""Tasks: rows of a dataset that describe how programs are graded, and the format of the tests in these rows.

A task is a row with the columns `kind`, `tests`, `language` and `entry_point`. Other columns are ignored. `tests` is a
JSON object, or a text that contains the JSON object, so that the column can have the same type for all kinds of tasks.
The format of the object depends on `kind`:

| kind | languages | tests | grades |
|---|---|---|---|
| `calls` | Python | `CallTests` | the values that a function returns |
| `asserts` | Python | `AssertTests` | assertions that call a function |
| `stdio` | all | `StdioTests` | what a program prints for an input |
| `program` | all | `ProgramTests` | a program that contains its own tests |
| `pytest` | Python | `RepositoryTests` | a function's body in a repository, by the repository's tests |
| `node` | JavaScript, TypeScript | `RepositoryTests` | as `pytest`, with the tests of a JavaScript repository |
| `repository` | Python | `PatchTests` | a patch of a repository, by the repository's tests |
| `project` | Go | `RepositoryTests` | as `pytest`, with the tests of a repository in a compiled language |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Required, TypedDict, cast, get_args

from alignment.grading.projects.project_languages import PROJECT_LANGUAGES
from alignment.sandbox.toolchains import language_of

TaskRow = Mapping[str, object]
"""An unchecked row of a dataset. `read_task` checks the row."""
TaskKind = Literal["calls", "asserts", "stdio", "program", "pytest", "node", "project", "repository"]
REPOSITORY_KINDS = ("pytest", "node", "project")
"""Kinds of tasks in which the body of one function is written, and the tests are those of its repository
(`RepositoryTests`)."""
PYTHON_ONLY = ("calls", "asserts", "pytest", "repository")
NODE_LANGUAGES = ("javascript", "typescript")


class CallCase(TypedDict, total=False):
    """One call of a function."""

    args: Required[Any]
    """Positional arguments: a list, encoded as `CallTests.encoding` says."""
    kwargs: Any
    """Keyword arguments by name, encoded as `CallTests.encoding` says."""
    expected: Required[Any]
    """The value that the function must return."""


class CallTests(TypedDict, total=False):
    """Tests of kind `calls`.

    The arguments of all calls are sent to the program's process at once. Expected values are never sent to it.
    """

    cases: Required[list[CallCase]]
    encoding: Literal["json", "tagged"]
    """`json` (default): `args`, `kwargs` and `expected` are plain JSON. `tagged`: they are in wire form
    (`alignment.sandbox.inside.wire`), which distinguishes tuples, sets and bytes from lists and text."""
    compare: Literal["exact", "equal", "set", "not_none", "any", "root"]
    """`exact` (default): values and types must be equal. `equal`: like Python's `==`. `set`: order and repetition of
    items are ignored. `not_none`: anything but None counts as True. `any`: every returned value passes. `root`: the
    value is a root of the polynomial whose coefficients are the first argument."""
    tolerance: float | None
    """Absolute difference allowed between two numbers if at least one of them is a float."""
    floats: float | None
    """Tolerance that is used if `tolerance` is not set and the expected value is a float or a list of floats."""
    call_seconds: float | None
    """CPU seconds that a call may use. The limit keeps an endless loop in one call from using up the program's time. A
    hostile program can disable the limit."""


class AssertTests(TypedDict, total=False):
    """Tests of kind `asserts`. They run in a different process than the program."""

    code: Required[str]
    """Code that calls the entry point, or that defines `check(candidate)`, `test_*()` functions or `unittest` classes,
    which the tester then calls. A name that this code does not define is looked up in the program."""
    setup: str
    """Code of helper functions that the tests call. Helpers that affect the verdict must be defined here: if the tests
    took such a helper from the candidate program, the program could replace it and pass wrongly."""


class StdioCase(TypedDict, total=False):
    """One run of a program."""

    stdin: str
    stdout: Required[str]


class StdioTests(TypedDict, total=False):
    """Tests of kind `stdio`: for each case, the program must exit with code 0 and print the expected output.

    The expected output never enters the program's process.
    """

    cases: Required[list[StdioCase]]
    tolerance: float | None
    """Absolute difference that is allowed between numbers in the output and the expected output."""
    flags: list[str]
    """Additional flags of the compiler."""


class ProgramTests(TypedDict, total=False):
    """Tests of kind `program`: the program contains its own tests.

    This kind is weaker than the other kinds: a program that reads its own text or environment can forge the verdict.
    Use it for benchmarks of this form, not for rewards.
    """

    stdin: str
    marker: bool
    """Append code that prints a random marker after the tests (`stdio.with_marker`), so that a program that ends early
    with exit code 0 fails."""
    judge: Literal["exit", "silent", "assertions"]
    """Rule by which a run passes. `exit` (default): the exit code is 0, and in C# no `Debug.Assert` failed (mono
    continues after a failed assertion). The two other rules reproduce published verdicts. `silent`: as `exit`, and the
    program prints nothing. `assertions` (C#): standard error does not contain `Fail`; the exit code is ignored."""
    flags: list[str]
    """Additional flags of the compiler."""


class RepositoryTests(TypedDict, total=False):
    """Tests of kinds `pytest`, `node` and `project`: a function of a repository is graded by the repository's tests."""

    suite: Required[str]
    """Identifier of the repository's snapshot."""
    tier: Literal["A", "B"]
    """A: tests and program run in two processes or, for kind `project`, the language confines the program. B: tests and
    program run in one process, so a program can forge the verdict."""
    target: Required[dict[str, Any]]
    """Fields that locate the function: the result of the method `target` of a function."""
    visible: Required[list[str]]
    """Identifiers of the tests that the prompt shows."""
    hidden: Required[list[str]]
    """Identifiers of the tests that the prompt does not show."""
    easy: list[str]
    """Identifiers of the tests that a trivial body passes. The reward `hidden_fraction` gives no credit for them."""
    copies: list[str]
    """Other files that contain the original body. The program sees these files as empty."""
    cut: list[int] | None
    """For fill-in-the-middle rows (`pytest`): offsets in the file, `[start of prefix, start of body, end of body,
    end of suffix]`."""
    most_messages: int | None
    """For tier A: maximum number of messages that one test may send to the program's process. A test that sends more
    is ended."""
    variants: list[str]
    """For kind `project`, during validation: programs that are all graded on this task. They are compiled together."""


class PatchTests(TypedDict, total=False):
    """Tests of kind `repository`: a patch in git's form is graded by tests that run in the patched repository.

    The tests and the changed code share a process, so a patch could forge the verdict (tier B).
    """

    suite: Required[str]
    """Identifier of the repository's snapshot: the files before the change, with the tests of the change."""
    visible: Required[list[str]]
    """Node ids of the tests that the model may read and run. They count for the verdict too."""
    hidden: Required[list[str]]
    """Node ids of the tests that the model does not see."""
    fail_to_pass: list[str]
    """Those of the tests that fail without the change. The other tests pass with and without it."""
    names: list[str]
    """Restricted words that a patch may use: those of the reference
    (`alignment.grading.patched_repository.restricted_words`)."""
    withheld: list[str]
    """Node ids of tests that are removed from the test files for this run. Environments use it for runs whose result the
    model sees."""


@dataclass(frozen=True)
class GradingTask:
    """A task whose row has been checked."""

    kind: TaskKind
    language: str
    """The language's name in `alignment.sandbox.toolchains`."""
    tests: Mapping[str, Any]
    """The tests, in the format of `kind` (see the docstring of this module)."""
    entry_point: str | None
    """Name of the function that is called."""


def read_task(row: TaskRow) -> GradingTask:
    """Check the row of a task.

    Raises:
        KeyError: a column is missing.
        TypeError: a column has a wrong type.
        ValueError: the language or the kind is unknown, the kind does not support the language, or the row has no
            tests.
    """
    tests = json.loads(row["tests"]) if isinstance(row["tests"], str) else row["tests"]
    language = language_of(cast(str, row.get("language")) or "python").name
    kind = row["kind"]
    if kind not in get_args(TaskKind):
        raise ValueError(f"unknown kind of task {kind!r}: choose one of {', '.join(get_args(TaskKind))}")
    if not isinstance(tests, dict):
        raise ValueError("tests must be a JSON object")
    _check(cast(TaskKind, kind), tests, language)
    entry_point = row.get("entry_point")
    if kind == "calls" and not isinstance(entry_point, str):
        raise ValueError("a task of kind 'calls' needs `entry_point`, the name of the function")
    return GradingTask(cast(TaskKind, kind), language, tests, cast("str | None", entry_point))


def tier_of(row: TaskRow) -> str:
    """Return `B` if a program can forge its verdict on a task, because the tests run in the program's process, else `A`.

    Tests of the kinds `program` and `repository`, tests of repositories with `tier: B`, and rows with `forgeable: true`
    are of tier B.
    """
    if row.get("forgeable") is True or row.get("kind") in ("program", "repository"):
        return "B"
    if row.get("kind") not in REPOSITORY_KINDS:
        return "A"
    tests = json.loads(row["tests"]) if isinstance(row["tests"], str) else row["tests"]
    return "B" if isinstance(tests, dict) and tests.get("tier", "A") != "A" else "A"


def _check(kind: TaskKind, tests: Mapping[str, Any], language: str) -> None:
    if kind in PYTHON_ONLY and language != "python":
        raise ValueError(f"kind {kind!r} is for python, not for {language!r}: use 'stdio'")
    if kind == "node" and language not in NODE_LANGUAGES:
        raise ValueError(f"kind 'node' is for javascript and typescript, not for {language!r}")
    if kind == "project" and language not in PROJECT_LANGUAGES:
        raise ValueError(f"kind 'project' is for {', '.join(PROJECT_LANGUAGES)}, not for {language!r}")
    if kind == "asserts" and not str(tests.get("code", "")).strip():
        raise ValueError("the task has no tests")
    if kind in ("stdio", "calls") and not tests.get("cases"):
        raise ValueError("the task has no tests")
    if kind == "repository":
        _check_patch_tests(tests)


def _check_patch_tests(tests: Mapping[str, Any]) -> None:
    if not isinstance(tests.get("suite"), str):
        raise ValueError("a task of kind 'repository' needs `suite` in its tests, the identifier of a snapshot")
    for key in ("visible", "hidden"):
        names = tests.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) and "::" in name for name in names):
            raise ValueError(f"`{key}` must be a list of node ids such as 'tests/test_a.py::test_b'")
    if not tests["visible"] and not tests["hidden"] and not tests.get("withheld"):
        raise ValueError("the task has no tests")


def check_task(row: Mapping[str, Any], where: str) -> None:
    """Raise ValueError if a task can't be graded. In training, such a task would never get a reward."""
    if not isinstance(row["prompt"], str):
        raise ValueError(f"{where}: `prompt` must be text, not {type(row['prompt']).__name__}")
    if not isinstance(row["tests"], str):
        raise ValueError(f"{where}: `tests` must be a JSON string, so that rows of all kinds share one schema")
    for column in ("id", "source"):
        if row.get(column) is not None and not isinstance(row[column], str):
            raise ValueError(f"{where}: `{column}` must be text, not {type(row[column]).__name__}")
    check_gradable(row, where)


def check_gradable(row: TaskRow, where: str) -> None:
    """Raise ValueError if `read_task` refuses the row. The message begins with `where`, the place of the row."""
    try:
        read_task(row)
    except KeyError as error:
        raise ValueError(f"{where}: a task needs {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: this task can't be graded: {error}") from None
