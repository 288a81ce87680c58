"""HumanEval-Infilling (single-line, multi-line, random-span; OpenAI) and HumanEval-FIM (first-line exact match).

HumanEval-Infilling runs the completed program. HumanEval-FIM is the benchmark of the FIM table in Qwen2.5-Coder's
report, in Python, Java and JavaScript. It generates 64 new tokens greedily, and compares the first line of the
completion with the missing line (`qwencoder-eval/base/benchmarks/fim-bench/hm_fim`).
"""

from __future__ import annotations

from dataclasses import replace

from alignment.evaluation.benchmark_files import PublicFile, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.problem import Benchmark, FimPrompt, Problem, task_row
from alignment.evaluation.statistics.text_scores import edit_similarity, fuzz_ratio, infilling_scores
from alignment.models import formats
from alignment.rows.reading import read_rows

OPENAI = "https://github.com/openai/human-eval-infilling/raw/master/data/"
FILES = {
    "humaneval-infilling-single-line": (
        "HumanEval-SingleLineInfilling.jsonl.gz",
        "6fffc71ec2f1674372fcc177511f92312f1a27a9eacd8e43255c9f5ee9eca8c8",
    ),
    "humaneval-infilling-multi-line": (
        "HumanEval-MultiLineInfilling.jsonl.gz",
        "5b49f312f0a781420a4ae54f5e73176009b9cfc52731e3a0b9be726b451032d1",
    ),
    "humaneval-infilling-random-span": (
        "HumanEval-RandomSpanInfillingLight.jsonl.gz",
        "cbb2b36f90311a3a7d844b6361852bb33e3ab11ab3bca2b7e85bfb9bf78c5891",
    ),
}
HUMANEVAL_FIM = PublicFile(
    file="train.parquet",
    aliases=("fim_singleline.jsonl",),
    url="https://huggingface.co/datasets/bigcode/santacoder-fim-task/resolve/main/data/train-00000-of-00001.parquet",
)


def humaneval_infilling(request: BenchmarkRequest) -> Benchmark:
    """Load one of the three parts of HumanEval-Infilling (Bavarian et al., 2022, arXiv 2207.14255)."""
    file, sha256 = FILES[request.benchmark]
    rows = read_rows(locate(request, PublicFile(file=file, url=OPENAI + file, sha256=sha256)))
    problems = [
        Problem(
            id=row["task_id"],
            prompt=FimPrompt(row["prompt"], row["suffix"]),
            reference=row["canonical_solution"],
            task=task_row(
                row["task_id"],
                "asserts",
                {"code": row["test"]},
                source=request.benchmark,
                entry_point=row["entry_point"],
            ),
            row=row,
        )
        for row in rows
    ]
    return Benchmark(
        name=request.benchmark,
        problems=problems,
        max_new_tokens=512,
        stop_tokens=formats.FIM_STOP_TOKENS,
        assemble=lambda problem, text: problem.row["prompt"] + text + problem.row["suffix"],
        score=infilling_scores,
    )


def humaneval_fim(request: BenchmarkRequest) -> Benchmark:
    """Load HumanEval-FIM, which compares the first line of the completion with the missing line."""
    rows = read_rows(locate(request, HUMANEVAL_FIM))
    problems = [
        Problem(
            id=f"{row.get('language', 'python')}/{row['task_id']}" if "task_id" in row else str(number),
            prompt=FimPrompt(row["prompt"], row["suffix"]),
            reference=row["canonical_solution"],
            row=row,
        )
        for number, row in enumerate(rows)
    ]
    return Benchmark(
        name=request.benchmark,
        problems=_numbered(problems),
        max_new_tokens=64,
        stop_tokens=formats.FIM_STOP_TOKENS,
        assemble=lambda problem, text: first_line(text),
        score=_first_line_scores,
    )


def first_line(text: str) -> str:
    """Return the first line without surrounding white space, or the second line if the first is "" or " "."""
    lines = text.split("\n")
    return (lines[1] if len(lines) > 1 and lines[0] in ("", " ") else lines[0]).strip()


def _first_line_scores(problem: Problem, answer: str) -> dict[str, float]:
    assert problem.reference is not None
    expected = problem.reference.strip()
    return {
        "exact_match": float(answer == expected),
        "edit_similarity": fuzz_ratio(answer, expected),
        "levenshtein_similarity": edit_similarity(answer, expected),
    }


def _numbered(problems: list[Problem]) -> list[Problem]:
    """Append a counter to the problems' ids to make them unique: all masked lines of a task have the same task id."""
    counts: dict[str, int] = {}
    numbered = []
    for problem in problems:
        count = counts[problem.id] = counts.get(problem.id, -1) + 1
        numbered.append(replace(problem, id=f"{problem.id}/{count}"))
    return numbered
