"""Evaluate checkpoints: run benchmarks, compute pass@k with intervals, and compare two results task by task.

from alignment.evaluation import evaluate

evaluate("runs/r/sft", ["humaneval", "fim:held-out.jsonl"], "runs/r/evaluate-sft")

The names below are imported on first use, so that checking a recipe does not import the code that runs benchmarks.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignment.evaluation.benchmark_request import BenchmarkRequest
    from alignment.evaluation.completions import grade_completions
    from alignment.evaluation.extraction import extract_code
    from alignment.evaluation.problem import Benchmark, ChatPrompt, FimPrompt, Problem, TextPrompt
    from alignment.evaluation.results import read_documents
    from alignment.evaluation.runner import evaluate
    from alignment.evaluation.statistics.paired import compare

_MODULES = {
    "Benchmark": "problem",
    "BenchmarkRequest": "benchmark_request",
    "ChatPrompt": "problem",
    "FimPrompt": "problem",
    "Problem": "problem",
    "TextPrompt": "problem",
    "compare": "statistics.paired",
    "evaluate": "runner",
    "extract_code": "extraction",
    "grade_completions": "completions",
    "read_documents": "results",
}

__all__ = [
    "Benchmark",
    "BenchmarkRequest",
    "ChatPrompt",
    "FimPrompt",
    "Problem",
    "TextPrompt",
    "compare",
    "evaluate",
    "extract_code",
    "grade_completions",
    "read_documents",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
