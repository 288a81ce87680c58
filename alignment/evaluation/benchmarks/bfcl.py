"""Rows of the Berkeley Function Calling Leaderboard (BFCL, package `bfcl-eval`) for the benchmark `tools`.

The categories whose answers are calls of Python functions are read: `simple`, `multiple`, `parallel` and
`parallel_multiple`, also of the live data, and `irrelevance`, whose right answer calls nothing. A file has the questions;
the folder `possible_answer` beside it has the answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from alignment.evaluation.function_calling_check import calls_match, tool_of
from alignment.evaluation.problem import ChatPrompt, Problem, Row
from alignment.evaluation.written_calls import calls_in

CATEGORIES = ("simple_python", "multiple", "parallel", "parallel_multiple")
"""Categories that are read if a folder is named."""
_FILE = re.compile(
    r"BFCL_v\d+_((?:live_)?(?:simple|simple_python|multiple|parallel|parallel_multiple|irrelevance))\.json"
)
_ANY_FILE = re.compile(r"BFCL_v\d+_\w+\.json")


def is_bfcl(path: Path) -> bool:
    """Whether a path is a file of BFCL, or a folder with such files."""
    if path.is_dir():
        return any(_ANY_FILE.fullmatch(item.name) for item in path.iterdir())
    return _ANY_FILE.fullmatch(path.name) is not None


def problems(path: Path) -> list[Problem]:
    """Return the problems of a file, or of the files of `CATEGORIES` in a folder.

    Raises:
        ValueError: the category of the file is not supported, or its answers are missing.
    """
    if not path.is_dir():
        return list(_file_problems(path))
    files = {_category(item): item for item in sorted(path.iterdir()) if _FILE.fullmatch(item.name)}
    missing = [category for category in CATEGORIES if category not in files]
    if missing:
        raise ValueError(
            f"{path} has no file of the category {missing[0]}: name the folder `data` of the package bfcl-eval"
        )
    return [problem for category in CATEGORIES for problem in _file_problems(files[category])]


def _category(path: Path) -> str:
    match = _FILE.fullmatch(path.name)
    if match is None:
        raise ValueError(
            f"{path}: only categories with calls of Python functions can be measured: simple, multiple, parallel, "
            "parallel_multiple and irrelevance"
        )
    return match[1]


def _file_problems(path: Path) -> Iterator[Problem]:
    category = _category(path)
    answers: dict[str, Row] = {}
    if "irrelevance" not in category:
        place = path.parent / "possible_answer" / path.name
        if not place.is_file():
            raise ValueError(f"{path}: the answers are missing: {place}")
        answers = {row["id"]: row for row in _rows(place)}
    for row in _rows(path):
        if row["id"] not in answers and "irrelevance" not in category:
            raise ValueError(f"{path}: {row['id']} has no answer in {path.parent / 'possible_answer'}")
        if len(row["question"]) != 1:
            raise ValueError(f"{path}: {row['id']} has several turns, which this benchmark does not measure")
        tools = [tool_of(function) for function in row["function"]]
        truth = answers.get(row["id"], {}).get("ground_truth", [])
        yield Problem(
            id=row["id"],
            prompt=ChatPrompt(tuple(row["question"][0]), tools=tuple(tools)),
            reference=json.dumps(truth, ensure_ascii=False),
            row={"functions": row["function"], "tools": tools, "category": category, "messages": row["question"][0]},
        )


def _rows(path: Path) -> list[Row]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise ValueError(f"{path} is not JSON Lines: {error}") from None


def scores(problem: Problem, completion: str) -> dict[str, float]:
    """Score a completion: `ast_check` and the same score under the name of the category, each 0 or 1.

    A completion with a call of a wrong form fails. For `irrelevance`, a completion without calls passes.
    """
    calls = calls_in(completion)
    right = calls is not None and calls_match(calls, problem.row["functions"], json.loads(problem.reference or "[]"))
    return {"ast_check": float(right), f"ast_check_{problem.row['category']}": float(right)}
