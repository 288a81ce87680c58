"""Benchmarks as data, judged as their own harnesses judge; pass@k with intervals; comparisons between checkpoints.

from alignment.evaluation import evaluate
evaluate("runs/r/sft", ["humaneval", "fim:held-out.jsonl"], "runs/r/evaluate-sft")
"""

from alignment.evaluation.completions import grade_completions, read_documents
from alignment.evaluation.runner import evaluate
from alignment.evaluation.statistics.paired import compare

__all__ = ["compare", "evaluate", "grade_completions", "read_documents"]
