"""Tasks: the rows by which programs are graded, and the format of their tests.

A task is a row with the columns `kind`, `tests`, `language` and `entry_point`; other columns are ignored. `tests` is a
JSON object, or text that holds one, so that rows of all kinds have the same column types. Its format depends on `kind`:

| kind | languages | tests | grades |
|---|---|---|---|
| `calls` | Python | `CallTests` | the values that a function returns |
| `asserts` | Python | `AssertTests` | assertions that call a function |
| `stdio` | all | `StdioTests` | what a program prints for an input |
| `program` | all | `ProgramTests` | a program that contains its own tests |
| `pytest` | Python | `RepositoryTests` | a function's body in a repository, by the repository's tests |
| `node` | JavaScript, TypeScript | `RepositoryTests` | the same, for JavaScript test runners |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Required, TypedDict, cast, get_args

from alignment.sandbox.toolchains import language_of

TaskRow = Mapping[str, object]
"""A row of a data set as it is read; `read_task` checks it."""
TaskKind = Literal["calls", "asserts", "stdio", "program", "pytest", "node"]
PYTHON_ONLY = ("calls", "asserts", "pytest")
NODE_LANGUAGES = ("javascript", "typescript")


class CallCase(TypedDict, total=False):
    """One call of a function."""

    args: Required[Any]
    """Positional arguments: a list, or a list in wire form."""
    kwargs: Any
    """Keyword arguments: an object, or a dict in wire form."""
    expected: Required[Any]
    """The value that the function must return."""


class CallTests(TypedDict, total=False):
    """Tests of kind `calls`. Arguments are sent to the program's process, all at once; expected values never are."""

    cases: Required[list[CallCase]]
    encoding: Literal["json", "tagged"]
    """`tagged`: args, kwargs and expected are in wire form (`alignment.sandbox.inside.wire`), which keeps tuples, sets
    and bytes apart from lists and text. By default they are plain JSON."""
    compare: Literal["exact", "equal", "set", "not_none", "any", "root"]
    """`exact` (default): types must agree too. `equal`: as Python's `==`. `set`: order and repetition of items are
    ignored. `not_none`: anything but None counts as True. `any`: every returned value passes. `root`: the value is a
    root of the polynomial whose coefficients are the first argument."""
    tolerance: float | None
    """Absolute difference allowed between numbers of which one is a float."""
    floats: float | None
    """The tolerance if the expected value is a float, or a list of floats, and `tolerance` is not set."""
    call_seconds: float | None
    """CPU time of one call. It saves the time of an endless loop for the calls before it; it is no protection."""


class AssertTests(TypedDict, total=False):
    """Tests of kind `asserts`, which run in a process of their own."""

    code: Required[str]
    """Code that defines `check(candidate)`, `test_*()` functions or `unittest` classes, which are called; or code that
    calls the entry point itself. A name that it does not define is looked up in the program."""
    setup: str
    """Helpers of the tests. A helper that the verdict depends on belongs here: the program could redefine it."""


class StdioCase(TypedDict, total=False):
    """One run of a program."""

    stdin: str
    stdout: Required[str]


class StdioTests(TypedDict, total=False):
    """Tests of kind `stdio`: one process per case must exit with code 0 and print the expected output.

    The expected output never enters the program's process.
    """

    cases: Required[list[StdioCase]]
    tolerance: float | None
    """Absolute difference allowed between numbers in the output."""
    flags: list[str]
    """Further flags of the compiler."""


class ProgramTests(TypedDict, total=False):
    """Tests of kind `program`: the program contains its own tests.

    A weaker grade than the others: a program that reads its own text or environment can forge it. It is meant for
    benchmarks in this form, not for rewards.
    """

    stdin: str
    marker: bool
    """Append code that prints a random marker after the tests (`stdio.with_marker`), so that a program that ends early
    with exit code 0 fails."""
    judge: Literal["exit", "silent", "assertions"]
    """`exit` (default): exit code 0, and in C# no failed `Debug.Assert`, after which mono continues. Two rules of
    published verdicts: `silent`, besides, nothing is printed; `assertions`, standard error does not contain `Fail`,
    whatever the exit code (C#)."""
    flags: list[str]
    """Further flags of the compiler."""


class RepositoryTests(TypedDict, total=False):
    """Tests of kinds `pytest` and `node`: a function of a repository is graded by the repository's tests."""

    suite: Required[str]
    """Identifier of the repository's snapshot."""
    tier: Literal["A", "B"]
    """A: tests and program run in two processes. B: in one, which a program can forge."""
    target: Required[dict[str, Any]]
    """The place of the function: `Function.target()` or `JsFunction.target()`."""
    visible: Required[list[str]]
    """Identifiers of the tests that the prompt shows."""
    hidden: Required[list[str]]
    """Identifiers of the tests that it does not show."""
    copies: list[str]
    """Other files with the same body; the program sees them as empty."""
    cut: list[int] | None
    """Fill-in-the-middle rows (`pytest`): offsets of the window around the body, `[start of prefix, start of body, end of body,
    end of suffix]`."""
    most_messages: int | None
    """Tier A: end a test that sends more messages to the program's process."""


@dataclass(frozen=True)
class GradingTask:
    """A task whose row has been checked."""

    kind: TaskKind
    language: str
    """The language's name in `alignment.sandbox.toolchains`."""
    tests: Mapping[str, Any]
    """In the format of `kind`; see the module's docstring."""
    entry_point: str | None
    """The function that is called."""


def read_task(row: TaskRow) -> GradingTask:
    """Check the row of a task.

    Raises:
        KeyError: a column is missing.
        TypeError: a column has a wrong type.
        ValueError: the language or the kind is unknown, the kind is not for the language, or there are no tests.
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


def _check(kind: TaskKind, tests: Mapping[str, Any], language: str) -> None:
    if kind in PYTHON_ONLY and language != "python":
        raise ValueError(f"kind {kind!r} is for python, not for {language!r}: use 'stdio'")
    if kind == "node" and language not in NODE_LANGUAGES:
        raise ValueError(f"kind 'node' is for javascript and typescript, not for {language!r}")
    if kind == "asserts" and not str(tests.get("code", "")).strip():
        raise ValueError("the task has no tests")
    if kind in ("stdio", "calls") and not tests.get("cases"):
        raise ValueError("the task has no tests")
