"""Benchmarks on rows of the user: executable tasks, fill-in-the-middle, and left-to-right completion.

Rows are task rows (`id, prompt, language, kind, tests, entry_point, source, split`). Rows for fill-in-the-middle also
have `prefix`, `suffix` and `middle`; the program to run is then prefix + completion + suffix.
"""

from __future__ import annotations

from alignment.evaluation.answer_forms import TEXT_FORMS, form_of, program_of_answer, prompt_of, stop_texts
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.body_end import cut_at_body_end
from alignment.evaluation.problem import Assemble, Benchmark, FimPrompt, Problem, Prompt, Row, TextPrompt
from alignment.evaluation.python_code import trim_continuation
from alignment.evaluation.statistics.text_scores import editor_scores, infilling_scores
from alignment.grading.task import check_gradable
from alignment.models import formats
from alignment.rows.reading import read_rows

PYTHON_STOPS = ("\ndef ", "\nclass ", "\nif __name__", "\nprint(", "\nimport ", "\nfrom ", "\n@", "\nassert ")


_COLUMNS = {
    "tasks": ("id", "prompt", "kind", "tests"),
    "fim": ("id", "prefix", "suffix", "middle"),
    "fim-body": ("id", "prefix", "suffix", "middle"),
    "editor": ("id", "prefix", "suffix", "middle"),
    "completion": ("id", "prefix"),
}
_TEXTS = ("prompt", "prefix", "suffix", "middle")


def check_row(row: Row, benchmark: str, where: str) -> None:
    """Raise ValueError if a benchmark of this module can't use a row.

    Args:
        row: a row as it was read.
        benchmark: name of a benchmark in `_COLUMNS`.
        where: file and row number, put in front of the error.
    """
    missing = [column for column in _COLUMNS[benchmark] if row.get(column) is None]
    if missing:
        raise ValueError(f"{where}: no column `{missing[0]}`, which {benchmark!r} needs")
    for column in _TEXTS:
        if row.get(column) is not None and not isinstance(row[column], str):
            raise ValueError(f"{where}: `{column}` must be text, not {type(row[column]).__name__}")
    if benchmark == "tasks":
        form_of(row, where)
    if row.get("kind") and row.get("tests"):
        check_gradable(row, where)


def rows_of(request: BenchmarkRequest) -> list[Row]:
    """Read the rows of a request. Raise ValueError if a row is not valid for the benchmark."""
    assert request.data is not None
    rows = read_rows(request.data)
    for number, row in enumerate(rows, 1):
        check_row(row, request.benchmark, f"{request.data}, row {number}")
    return rows


def tasks(request: BenchmarkRequest) -> Benchmark:
    """Load executable tasks, in the answer form of the rows (`alignment.evaluation.answer_forms`).

    Prompts of the forms `function` and `body` are a user's message in chat mode (the default) and plain text in base
    mode. The forms `continuation` and `fim` have base prompts only.
    """
    rows = rows_of(request)
    forms = {form_of(row) for row in rows}
    as_text = bool(forms & set(TEXT_FORMS))
    if len({form in TEXT_FORMS for form in forms}) > 1:
        raise ValueError(
            f"{request.data}: answer forms {', '.join(sorted(forms))} can't be measured together: split the file"
        )
    if as_text and request.mode == "chat":
        raise ValueError(
            f"{request.name}: rows with `answer: {sorted(forms)[0]}` have base prompts only: remove `mode`"
        )
    chat = request.mode != "base" and not as_text

    def prompt(row: Row) -> Prompt:
        return prompt_of(row) if chat or as_text else TextPrompt(row["prompt"])

    return Benchmark(
        name="tasks",
        problems=[
            Problem(id=str(row["id"]), prompt=prompt(row), task=row, row=row, stop=stop_texts(row)) for row in rows
        ],
        mode="chat" if chat else "base",
        max_new_tokens=512 if as_text else 1024,
        stop_tokens=formats.FIM_STOP_TOKENS if as_text else (),
        assemble=lambda problem, completion: program_of_answer(problem.row, completion),
        stop_rate=as_text,
    )


def fim(request: BenchmarkRequest) -> Benchmark:
    """Load fill-in-the-middle rows, with prefix-suffix-middle prompts.

    For a row with tests, the program contains the completion exactly as it was generated.
    """
    return _fim(request, "fim", _filled_in)


def fim_body(request: BenchmarkRequest) -> Benchmark:
    """Load the same rows as `fim`. Completions are cut where the function body ends."""
    return _fim(request, "fim-body", _filled_in_body)


def _fim(request: BenchmarkRequest, name: str, assemble: Assemble) -> Benchmark:
    base_only(request)
    rows = rows_of(request)
    return Benchmark(
        name=name,
        problems=[_infilling(row, FimPrompt(row["prefix"], row["suffix"])) for row in rows],
        max_new_tokens=512,
        stop_tokens=formats.FIM_STOP_TOKENS,
        assemble=assemble,
        score=editor_scores,
        stop_rate=True,
    )


def _filled_in(problem: Problem, text: str) -> str:
    return problem.row["prefix"] + text + problem.row["suffix"] if problem.task else text


def _filled_in_body(problem: Problem, text: str) -> str:
    return _filled_in(problem, cut_at_body_end(problem.row["prefix"], text, problem.row.get("language") or "python"))


def completion(request: BenchmarkRequest) -> Benchmark:
    """Load tasks in which the model continues the prefix. The program to run is prefix + completion + suffix."""
    base_only(request)

    def assemble(problem: Problem, text: str) -> str:
        row = problem.row
        if problem.task is None:
            return text
        if (row.get("language") or "python") == "python":
            text = trim_continuation(row["prefix"], text)
        suffix = row.get("suffix") or ""
        gap = "\n" if suffix and not text.endswith("\n") and not suffix.startswith("\n") else ""
        return row["prefix"] + text + gap + suffix

    rows = rows_of(request)
    problems = [_infilling(row, TextPrompt(row["prefix"])) for row in rows]
    return Benchmark(
        name="completion",
        problems=problems,
        max_new_tokens=512,
        stop=PYTHON_STOPS if all((row.get("language") or "python") == "python" for row in rows) else (),
        stop_tokens=formats.FIM_STOP_TOKENS,
        assemble=assemble,
        score=infilling_scores if all(problem.reference is not None for problem in problems) else None,
    )


def _infilling(row: Row, prompt: Prompt) -> Problem:
    """Return a problem whose reference is the row's `middle`. It has a task if the row has tests."""
    executable = row.get("tests") and row.get("kind")
    return Problem(
        id=str(row["id"]), prompt=prompt, task=row if executable else None, reference=row.get("middle"), row=row
    )


def base_only(request: BenchmarkRequest) -> None:
    """Raise ValueError if a request sets the mode `chat`, which the benchmark does not have."""
    if request.mode == "chat":
        raise ValueError(f"{request.name}: {request.benchmark!r} has base prompts only: remove `mode`")
