"""Completion inside repositories: CrossCodeEval, CrossCodeLongEval, RepoEval, and SAFIM's syntax-aware infilling.

Prompt as `qwencoder-eval/base/benchmarks/fim-bench`: 8192 tokens in all, 2048 to the right, 2048 of cross-file text
at the end of the suffix, the rest to the left. Scores: exact match of code tokens and edit similarity, over as many
non-blank lines as the reference has (the harness cuts whole functions by their syntax tree instead; here lines count
for them too). SAFIM: PSM prompt, program from `eval_prompt`, input and output cases; without its truncation by syntax.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from alignment.evaluation.benchmark_files import PublicFile, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmark_rows import read_rows
from alignment.evaluation.problem import Benchmark, FimPrompt, Problem, Prompt, Row
from alignment.evaluation.statistics.text_scores import edit_similarity, fuzz_ratio
from alignment.models import formats

MAX_TOKENS, RIGHT_TOKENS, CROSS_FILE_TOKENS = 8192, 2048, 2048
_NOTE = (
    "Prepare it as qwencoder-eval/base/benchmarks/fim-bench/{folder}/prepare_data.sh does: rows with prompt, "
    "groundtruth, right_context, crossfile_context and metadata.task_id."
)
HOMES = {
    "crosscodeeval": PublicFile(
        file="line_completion_oracle_bm25.jsonl",
        url="https://github.com/amazon-science/cceval",
        by_hand=True,
        note=_NOTE.format(folder="cceval"),
    ),
    "crosscodelongeval": PublicFile(
        file="python_chunk_completion_sparse_oracle.jsonl",
        aliases=("python_function_completion_sparse_oracle.jsonl",),
        url="https://github.com/amazon-science/Repoformer",
        by_hand=True,
        note=_NOTE.format(folder="cclongeval"),
    ),
    "repoeval": PublicFile(
        file="python_line_completion_sparse_oracle.jsonl",
        aliases=("python_function_completion_sparse_oracle.jsonl", "python_api_completion_sparse_oracle.jsonl"),
        url="https://github.com/amazon-science/Repoformer",
        by_hand=True,
        note=_NOTE.format(folder="repoeval"),
    ),
}
FUNCTION_TOKENS, LINE_TOKENS = 256, 50
"""New tokens for whole functions, and for lines, API calls and chunks."""


@dataclass(frozen=True)
class CrossFile:
    """Left context, right context, and text of other files behind it, each cut to its share of the window."""

    left: str
    right: str
    cross_file: str
    new_tokens: int

    def parts(self, tokenizer: Any) -> tuple[str, str]:
        def ids(text: str) -> list[int]:
            return formats.encode_text(tokenizer, text)

        room = MAX_TOKENS - self.new_tokens - RIGHT_TOKENS - CROSS_FILE_TOKENS
        left = tokenizer.decode(ids(self.left)[-room:])
        right = tokenizer.decode(ids(self.right)[:RIGHT_TOKENS])
        cross_file = tokenizer.decode(ids("\n\n" + self.cross_file)[:CROSS_FILE_TOKENS])
        return left, right + cross_file

    def text(self, tokenizer: Any) -> str:
        return formats.fim_prompt(*self.parts(tokenizer))

    def encode(self, tokenizer: Any) -> list[int]:
        left, suffix = self.parts(tokenizer)
        return formats.encode_segments(tokenizer, formats.fim_segments(left, None, suffix))


def repository_completion(request: BenchmarkRequest) -> Benchmark:
    path = locate(request, HOMES[request.benchmark])
    function = "function_completion" in path.name
    new_tokens = FUNCTION_TOKENS if function else LINE_TOKENS

    def prompt(row: Row) -> Prompt:
        other = row.get("crossfile_context") or ""
        right = row["right_context"] if "right_context" in row else row["full_right_context"]
        return CrossFile(row["prompt"], right, other if isinstance(other, str) else other["text"], new_tokens)

    return Benchmark(
        name=request.benchmark,
        problems=[
            Problem(id=str(row["metadata"]["task_id"]), prompt=prompt(row), reference=row["groundtruth"], row=row)
            for row in read_rows(path)
        ],
        max_new_tokens=new_tokens,
        stop_tokens=formats.FIM_STOP_TOKENS,
        assemble=lambda problem, text: as_many_lines(text, problem.reference or ""),
        score=_scores,
    )


def as_many_lines(completion: str, reference: str) -> str:
    """Non-blank lines, as many as the reference has."""
    count = sum(bool(line.strip()) for line in reference.split("\n"))
    return "\n".join([line for line in completion.split("\n") if line.strip()][:count])


def code_tokens(code: str) -> list[str]:
    """Words and signs; white space and the kind of quotes count for nothing."""
    code = re.sub(r"([^A-Za-z0-9_])", r" \1 ", code)
    code = re.sub(r"([a-z])([A-Z])", r"\1 \2", code)
    return code.replace('"', "`").replace("'", "`").split()


def _scores(problem: Problem, answer: str) -> dict[str, float]:
    reference = problem.reference or ""
    return {
        "exact_match": float(code_tokens(answer) == code_tokens(reference)),
        "edit_similarity": fuzz_ratio(answer.strip(), reference.strip()),
        "levenshtein_similarity": edit_similarity(answer.strip(), reference.strip()),
    }


SAFIM_FILES = {
    "safim-block": "block_completion.jsonl.gz",
    "safim-control": "control_completion.jsonl.gz",
    "safim-api": "api_completion.jsonl.gz",
}
SAFIM_LANGUAGES = {"python": "python", "java": "java", "cpp": "cpp", "csharp": "csharp"}
HOLE = "{{completion}}"


def safim(request: BenchmarkRequest) -> Benchmark:
    file = SAFIM_FILES[request.benchmark]
    home = PublicFile(
        file=file,
        aliases=(file.replace(".jsonl.gz", "_v2.jsonl.gz"), file.replace(".jsonl.gz", "_fixed.jsonl.gz")),
        url=f"https://huggingface.co/datasets/gonglinyuan/safim/resolve/main/{file}",
    )

    def problem(row: Row) -> Problem:
        prefix, _, suffix = row["eval_prompt"].partition(HOLE)
        return Problem(
            id=row["task_id"],
            prompt=FimPrompt(prefix, suffix),
            task=_safim_task(row),
            reference=row["ground_truth"],
            row=row,
        )

    problems = [problem(row) for row in read_rows(locate(request, home))[: request.limit]]
    executable = all(item.task is not None for item in problems)
    return Benchmark(
        name=request.benchmark,
        problems=problems,
        max_new_tokens=512 if request.benchmark == "safim-block" else 128,
        stop_tokens=formats.FIM_STOP_TOKENS,
        assemble=lambda item, text: item.row["eval_prompt"].replace(HOLE, text) if item.task else text,
        score=None if executable else _same_call,
    )


def _safim_task(row: Row) -> Row | None:
    cases = row.get("unit_tests")
    cases = json.loads(cases) if isinstance(cases, str) else cases
    if not cases:
        return None
    tests = {"cases": [{"stdin": case["input"], "stdout": case["output"][0]} for case in cases]}
    return {
        "id": row["task_id"], "prompt": "", "language": SAFIM_LANGUAGES[row["lang"]], "kind": "stdio",
        "tests": json.dumps(tests), "entry_point": None, "source": "safim", "split": "test",
    }  # fmt: skip


def _same_call(problem: Problem, answer: str) -> dict[str, float]:
    """API calls have no tests: equal but for white space."""
    found, expected = ("".join(text.split()) for text in (answer, problem.reference or ""))
    return {"exact_match": float(found == expected)}
