"""Two benchmarks: regression prompts in the user's YAML file, and editing files with two tries as in Aider's benchmark.

A regression file is a list of entries. Each entry has a `prompt` and one of these: `expected` (text that the answer
must equal), `contains` (one or several texts that the answer must contain), `tests` (Python asserts that run after the
answer's code). `id`, `entry_point`, `language` and `system` are optional.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from alignment.evaluation.answer_blocks import fenced_blocks
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.extraction import extract_code
from alignment.evaluation.problem import Benchmark, ChatPrompt, Problem, Row, task_row
from alignment.rows.reading import read_rows
from alignment.wording import did_you_mean

KEYS = ("id", "prompt", "system", "expected", "contains", "tests", "entry_point", "language")


def regression(request: BenchmarkRequest) -> Benchmark:
    """Load a benchmark from a regression file. The score is `pass`.

    Raises:
        ValueError: the file is missing, or an entry is wrong. The message names the entry.
    """
    assert request.data is not None
    path = Path(request.data)
    if not path.is_file():
        raise ValueError(f"{request.name}: there is no file {path}")
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(
            f"{path} must be a list of entries with `prompt` and one of `tests`, `expected` and `contains`"
        )
    return Benchmark(
        name=request.benchmark,
        problems=[_regression_problem(path, number, entry) for number, entry in enumerate(entries, 1)],
        mode="chat",
        max_new_tokens=1024,
        assemble=lambda problem, text: (
            extract_code(text, entry_point=problem.row.get("entry_point")) if problem.task else text.strip()
        ),
        score=_text_score if any("tests" not in entry for entry in entries) else None,
    )


def _regression_problem(path: Path, number: int, entry: Row) -> Problem:
    where = f"{path}, entry {number}"
    for key in entry:
        if key not in KEYS:
            raise ValueError(f"{where}: unknown key {key!r}.{did_you_mean(key, KEYS)}")
    if not entry.get("prompt"):
        raise ValueError(f"{where}: no `prompt`")
    criteria = [key for key in ("expected", "contains", "tests") if entry.get(key)]
    if len(criteria) != 1:
        raise ValueError(
            f"{where}: give one of `expected`, `contains` and `tests`, not {' and '.join(criteria) or 'none'}"
        )
    system = [{"role": "system", "content": entry["system"]}] if entry.get("system") else []
    task_id = str(entry.get("id") or number)
    task = None
    if entry.get("tests"):
        task = task_row(
            task_id,
            "asserts",
            {"code": entry["tests"]},
            source="regression",
            language=entry.get("language", "python"),
            entry_point=entry.get("entry_point"),
            prompt=entry["prompt"],
        )
    return Problem(
        id=task_id,
        prompt=ChatPrompt((*system, {"role": "user", "content": entry["prompt"]})),
        task=task,
        row=entry,
    )


def _text_score(problem: Problem, answer: str) -> dict[str, float]:
    """Return the score `pass` of an entry without tests, and no score for an entry with tests."""
    row = problem.row
    if row.get("tests"):
        return {}
    if row.get("expected"):
        return {"pass": float(answer.strip() == str(row["expected"]).strip())}
    texts = row["contains"] if isinstance(row["contains"], list) else [row["contains"]]
    return {"pass": float(all(str(text) in answer for text in texts))}


EDIT_REQUEST = (
    "{instructions}\n\n####\n\nUse the above instructions to modify the supplied files: {file}\nDon't change the names "
    "of existing functions or classes, as they may be referenced from other code like unit tests, etc.\nOnly use "
    "standard python libraries, don't suggest installing any packages.\n\n{file}\n```\n{content}\n```\n\n"
    "Answer with the whole file in one fenced block, its name on the line before."
)
SECOND_TRY = (
    "{failures}\n\n####\n\nSee the testing errors above.\nThe tests are correct.\nFix the code in {file} to resolve "
    "the errors.\n"
)


def editing(request: BenchmarkRequest) -> Benchmark:
    """Load a benchmark in which the model edits a whole file.

    After a failure the model sees the errors and tries again.

    The scores are `pass_rate_1` and `pass_rate_2` of Aider's benchmark. Aider's Exercism files are at
    https://github.com/Aider-AI/aider. Convert them to rows `id, instructions, file, content, kind, tests, entry_point`.
    """
    assert request.data is not None
    rows = read_rows(request.data)
    for number, row in enumerate(rows, 1):
        for column in ("id", "instructions", "file", "content", "kind", "tests"):
            if column not in row:
                raise ValueError(
                    f"{request.data}, row {number}: no column `{column}`, which {request.benchmark!r} needs"
                )
    return Benchmark(
        name=request.benchmark,
        problems=[
            Problem(
                id=str(row["id"]),
                prompt=ChatPrompt(({"role": "user", "content": EDIT_REQUEST.format(**row)},)),
                task=row | {"language": row.get("language") or "python"},
                row=row,
            )
            for row in rows
        ],
        mode="chat",
        max_new_tokens=2048,
        assemble=whole_file,
        retry=_second_try,
    )


def whole_file(problem: Problem, completion: str) -> str:
    """Return the new content of the file: the last code block of an answer, or the old content if the answer has no
    code block.
    """
    blocks = [content for _, content in fenced_blocks(completion)]
    return blocks[-1] if blocks else str(problem.row["content"])


def _second_try(problem: Problem, completion: str, failures: str) -> Problem:
    assert isinstance(problem.prompt, ChatPrompt)
    request = SECOND_TRY.format(failures=failures, file=problem.row["file"])
    turns = ({"role": "assistant", "content": completion}, {"role": "user", "content": request})
    return replace(problem, prompt=ChatPrompt((*problem.prompt.messages, *turns)))
