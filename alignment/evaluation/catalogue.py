"""The benchmarks by name. A benchmark's module is imported when it is used."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.problem import Benchmark
from alignment.wording import did_you_mean

PACKAGE = "alignment.evaluation.benchmarks"

BENCHMARKS: dict[str, tuple[str, str]] = {
    "humaneval": ("evalplus:humaneval", "HumanEval, 164 Python functions; pass@k"),
    "humaneval+": ("evalplus:humaneval_plus", "HumanEval with EvalPlus's further inputs"),
    "mbpp": ("evalplus:mbpp", "MBPP as in EvalPlus, Python functions; pass@k"),
    "mbpp+": ("evalplus:mbpp_plus", "MBPP with EvalPlus's further inputs"),
    **{
        f"multipl-e-{short}": ("multipl_e:multipl_e", f"MultiPL-E: HumanEval in {language}")
        for short, language in (
            ("java", "Java"),
            ("cpp", "C++"),
            ("js", "JavaScript"),
            ("cs", "C#"),
            ("php", "PHP"),
            ("sh", "Shell"),
            ("ts", "TypeScript"),
            ("go", "Go"),
            ("lua", "Lua"),
            ("pl", "Perl"),
            ("r", "R"),
            ("rb", "Ruby"),
            ("rs", "Rust"),
        )
    },
    "mceval": ("multilingual:multilingual", "McEval: functions in many languages"),
    "mdeval": ("multilingual:multilingual", "MdEval: repair in many languages"),
    "humaneval-infilling-single-line": ("infilling:humaneval_infilling", "one line of HumanEval's solutions; pass@k"),
    "humaneval-infilling-multi-line": ("infilling:humaneval_infilling", "several lines of HumanEval's solutions"),
    "humaneval-infilling-random-span": ("infilling:humaneval_infilling", "random spans of HumanEval's solutions"),
    "humaneval-fim": ("infilling:humaneval_fim", "first-line exact match, as in Qwen2.5-Coder's FIM table"),
    "safim-block": ("repository_completion:safim", "SAFIM: algorithmic blocks; pass@k"),
    "safim-control": ("repository_completion:safim", "SAFIM: control-flow expressions; pass@k"),
    "safim-api": ("repository_completion:safim", "SAFIM: API calls; exact match"),
    "crosscodeeval": ("repository_completion:repository_completion", "CrossCodeEval: lines that need other files"),
    "crosscodelongeval": ("repository_completion:repository_completion", "CrossCodeLongEval: chunks and functions"),
    "repoeval": ("repository_completion:repository_completion", "RepoEval: lines, API calls and functions"),
    "cruxeval-input": ("cruxeval:cruxeval", "CRUXEval: an input for an output"),
    "cruxeval-output": ("cruxeval:cruxeval", "CRUXEval: the output of an input"),
    "cruxeval-input-cot": ("cruxeval:cruxeval", "CRUXEval input, with chain of thought"),
    "cruxeval-output-cot": ("cruxeval:cruxeval", "CRUXEval output, with chain of thought"),
    "bigcodebench": ("contests:bigcodebench", "BigCodeBench, full"),
    "bigcodebench-hard": ("contests:bigcodebench", "BigCodeBench, hard"),
    "livecodebench": ("contests:livecodebench", "LiveCodeBench; livecodebench@2024-07..2024-11 is a window"),
    "gsm8k": ("math_answers:gsm8k", "grade-school mathematics; accuracy"),
    "math": ("math_answers:math", "MATH; accuracy by math-verify"),
    **{
        f"needle-{short}": ("needle:needle", f"a constant hidden in {length} tokens of code, at eleven depths")
        for short, length in (("8k", "8,192"), ("32k", "32,768"), ("128k", "131,072"))
    },
    "editing": ("regression:editing", "Aider-style editing of files, two tries"),
    "regression": ("regression:regression", "your own prompts (YAML) with tests or expected answers"),
    "tasks": ("user_rows:tasks", "your own executable tasks (JSONL), asked in ChatML or as plain text; pass@k"),
    "fim": ("user_rows:fim", "your own fill-in-the-middle tasks (JSONL); pass@k, exact match, edit similarity"),
    "completion": ("user_rows:completion", "the same rows, left to right: the model sees the prefix alone"),
}
"""name -> (module:function, what it measures)."""

NEEDS_DATA = ("tasks", "fim", "completion", "editing", "regression")
"""These have no home of their own: `data` names their rows."""


def check_benchmark(name: str, *, has_data: bool) -> Iterator[tuple[str, str]]:
    """Mistakes of a recipe's entry as (key, message); reads and downloads nothing."""
    family, _, window = name.partition("@")
    if family not in BENCHMARKS or (window and family != "livecodebench"):
        yield "benchmark", f"there is no benchmark {name!r}.{did_you_mean(family, BENCHMARKS)}"
    elif name in NEEDS_DATA and not has_data:
        yield "data", f"{name!r} measures your own rows: name their file with `data:`"


def load(request: BenchmarkRequest) -> Benchmark:
    """Read the rows and apply what the request changes. ValueError says what is missing and how to get it."""
    for _, message in check_benchmark(request.benchmark, has_data=request.data is not None):
        raise ValueError(message)
    module, _, function = BENCHMARKS[request.benchmark.partition("@")[0]][0].partition(":")
    benchmark: Benchmark = getattr(importlib.import_module(f"{PACKAGE}.{module}"), function)(request)
    given = {
        key: value
        for key in ("n", "temperature", "top_p", "max_new_tokens")
        if (value := getattr(request, key)) is not None
    }
    if request.mode is not None and benchmark.mode != request.mode:
        raise ValueError(
            f"{request.name}: {request.benchmark!r} is only asked in {benchmark.mode} mode: leave `mode` out"
        )
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
