"""CRUXEval: predict a Python function's output, or an input for a given output; direct and with chain of thought.

Prompts, stop and answer rules: `qwencoder-eval/base/benchmarks/cruxeval` of QwenLM/Qwen2.5-Coder, which has them from
CRUXEval (arXiv 2401.03065). Answers are checked by running the function in the sandbox.
"""

from __future__ import annotations

import json

from alignment.evaluation.benchmark_files import PublicFile, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmark_rows import read_rows
from alignment.evaluation.benchmarks.cruxeval_prompts import PROMPTS
from alignment.evaluation.problem import Benchmark, Problem, Row, TextPrompt

CRUXEVAL = PublicFile(
    file="cruxeval.jsonl",
    url="https://github.com/facebookresearch/cruxeval/raw/main/data/cruxeval.jsonl",
    sha256="8368b81047dc5014e4caf5a2f97604eff7644e0ecd7415e3ceeb184bbc2e0c96",
)
FAILS = "raise SystemExit(1)\n"


def cruxeval(request: BenchmarkRequest) -> Benchmark:
    kind = "input" if "input" in request.benchmark else "output"
    cot = request.benchmark.endswith("-cot")
    template = PROMPTS[kind, cot]

    def problem(row: Row) -> Problem:
        return Problem(id=row["id"], prompt=TextPrompt(prompt_of(row, template)), task=_task(row), row=row)

    def assemble(problem: Problem, completion: str) -> str:
        given = answer(completion, kind, cot)
        return program(problem.row, given, kind)

    return Benchmark(
        name=request.benchmark,
        problems=[problem(row) for row in read_rows(locate(request, CRUXEVAL))],
        max_new_tokens=1024 if cot else 256,
        stop=("[/ANSWER]",),
        assemble=assemble,
    )


def prompt_of(row: Row, template: str) -> str:
    """Only the row's own fields are put in: its code may well contain braces."""
    for field in ("code", "input", "output"):
        template = template.replace("{" + field + "}", "\x00" + field + "\x00")
    for field in ("code", "input", "output"):
        template = template.replace("\x00" + field + "\x00", row[field])
    return template


def answer(completion: str, kind: str, cot: bool) -> str:
    """The part of the assertion that was asked for."""
    if cot and "[ANSWER]" in completion:
        completion = completion.split("[ANSWER]")[1].strip()
    if "==" in completion:
        completion = completion.split("==")[0 if kind == "input" else 1].strip()
    if kind == "input" and "assert f" in completion:
        completion = "f" + completion.split("assert f")[1].strip()
    return completion.strip()


def program(row: Row, given: str, kind: str) -> str:
    """A program that ends well when the answer is right; an answer that merely repeats the question never is."""
    if (kind == "input" and "f(" not in given) or (kind == "output" and f"f({row['input']})" in given):
        return FAILS
    return f"{row['code']}\nassert {row['output']} == {given}\n"


def _task(row: Row) -> Row:
    return {
        "id": row["id"],
        "prompt": "",
        "language": "python",
        "kind": "program",
        "tests": json.dumps({"marker": True}),
        "entry_point": None,
        "source": "cruxeval",
        "split": "test",
    }
