"""Your own regression prompts as YAML, and Aider-style editing with two tries.

A regression file is a list of entries with `prompt` and one of `expected` (text that the answer must equal), `contains`
(text or texts that it must contain) or `tests` (Python asserts, run with the answer's code); `id`, `entry_point` and
`system` are optional.
"""

from __future__ import annotations

import json
from pathlib import Path

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmark_rows import read_rows
from alignment.evaluation.extraction import extract_code, fenced_blocks
from alignment.evaluation.problem import Benchmark, ChatPrompt, Problem, Row
from alignment.wording import did_you_mean

KEYS = ("id", "prompt", "system", "expected", "contains", "tests", "entry_point", "language")


def regression(request: BenchmarkRequest) -> Benchmark:
    import yaml

    assert request.data is not None
    path = Path(request.data)
    if not path.is_file():
        raise ValueError(f"{request.name}: there is no file {path}")
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path}: expected a list of entries with `prompt` and `tests`, `expected` or `contains`")
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
            raise ValueError(f"{where}: no key {key!r} is known.{did_you_mean(key, KEYS)}")
    if not entry.get("prompt"):
        raise ValueError(f"{where}: no `prompt`")
    ways = [key for key in ("expected", "contains", "tests") if entry.get(key)]
    if len(ways) != 1:
        raise ValueError(f"{where}: give one of `expected`, `contains` and `tests`, not {' and '.join(ways) or 'none'}")
    system = [{"role": "system", "content": entry["system"]}] if entry.get("system") else []
    identity = str(entry.get("id") or number)
    task = None
    if entry.get("tests"):
        task = {
            "id": identity, "prompt": entry["prompt"], "language": entry.get("language", "python"), "kind": "asserts",
            "tests": json.dumps({"code": entry["tests"]}), "entry_point": entry.get("entry_point"),
            "source": "regression", "split": "test",
        }  # fmt: skip
    return Problem(
        id=identity,
        prompt=ChatPrompt((*system, {"role": "user", "content": entry["prompt"]})),
        task=task,
        row=entry,
    )


def _text_score(problem: Problem, answer: str) -> dict[str, float]:
    row = problem.row
    if row.get("tests"):
        return {}
    if row.get("expected"):
        return {"pass": float(answer.strip() == str(row["expected"]).strip())}
    wanted = row["contains"] if isinstance(row["contains"], list) else [row["contains"]]
    return {"pass": float(all(str(text) in answer for text in wanted))}


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
    """Edit a file; a failed try sees its failures once.

    Rows: `id, instructions, file, content, kind, tests, entry_point`.

    The pass rates after one and two tries follow Aider's benchmark (whole-file edits); its Exercism files come from
    https://github.com/Aider-AI/aider and are put into these rows by you.
    """
    assert request.data is not None
    rows = read_rows(request.data)
    for number, row in enumerate(rows, 1):
        for column in ("id", "instructions", "file", "content", "kind", "tests"):
            if column not in row:
                raise ValueError(f"{request.data}, row {number}: no `{column}`; {request.benchmark!r} needs it")
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
    """The last fenced block: the file as it is to be; an answer without one changed nothing."""
    blocks = [content for _, content in fenced_blocks(completion)]
    return blocks[-1] if blocks else str(problem.row["content"])


def _second_try(problem: Problem, completion: str, failures: str) -> Problem:
    from dataclasses import replace

    assert isinstance(problem.prompt, ChatPrompt)
    again = SECOND_TRY.format(failures=failures, file=problem.row["file"])
    turns = ({"role": "assistant", "content": completion}, {"role": "user", "content": again})
    return replace(problem, prompt=ChatPrompt((*problem.prompt.messages, *turns)))
