"""Load benchmarks from the user's code: `benchmark: my_bench.py:Tasks` or `benchmark: package.module:Tasks`.

`Tasks` is a function or class that takes a `BenchmarkRequest`. It returns a `Benchmark`, or any object that has
attributes and methods of the same names. `problems` and `max_new_tokens` are required. Missing attributes have the
defaults of `Benchmark`. A class therefore needs no base class:

    class Tasks:
        mode = "chat"
        max_new_tokens = 256

        def __init__(self, request): self.problems = [Problem(id="1", prompt=ChatPrompt(...), reference="4"), ...]
        def assemble(self, problem, completion): return completion.strip()
        def score(self, problem, answer): return {"exact_match": float(answer == problem.reference)}

`alignment.evaluation.problem` documents the types, and how a completion is processed. `assemble`, `score` and `retry`
run in the evaluating process, outside the sandbox: they must never execute a completion.

Every error in the user's code (an exception, a value of a wrong type, a score that is not a number from 0 to 1) raises
an `ExtensionError` that names file, line and function.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.problem import (
    Assemble,
    Benchmark,
    ChatPrompt,
    FimPrompt,
    Problem,
    Retry,
    Row,
    Score,
    TextPrompt,
)
from alignment.extensions import Extension, ExtensionError
from alignment.grading import Limits, read_task


def load_user_benchmark(extension: Extension, request: BenchmarkRequest) -> Benchmark:
    """Load the user's function or class, call it with the request, and check the benchmark that it returns.

    Raises:
        ExtensionError: the code can't be loaded, raises an exception, or returns a value of a wrong type.
    """
    factory = extension.load()
    if not callable(factory):
        raise ExtensionError(
            f"{extension.file()}: {extension.name} is {_described(factory)}: it must be a function or class that takes "
            "a BenchmarkRequest and returns a Benchmark"
        )
    with extension.errors(f"{extension.name}(request)"):
        result = factory(request)
    place = extension.place(factory)
    values: dict[str, Any] = {"name": request.name, "source_digest": extension.digest()}
    for field in dataclasses.fields(Benchmark):
        if field.name in values:
            continue
        with extension.errors(f"reading {field.name!r} of the benchmark"):
            if hasattr(result, field.name):
                values[field.name] = getattr(result, field.name)
    for name in ("problems", "max_new_tokens"):
        if name not in values:
            raise ExtensionError(
                f"{place} returned {_described(result)} without `{name}`: it must return a Benchmark, or an object with "
                "the same attributes"
            )
    for name, value in values.items():
        if name in _FIELDS and not _FIELDS[name][0](value):
            raise ExtensionError(f"{place}: {name} is {_described(value)}: it must be {_FIELDS[name][1]}")
    values["problems"] = [_checked_problem(place, number, item) for number, item in enumerate(values["problems"], 1)]
    for name in ("stop", "stop_tokens", "hidden"):
        if name in values:
            values[name] = tuple(values[name])
    benchmark = Benchmark(**values)
    without_task = next((problem for problem in benchmark.problems if problem.task is None), None)
    if benchmark.score is None and without_task is not None:
        raise ExtensionError(
            f"{place}: problem {without_task.id!r} has no `task` and the benchmark has no `score`, so nothing measures "
            "the problem: add a `task` or a `score`"
        )
    return dataclasses.replace(
        benchmark,
        assemble=_checked_assemble(extension, benchmark.assemble),
        score=None if benchmark.score is None else _checked_score(extension, benchmark.score),
        retry=None if benchmark.retry is None else _checked_retry(extension, benchmark.retry),
    )


def _checked_problem(place: str, number: int, problem: Any) -> Problem:
    if not isinstance(problem, Problem):
        raise ExtensionError(f"{place}: problem {number} is {_described(problem)}: it must be a Problem")
    where = f"{place}: problem {number}"
    if not isinstance(problem.id, str) or not problem.id:
        raise ExtensionError(f"{where}: its id is {_described(problem.id)}: it must be text")
    if not callable(getattr(problem.prompt, "text", None)) or not callable(getattr(problem.prompt, "encode", None)):
        raise ExtensionError(
            f"{where}: its prompt is {_described(problem.prompt)}: it must be a TextPrompt, ChatPrompt, FimPrompt, or an "
            "object with the methods text(tokenizer) and encode(tokenizer)"
        )
    if not _is_texts(problem.stop):
        raise ExtensionError(f"{where}: stop is {_described(problem.stop)}: it must be a tuple of strings")
    if not isinstance(problem.reference, str | None):
        raise ExtensionError(f"{where}: reference is {_described(problem.reference)}: it must be text or None")
    if not isinstance(problem.row, dict):
        raise ExtensionError(f"{where}: row is {_described(problem.row)}: it must be a dict")
    if problem.task is not None:
        try:
            read_task(problem.task)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise ExtensionError(f"{where}: its task cannot be graded: {reason}") from error
    return problem if problem.row else dataclasses.replace(problem, row=_default_row(problem))


def _default_row(problem: Problem) -> Row:
    """Make a row for decontamination from the texts of a problem that has no row."""
    texts: list[str] = []
    if isinstance(problem.prompt, TextPrompt):
        texts = [problem.prompt.content]
    elif isinstance(problem.prompt, ChatPrompt):
        texts = [message["content"] for message in problem.prompt.messages if message["role"] == "user"]
    elif isinstance(problem.prompt, FimPrompt):
        texts = [problem.prompt.prefix, problem.prompt.suffix]
    row: Row = {"prompt": "\n\n".join(texts)} if texts else {}
    return row | ({"canonical_solution": problem.reference} if problem.reference else {})


def _checked_assemble(extension: Extension, function: Assemble) -> Assemble:
    def assemble(problem: Problem, completion: str) -> str:
        with extension.errors(f"assemble of problem {problem.id!r}"):
            program = function(problem, completion)
        if not isinstance(program, str):
            raise ExtensionError(
                f"{extension.place(function)} returned {_described(program)} for problem {problem.id!r}: it must "
                "return the program or the answer as text"
            )
        return program

    return assemble


def _checked_score(extension: Extension, function: Score) -> Score:
    def score(problem: Problem, answer: str) -> dict[str, float]:
        with extension.errors(f"score of problem {problem.id!r}"):
            scores = function(problem, answer)
        place = f"{extension.place(function)} returned"
        if not isinstance(scores, dict) or not all(isinstance(name, str) for name in scores):
            raise ExtensionError(
                f"{place} {_described(scores)} for problem {problem.id!r}: it must return a dict of scores by name, for "
                "example {'exact_match': 1.0}"
            )
        if not scores and problem.task is None:
            raise ExtensionError(f"{place} no score for problem {problem.id!r}, which has no task: return a score")
        for name, value in scores.items():
            if not _is_number(value) or not 0 <= value <= 1:
                raise ExtensionError(
                    f"{place} {name} = {value!r} for problem {problem.id!r}: a score must be a number from 0 to 1"
                )
        return {name: float(value) for name, value in scores.items()}

    return score


def _checked_retry(extension: Extension, function: Retry) -> Retry:
    def retry(problem: Problem, completion: str, failures: str) -> Problem:
        with extension.errors(f"retry of problem {problem.id!r}"):
            again = function(problem, completion, failures)
        place = extension.place(function)
        if not isinstance(again, Problem) or again.id != problem.id:
            raise ExtensionError(
                f"{place} returned {_described(again)} for problem {problem.id!r}: it must return a Problem with this id"
            )
        return _checked_problem(place, 1, again)

    return retry


def _described(value: Any) -> str:
    """Describe a value for an error message: a number or a short text by its value, any other value by its type."""
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return f"a {type(value).__name__}"


def _is_texts(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(item, str) for item in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _is_limits(value: Any) -> bool:
    try:
        Limits().at_least(**value)
    except (TypeError, ValueError, AttributeError):
        return False
    return True


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "problems": (lambda value: isinstance(value, list | tuple), "a list of Problem"),
    "max_new_tokens": (_is_count, "an integer of at least 1"),
    "assemble": (callable, "a function (problem, completion) -> text"),
    "score": (lambda value: value is None or callable(value), "a function (problem, answer) -> dict of scores"),
    "mode": (lambda value: value in ("base", "chat"), "'base' or 'chat'"),
    "stop": (_is_texts, "a tuple of strings"),
    "stop_tokens": (_is_texts, "a tuple of strings"),
    "n": (_is_count, "an integer of at least 1"),
    "temperature": (lambda value: _is_number(value) and value >= 0, "a number of at least 0"),
    "top_p": (lambda value: _is_number(value) and 0 < value <= 1, "a number above 0 and at most 1"),
    "top_k": (lambda value: value == 0 or _is_count(value), "an integer of at least 0"),
    "min_p": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "repetition_penalty": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "least_limits": (_is_limits, "a mapping from fields of alignment.grading.Limits to numbers"),
    "hidden": (_is_texts, "a tuple of paths"),
    "needs": (
        lambda value: value is None or (_is_texts(value) and len(value) == 2),
        "a program and what to install if it does not run",
    ),
    "size": (lambda value: value is None or _is_count(value), "a number of tasks"),
    "retry": (lambda value: value is None or callable(value), "a function (problem, completion, failures) -> Problem"),
}
"""Checks of the fields of `Benchmark`, keyed by field. Each check is a function that returns whether a value is valid,
and a text that says which values are valid."""
