"""Completion inside repositories (CrossCodeEval, CrossCodeLongEval, RepoEval), and syntax-aware infilling (SAFIM).

Repository completion uses the prompts of `qwencoder-eval/base/benchmarks/fim-bench`. A prompt and its completion have
at most 8192 tokens together: at most 2048 for the code after the hole, at most 2048 for text from other files, which
follows that code, and the rest for the code before the hole and the completion. The scores are exact match of code
tokens and edit similarity. They compare the first lines of the completion, as many non-blank lines as the reference
has. (The harness cuts completions of whole functions by their syntax tree. Here, all completions are cut by the number
of lines.)

SAFIM (Gong et al., 2024, arXiv 2403.04814) uses prefix-suffix-middle prompts. Its programs are made from `eval_prompt`
and run on input and output cases. SAFIM's truncation by syntax is not implemented.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from alignment.evaluation.benchmark_files import PublicFile, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.problem import Benchmark, FimPrompt, Problem, Prompt, Row, task_row
from alignment.evaluation.statistics.text_scores import edit_similarity, fuzz_ratio
from alignment.models import formats
from alignment.rows.reading import read_rows

MAX_TOKENS, RIGHT_TOKENS, CROSS_FILE_TOKENS = 8192, 2048, 2048
_NOTE = (
    "Prepare it as qwencoder-eval/base/benchmarks/fim-bench/{folder}/prepare_data.sh does: rows with prompt, "
    "groundtruth, right_context, crossfile_context and metadata.task_id."
)
FILES = {
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
"""Largest number of new tokens: for whole functions, and for lines, API calls and chunks."""


@dataclass(frozen=True)
class CrossFilePrompt:
    """A FIM prompt with text of other files at the end of the suffix. Each part is cut to a token limit."""

    left: str
    """Text before the hole."""
    right: str
    """Text after the hole."""
    cross_file: str
    """Text of other files."""
    new_tokens: int

    def parts(self, tokenizer: Any) -> tuple[str, str]:
        """Return the prefix and the suffix of the FIM prompt, each cut to its token limit."""

        def ids(text: str) -> list[int]:
            return formats.encode_text(tokenizer, text)

        left_tokens = MAX_TOKENS - self.new_tokens - RIGHT_TOKENS - CROSS_FILE_TOKENS
        left = tokenizer.decode(ids(self.left)[-left_tokens:])
        right = tokenizer.decode(ids(self.right)[:RIGHT_TOKENS])
        cross_file = tokenizer.decode(ids("\n\n" + self.cross_file)[:CROSS_FILE_TOKENS])
        return left, right + cross_file

    def text(self, tokenizer: Any) -> str:
        return formats.fim_prompt(*self.parts(tokenizer))

    def encode(self, tokenizer: Any) -> list[int]:
        left, suffix = self.parts(tokenizer)
        return formats.encode_segments(tokenizer, formats.fim_segments(left, None, suffix))


def repository_completion(request: BenchmarkRequest) -> Benchmark:
    """Load CrossCodeEval, CrossCodeLongEval or RepoEval, depending on the name of the benchmark."""
    path = locate(request, FILES[request.benchmark])
    function = "function_completion" in path.name
    new_tokens = FUNCTION_TOKENS if function else LINE_TOKENS

    def prompt(row: Row) -> Prompt:
        cross_file = row.get("crossfile_context") or ""
        right = row["right_context"] if "right_context" in row else row["full_right_context"]
        return CrossFilePrompt(
            row["prompt"], right, cross_file if isinstance(cross_file, str) else cross_file["text"], new_tokens
        )

    return Benchmark(
        name=request.benchmark,
        problems=[
            Problem(id=str(row["metadata"]["task_id"]), prompt=prompt(row), reference=row["groundtruth"], row=row)
            for row in read_rows(path)
        ],
        max_new_tokens=new_tokens,
        stop_tokens=formats.FIM_STOP_TOKENS,
        assemble=lambda problem, text: first_lines(text, problem.reference or ""),
        score=_scores,
    )


def first_lines(completion: str, reference: str) -> str:
    """Return the first non-blank lines of a completion, as many as the reference has."""
    count = sum(bool(line.strip()) for line in reference.split("\n"))
    return "\n".join([line for line in completion.split("\n") if line.strip()][:count])


def code_tokens(code: str) -> list[str]:
    """Split code into words and signs. White space is ignored, and all kinds of quotes count as equal."""
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
    """Load one of the three parts of SAFIM."""
    file = SAFIM_FILES[request.benchmark]
    source = PublicFile(
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

    problems = [problem(row) for row in read_rows(locate(request, source))[: request.limit]]
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
    """Return the test cases of a row as a task, or None for API calls, which have no test cases."""
    cases = row.get("unit_tests")
    cases = json.loads(cases) if isinstance(cases, str) else cases
    if not cases:
        return None
    tests = {"cases": [{"stdin": case["input"], "stdout": case["output"][0]} for case in cases]}
    return task_row(row["task_id"], "stdio", tests, source="safim", language=SAFIM_LANGUAGES[row["lang"]])


def _same_call(problem: Problem, answer: str) -> dict[str, float]:
    """Return score 1 if two API calls are equal except for white space, else 0."""
    call, expected = ("".join(text.split()) for text in (answer, problem.reference or ""))
    return {"exact_match": float(call == expected)}
