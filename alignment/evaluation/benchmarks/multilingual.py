"""McEval (write a function) and MdEval (repair one), asked by the rows' own instructions, graded with their own tests.

`mceval` and `mdeval` take a folder of LANGUAGE.jsonl files or one of them. Languages whose tests need a project around
them (Go with testify, Rust with crates) or have no toolchain here are named in a warning and left out.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from alignment.evaluation.benchmark_files import PublicFile
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmark_rows import read_rows
from alignment.evaluation.extraction import extract_code
from alignment.evaluation.problem import Benchmark, ChatPrompt, Problem, Row

logger = logging.getLogger(__name__)

LANGUAGES = {
    "Python": "python", "CPP": "cpp", "Java": "java", "JavaScript": "javascript", "Shell": "bash", "Lua": "lua",
    "Ruby": "ruby",
}  # fmt: skip
HOMES = {
    "mceval": PublicFile(file="mceval", url="https://huggingface.co/datasets/Multilingual-Multimodal-NLP/McEval"),
    "mdeval": PublicFile(file="mdeval", url="https://huggingface.co/datasets/Multilingual-Multimodal-NLP/MDEVAL"),
}
JAVASCRIPT_ASSERT = (
    "console.assert = (condition, ...message) => { if (!condition) { throw new Error(message.join(' ')); } };\n"
)
"""Node's own only prints, and the program would end well."""


def multilingual(request: BenchmarkRequest) -> Benchmark:
    home = HOMES[request.benchmark]
    if request.data is None:
        raise ValueError(f"{request.name}: get its files from {home.url} and name their folder with `data:`")
    rows = [(language, row) for language, row in _rows(Path(request.data), request) if language in LANGUAGES]
    return Benchmark(
        name=request.benchmark,
        problems=[_problem(language, row) for language, row in rows],
        mode="chat",
        max_new_tokens=2048,
        assemble=assemble,
    )


def _rows(path: Path, request: BenchmarkRequest) -> list[tuple[str, Row]]:
    if (path / request.benchmark).is_dir():
        path = path / request.benchmark
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise ValueError(
            f"{request.name}: no LANGUAGE.jsonl files at {path}; get them from {HOMES[request.benchmark].url}"
        )
    left_out = sorted(file.stem for file in files if file.stem not in LANGUAGES)
    if len(left_out) == len(files):
        raise ValueError(f"{request.name}: {path} has no file of a language that is graded: {', '.join(LANGUAGES)}")
    if left_out:
        logger.warning("%s: not graded here, left out: %s", request.name, ", ".join(left_out))
    return [(file.stem, row) for file in files for row in read_rows(file)]


def _problem(language: str, row: Row) -> Problem:
    python = language == "Python"
    identity = row.get("task_id") or row["question_id"]
    entry_point = row.get("entry_point") or None
    whole = {"marker": True} if language != "Java" else {}
    return Problem(
        id=identity,
        prompt=ChatPrompt(({"role": "user", "content": row["instruction"]},)),
        task={
            "id": identity,
            "prompt": row["instruction"],
            "language": LANGUAGES[language],
            "kind": "program",
            "tests": json.dumps(whole),
            "entry_point": None if python else entry_point,
            "source": "mdeval" if "buggy_code" in row else "mceval",
            "split": "test",
        },
        row=row | {"language": language},
    )


def assemble(problem: Problem, completion: str) -> str:
    """The answer's code, behind the prompt where it is only the body, and the tests."""
    row, language = problem.row, problem.row["language"]
    entry_point = row.get("entry_point") or None
    code = extract_code(completion, language=LANGUAGES[language], entry_point=entry_point)
    if entry_point and entry_point not in code and row.get("prompt"):
        code = row["prompt"] + "\n" + code
    return join(language, code, row)


def join(language: str, code: str, row: Row) -> str:
    """Code and tests as one program."""
    head = _head(row.get("prompt") or row["buggy_code"], code, language)
    if language == "JavaScript":
        return f"{JAVASCRIPT_ASSERT}{head}{code}\n{row['test']}"
    if language == "Java" and row["test"].count("}") > row["test"].count("{"):  # the tests close the class
        return f"{head}{code.rstrip().removesuffix('}') if code.count('{') == code.count('}') else code}\n{row['test']}"
    test = row["test"]
    if language == "CPP":  # nothing can come behind a `return` at the end: the proof that all tests ran would be lost
        test = re.sub(r"\breturn\s+0\s*;\s*\}\s*$", "}\n", test)
    return f"{head}{code}\n{test}"


def _head(prompt: str, code: str, language: str) -> str:
    """Imports of the prompt that an answer need not repeat."""
    starts = {"CPP": ("#include", "using "), "Java": ("import ",), "Python": ("import ", "from ")}.get(language, ())
    lines = [line for line in prompt.split("\n") if starts and line.startswith(starts)]
    return "".join(f"{line}\n" for line in lines if line not in code)
