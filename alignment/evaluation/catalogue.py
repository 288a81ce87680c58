"""List the benchmarks by name, and load them.

The module of a benchmark is imported only when the benchmark is loaded.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from typing import NamedTuple

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.problem import Benchmark
from alignment.evaluation.user_benchmark import load_user_benchmark
from alignment.extensions import Extension
from alignment.wording import did_you_mean

PACKAGE = "alignment.evaluation.benchmarks"


class CatalogueEntry(NamedTuple):
    """A built-in benchmark."""

    function: str
    """Name `module:function` of a function in `PACKAGE` that takes a `BenchmarkRequest` and returns a `Benchmark`."""
    description: str


BENCHMARKS: dict[str, CatalogueEntry] = {
    "humaneval": CatalogueEntry("evalplus:humaneval", "HumanEval, 164 Python functions; pass@k"),
    "humaneval+": CatalogueEntry("evalplus:humaneval_plus", "HumanEval with EvalPlus's additional inputs"),
    "mbpp": CatalogueEntry("evalplus:mbpp", "MBPP as in EvalPlus, Python functions; pass@k"),
    "mbpp+": CatalogueEntry("evalplus:mbpp_plus", "MBPP with EvalPlus's additional inputs"),
    **{
        f"multipl-e-{short}": CatalogueEntry("multipl_e:multipl_e", f"MultiPL-E: HumanEval in {language}")
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
    "mceval": CatalogueEntry("multilingual:multilingual", "McEval: write functions in many languages"),
    "mdeval": CatalogueEntry("multilingual:multilingual", "MdEval: repair functions in many languages"),
    "humaneval-infilling-single-line": CatalogueEntry(
        "infilling:humaneval_infilling", "fill in one line of HumanEval's solutions; pass@k"
    ),
    "humaneval-infilling-multi-line": CatalogueEntry(
        "infilling:humaneval_infilling", "fill in several lines of HumanEval's solutions"
    ),
    "humaneval-infilling-random-span": CatalogueEntry(
        "infilling:humaneval_infilling", "fill in random spans of HumanEval's solutions"
    ),
    "humaneval-fim": CatalogueEntry(
        "infilling:humaneval_fim", "first-line exact match, as in Qwen2.5-Coder's FIM table"
    ),
    "safim-block": CatalogueEntry("repository_completion:safim", "SAFIM: algorithmic blocks; pass@k"),
    "safim-control": CatalogueEntry("repository_completion:safim", "SAFIM: control-flow expressions; pass@k"),
    "safim-api": CatalogueEntry("repository_completion:safim", "SAFIM: API calls; exact match"),
    "crosscodeeval": CatalogueEntry(
        "repository_completion:repository_completion", "CrossCodeEval: complete lines that need other files"
    ),
    "crosscodelongeval": CatalogueEntry(
        "repository_completion:repository_completion", "CrossCodeLongEval: complete chunks and functions"
    ),
    "repoeval": CatalogueEntry(
        "repository_completion:repository_completion", "RepoEval: complete lines, API calls and functions"
    ),
    "cruxeval-input": CatalogueEntry("cruxeval:cruxeval", "CRUXEval: predict an input for an output"),
    "cruxeval-output": CatalogueEntry("cruxeval:cruxeval", "CRUXEval: predict the output of an input"),
    "cruxeval-input-cot": CatalogueEntry("cruxeval:cruxeval", "CRUXEval input, with chain of thought"),
    "cruxeval-output-cot": CatalogueEntry("cruxeval:cruxeval", "CRUXEval output, with chain of thought"),
    "bigcodebench": CatalogueEntry("contests:bigcodebench", "BigCodeBench, full"),
    "bigcodebench-hard": CatalogueEntry("contests:bigcodebench", "BigCodeBench, hard"),
    "livecodebench": CatalogueEntry(
        "contests:livecodebench", "LiveCodeBench; livecodebench@2024-07..2024-11 for contests of these months"
    ),
    "gsm8k": CatalogueEntry("math_answers:gsm8k", "grade-school mathematics; accuracy"),
    "math": CatalogueEntry("math_answers:math", "MATH; accuracy by math-verify"),
    **{
        f"needle-{short}": CatalogueEntry(
            "needle:needle", f"a constant hidden in {length} tokens of code, at eleven depths"
        )
        for short, length in (("8k", "8,192"), ("32k", "32,768"), ("128k", "131,072"))
    },
    "editing": CatalogueEntry("regression:editing", "Aider-style editing of files, two tries"),
    "tools": CatalogueEntry(
        "tool_calling:tool_calling", "your own conversations with tools: valid call, right name, right arguments"
    ),
    "regression": CatalogueEntry("regression:regression", "your own prompts (YAML) with tests or expected answers"),
    "tasks": CatalogueEntry(
        "user_rows:tasks", "your own executable tasks (JSONL), asked in ChatML or as plain text; pass@k"
    ),
    "repair": CatalogueEntry(
        "repair:repair",
        "your own tasks in several turns with tools: pass@k, pass rate after each turn; repair@5 for five turns",
    ),
    "fim": CatalogueEntry(
        "user_rows:fim", "your own fill-in-the-middle rows (JSONL); pass@k, exact match, edit similarity, stop rate"
    ),
    "fim-body": CatalogueEntry(
        "user_rows:fim_body", "the same rows as fim; completions are cut where the function body ends"
    ),
    "editor": CatalogueEntry(
        "cursor_positions:editor",
        "the same rows as fim, at several cursor positions of each; first line, accepted characters, stop rate",
    ),
    "completion": CatalogueEntry(
        "user_rows:completion", "the same rows as fim, left to right: the model sees the prefix alone"
    ),
}
"""The built-in benchmarks. Keys are the names that `benchmark:` and `--tasks` accept."""

WINDOWED = ("livecodebench", "repair")
"""Benchmarks whose name may have a suffix: `livecodebench@2024-07..2024-11`, `repair@5`."""
FILL_IN_THE_MIDDLE = frozenset(
    name
    for name, entry in BENCHMARKS.items()
    if entry.function.startswith(("infilling:", "repository_completion:", "cursor_positions:", "user_rows:fim"))
)
"""Benchmarks whose prompts have the tokens of fill-in-the-middle."""
NEEDS_DATA = ("tasks", "repair", "fim", "fim-body", "editor", "completion", "editing", "regression", "tools")
"""Benchmarks without public rows. For these, the setting `data` must be the path of the user's rows."""


def check_benchmark(name: str, *, has_data: bool) -> Iterator[tuple[str, str]]:
    """Check an entry of `evaluate:` without reading or downloading anything.

    Args:
        name: the value of `benchmark`. A reference to the user's code is not checked here.
        has_data: whether the entry names rows with `data`.

    Yields:
        The key and the message of each mistake.
    """
    if Extension.is_reference(name):
        return
    family, _, window = name.partition("@")
    if family not in BENCHMARKS or (window and family not in WINDOWED):
        yield "benchmark", f"there is no benchmark {name!r}.{did_you_mean(family, BENCHMARKS)}"
    elif family in NEEDS_DATA and not has_data:
        yield "data", f"{name!r} measures your own rows: name their file with `data:`"


def load(request: BenchmarkRequest) -> Benchmark:
    """Load a benchmark with its rows, and apply the settings of the request.

    Raises:
        ValueError: the benchmark or its rows are missing (the message says how to get them), or a setting of the
            request does not suit the benchmark.
        ExtensionError: the user's benchmark raised an exception or returned a value of a wrong type.
    """
    for _, message in check_benchmark(request.benchmark, has_data=request.data is not None):
        raise ValueError(message)
    if Extension.is_reference(request.benchmark):
        benchmark = load_user_benchmark(Extension.parse(request.benchmark), request)
    else:
        module, _, function = BENCHMARKS[request.benchmark.partition("@")[0]].function.partition(":")
        benchmark = getattr(importlib.import_module(f"{PACKAGE}.{module}"), function)(request)
    settings = {
        key: value
        for key in ("n", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
        if (value := getattr(request, key)) is not None
    }
    if request.mode is not None and benchmark.mode != request.mode:
        raise ValueError(f"{request.name}: {request.benchmark!r} has {benchmark.mode} prompts only: remove `mode`")
    problems = benchmark.problems[: request.limit]
    if not problems:
        raise ValueError(f"{request.name}: there are no rows in {request.data or 'its data'}")
    ids = [problem.id for problem in problems]
    if len(set(ids)) != len(ids):
        repeated = next(task_id for task_id in ids if ids.count(task_id) > 1)
        raise ValueError(f"{request.name}: two tasks have the id {repeated!r}: ids must be unique")
    benchmark = dataclasses.replace(benchmark, name=request.name, problems=problems, **settings)
    for key in ("top_k", "min_p"):
        if benchmark.temperature == 0 and getattr(request, key):
            raise ValueError(
                f"{request.name}: {key} has no effect at temperature 0: set a temperature, or remove {key}"
            )
    if benchmark.n > 1 and benchmark.temperature == 0:
        raise ValueError(f"{request.name}: greedy samples are all the same: set a temperature above 0, or n: 1")
    if benchmark.n > 1 and benchmark.retry is not None:
        raise ValueError(f"{request.name} asks again after a failure, which needs one sample per task: set n: 1")
    return benchmark
