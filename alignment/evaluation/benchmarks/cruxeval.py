"""CRUXEval: predict a Python function's output, or an input for a given output, with or without chain of thought.

Prompts, stop strings and the extraction of answers are those of `qwencoder-eval/base/benchmarks/cruxeval` in
QwenLM/Qwen2.5-Coder, which took them from CRUXEval (Gu et al., 2024, arXiv 2401.03065). Answers are checked by running
the function in the sandbox.
"""

from __future__ import annotations

from alignment.evaluation.benchmark_files import PublicFile, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks.cruxeval_prompts import PROMPTS
from alignment.evaluation.problem import Benchmark, Problem, Row, TextPrompt, task_row
from alignment.rows.reading import read_rows

CRUXEVAL = PublicFile(
    file="cruxeval.jsonl",
    url="https://github.com/facebookresearch/cruxeval/raw/main/data/cruxeval.jsonl",
    sha256="8368b81047dc5014e4caf5a2f97604eff7644e0ecd7415e3ceeb184bbc2e0c96",
)
FAILS = "raise SystemExit(1)\n"
"""A program that always fails. It is graded instead of an answer that is known to be wrong without running it."""


def cruxeval(request: BenchmarkRequest) -> Benchmark:
    """Load CRUXEval-I or CRUXEval-O, depending on the name of the benchmark."""
    kind = "input" if "input" in request.benchmark else "output"
    cot = request.benchmark.endswith("-cot")
    template = PROMPTS[kind, cot]

    def problem(row: Row) -> Problem:
        return Problem(
            id=row["id"],
            prompt=TextPrompt(prompt_of(row, template)),
            task=task_row(row["id"], "program", {"marker": True}, source="cruxeval"),
            row=row,
        )

    def assemble(problem: Problem, completion: str) -> str:
        return program(problem.row, answer(completion, kind, cot), kind)

    return Benchmark(
        name=request.benchmark,
        problems=[problem(row) for row in read_rows(locate(request, CRUXEVAL))],
        max_new_tokens=1024 if cot else 256,
        stop=("[/ANSWER]",),
        assemble=assemble,
    )


def prompt_of(row: Row, template: str) -> str:
    """Fill a template with the fields of a row. Braces in the row's code are left unchanged."""
    for field in ("code", "input", "output"):
        template = template.replace("{" + field + "}", "\x00" + field + "\x00")
    for field in ("code", "input", "output"):
        template = template.replace("\x00" + field + "\x00", row[field])
    return template


def answer(completion: str, kind: str, cot: bool) -> str:
    """Return the input or output that the model predicts in a completion.

    Args:
        completion: the model's completion.
        kind: `input` or `output`.
        cot: whether the completion has a chain of thought before its answer.
    """
    if cot and "[ANSWER]" in completion:
        completion = completion.split("[ANSWER]")[1].strip()
    if "==" in completion:
        completion = completion.split("==")[0 if kind == "input" else 1].strip()
    if kind == "input" and "assert f" in completion:
        completion = "f" + completion.split("assert f")[1].strip()
    return completion.strip()


def program(row: Row, answer: str, kind: str) -> str:
    """Return a program that succeeds if the answer is right.

    An answer that only repeats the question's call is wrong.
    """
    if (kind == "input" and "f(" not in answer) or (kind == "output" and f"f({row['input']})" in answer):
        return FAILS
    return f"{row['code']}\nassert {row['output']} == {answer}\n"
