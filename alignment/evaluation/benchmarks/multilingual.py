"""McEval (write a function) and MdEval (repair a function) in many languages.

Instructions and tests come from the rows. `data` is a folder of LANGUAGE.jsonl files, or one such file. A language is
skipped with a warning if its tests need a project (Go with testify, Rust with crates) or the sandbox has no toolchain
for it.
"""

from __future__ import annotations

import re
from pathlib import Path

from alignment.evaluation.benchmark_files import PublicFile
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.extraction import extract_code
from alignment.evaluation.problem import Benchmark, ChatPrompt, Problem, Row, task_row
from alignment.logs import get_logger
from alignment.rows.reading import read_rows

logger = get_logger(__name__)

LANGUAGES = {
    "Python": "python", "CPP": "cpp", "Java": "java", "JavaScript": "javascript", "Shell": "bash", "Lua": "lua",
    "Ruby": "ruby",
}  # fmt: skip
FOLDERS = {
    "mceval": PublicFile(file="mceval", url="https://huggingface.co/datasets/Multilingual-Multimodal-NLP/McEval"),
    "mdeval": PublicFile(file="mdeval", url="https://huggingface.co/datasets/Multilingual-Multimodal-NLP/MDEVAL"),
}
JAVASCRIPT_ASSERT = (
    "console.assert = (condition, ...message) => { if (!condition) { throw new Error(message.join(' ')); } };\n"
)
"""Code that makes a failed `console.assert` raise an error. Without it, Node only prints a message."""


def multilingual(request: BenchmarkRequest) -> Benchmark:
    """Load McEval or MdEval, depending on the name of the benchmark."""
    if request.data is None:
        url = FOLDERS[request.benchmark].url
        raise ValueError(f"{request.name}: get its files from {url} and name their folder with `data:`")
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
            f"{request.name}: there are no LANGUAGE.jsonl files in {path}; get them from {FOLDERS[request.benchmark].url}"
        )
    left_out = sorted(file.stem for file in files if file.stem not in LANGUAGES)
    if len(left_out) == len(files):
        raise ValueError(f"{request.name}: {path} has no file of a supported language: {', '.join(LANGUAGES)}")
    if left_out:
        logger.warning("%s: these languages are not supported and skipped: %s", request.name, ", ".join(left_out))
    return [(file.stem, row) for file in files for row in read_rows(file)]


def _problem(language: str, row: Row) -> Problem:
    python = language == "Python"
    task_id = row.get("task_id") or row["question_id"]
    entry_point = row.get("entry_point") or None
    tests = {"marker": True} if language != "Java" else {}
    return Problem(
        id=task_id,
        prompt=ChatPrompt(({"role": "user", "content": row["instruction"]},)),
        task=task_row(
            task_id,
            "program",
            tests,
            source="mdeval" if "buggy_code" in row else "mceval",
            language=LANGUAGES[language],
            entry_point=None if python else entry_point,
            prompt=row["instruction"],
        ),
        row=row | {"language": language},
    )


def assemble(problem: Problem, completion: str) -> str:
    """Join the code of an answer and the tests into one program.

    If the answer has only the function's body, the row's prompt is put before the body.
    """
    row, language = problem.row, problem.row["language"]
    entry_point = row.get("entry_point") or None
    code = extract_code(completion, language=LANGUAGES[language], entry_point=entry_point)
    if entry_point and entry_point not in code and row.get("prompt"):
        code = row["prompt"] + "\n" + code
    return join_tests(language, code, row)


def join_tests(language: str, code: str, row: Row) -> str:
    """Join code and tests into one program."""
    head = _head(row.get("prompt") or row["buggy_code"], code, language)
    if language == "JavaScript":
        return f"{JAVASCRIPT_ASSERT}{head}{code}\n{row['test']}"
    if language == "Java" and row["test"].count("}") > row["test"].count("{"):  # the tests close the class
        return f"{head}{code.rstrip().removesuffix('}') if code.count('{') == code.count('}') else code}\n{row['test']}"
    test = row["test"]
    if language == "CPP":  # without a final `return`, the grader can append code that proves that all tests ran
        test = re.sub(r"\breturn\s+0\s*;\s*\}\s*$", "}\n", test)
    return f"{head}{code}\n{test}"


def _head(prompt: str, code: str, language: str) -> str:
    """Return the import lines of the prompt that are missing in the code."""
    starts = {"CPP": ("#include", "using "), "Java": ("import ",), "Python": ("import ", "from ")}.get(language, ())
    lines = [line for line in prompt.split("\n") if starts and line.startswith(starts)]
    return "".join(f"{line}\n" for line in lines if line not in code)
