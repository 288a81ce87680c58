"""Evaluate checkpoints: run benchmarks, compute pass@k with intervals, and compare two results task by task.

from alignment.evaluation import evaluate

evaluate("runs/r/sft", ["humaneval", "fim:held-out.jsonl"], "runs/r/evaluate-sft")
"""

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.completions import grade_completions
from alignment.evaluation.extraction import extract_code
from alignment.evaluation.problem import Benchmark, ChatPrompt, FimPrompt, Problem, TextPrompt
from alignment.evaluation.results import read_documents
from alignment.evaluation.runner import evaluate
from alignment.evaluation.statistics.paired import compare

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
