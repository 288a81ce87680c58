"""The benchmarks by name. A benchmark's module is imported when it is used."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator

from alignment.evaluation.problem import Benchmark
from alignment.evaluation.request import Request, did_you_mean

PACKAGE = "alignment.evaluation.benchmarks"

BENCHMARKS: dict[str, tuple[str, str]] = {
    "humaneval": ("evalplus:humaneval", "HumanEval, 164 Python functions; pass@k"),
    "humaneval+": ("evalplus:humaneval_plus", "HumanEval with EvalPlus's further inputs"),
    "mbpp": ("evalplus:mbpp", "MBPP as in EvalPlus, Python functions; pass@k"),
    "mbpp+": ("evalplus:mbpp_plus", "MBPP with EvalPlus's further inputs"),
    "tasks": ("own:tasks", "your own executable tasks (JSONL), asked in ChatML or as plain text; pass@k"),
    "fim": ("own:fim", "your own fill-in-the-middle tasks (JSONL); pass@k, exact match, edit similarity"),
    "completion": ("own:completion", "the same rows, left to right: the model sees the prefix alone"),
}
"""name -> (module:function, what it measures)."""

NEEDS_DATA = ("tasks", "fim", "completion")
"""These have no home of their own: `data` names their rows."""


def check_benchmark(name: str, *, has_data: bool) -> Iterator[tuple[str, str]]:
    """Mistakes of a recipe's entry as (key, message); reads and downloads nothing."""
    if name not in BENCHMARKS:
        yield "benchmark", f"there is no benchmark {name!r}.{did_you_mean(name, BENCHMARKS)}"
    elif name in NEEDS_DATA and not has_data:
        yield "data", f"{name!r} measures your own rows: name their file with `data:`"


def load(request: Request) -> Benchmark:
    """Read the rows and apply what the request changes. ValueError says what is missing and how to get it."""
    for _, message in check_benchmark(request.benchmark, has_data=request.data is not None):
        raise ValueError(message)
    module, _, function = BENCHMARKS[request.benchmark][0].partition(":")
    benchmark: Benchmark = getattr(importlib.import_module(f"{PACKAGE}.{module}"), function)(request)
    given = {
        key: value
        for key in ("n", "temperature", "top_p", "max_new_tokens")
        if (value := getattr(request, key)) is not None
    }
    problems = benchmark.problems[: request.limit]
    if not problems:
        raise ValueError(f"{request.name}: no rows in {request.data or 'its data'}")
    identities = [problem.id for problem in problems]
    if len(set(identities)) != len(identities):
        repeated = next(identity for identity in identities if identities.count(identity) > 1)
        raise ValueError(f"{request.name}: two tasks have the id {repeated!r}: ids must be unique")
    benchmark = dataclasses.replace(benchmark, name=request.name, problems=problems, **given)
    if benchmark.n > 1 and benchmark.temperature == 0:
        raise ValueError(f"{request.name}: greedy samples are all the same: give a temperature above 0, or n: 1")
    if benchmark.n > 1 and benchmark.retry is not None:
        raise ValueError(f"{request.name} gives every task two tries in turn: use n: 1")
    return benchmark
