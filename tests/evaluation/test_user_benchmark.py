"""Benchmarks of the user's own code: the example end to end, and errors that name file, line and function."""

import json
import math
import shutil
from pathlib import Path

import pytest

from alignment.evaluation import BenchmarkRequest, evaluate, grade_completions
from alignment.evaluation import catalogue as benchmarks
from alignment.evaluation.benchmark_request import parse_request
from alignment.evaluation.engines.transformers_engine import TransformersEngine
from alignment.extensions import ExtensionError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "benchmark.py"
HEAD = "from alignment.evaluation import Benchmark, ChatPrompt, Problem, TextPrompt\n"


def test_the_example_runs_on_a_model(tiny_checkpoint, tmp_path, grader):
    entries = [
        {"benchmark": f"{EXAMPLE}:functions", "max_new_tokens": 8},
        {"benchmark": f"{EXAMPLE}:functions", "name": "base", "mode": "base", "max_new_tokens": 8},
        {"benchmark": f"{EXAMPLE}:Questions", "max_new_tokens": 8},
    ]
    figures = evaluate(tiny_checkpoint, entries, tmp_path / "out", dtype="float32")
    assert [(figure["benchmark"], figure["metric"], figure["n"]) for figure in figures] == [
        ("functions", "pass@1", 2), ("base", "pass@1", 2), ("Questions", "exact_match", 2), ("Questions", "contains", 2),
    ]  # fmt: skip
    assert all(figure["errors"] == 0 for figure in figures)


def test_right_answers_to_the_example_pass(write_rows, tmp_path, grader):
    answers = {
        "clamp": "```python\ndef clamp(x, low, high):\n    return max(low, min(x, high))\n```",
        "initials": "```python\ndef initials(name):\n    return name[:1].upper()\n```",
    }
    file = write_rows([{"task_id": name, "completion": text} for name, text in answers.items()], "s.jsonl")
    (document,) = grade_completions(file, tmp_path / "out", benchmark=f"{EXAMPLE}:functions")
    assert document["verdicts"] == {"clamp": "passed", "initials": "failed"}
    questions = benchmarks.load(BenchmarkRequest(f"{EXAMPLE}:Questions"))
    first, second = questions.problems
    assert questions.score(first, questions.assemble(first, " `.py`\n")) == {"exact_match": 1.0, "contains": 1.0}
    assert questions.score(second, questions.assemble(second, "`len()` does.")) == {"exact_match": 0.0, "contains": 1.0}


def test_the_example_takes_rows_and_a_limit(write_rows):
    rows = write_rows([{"id": str(number), "question": "q", "answer": "a"} for number in range(5)])
    loaded = benchmarks.load(BenchmarkRequest(f"{EXAMPLE}:Questions", data=str(rows), limit=3, n=2, temperature=0.5))
    assert (len(loaded.problems), loaded.n, loaded.temperature, loaded.name) == (3, 2, 0.5, "Questions")


def test_an_edited_benchmark_is_measured_anew(tiny_checkpoint, tmp_path, monkeypatch):
    file = Path(shutil.copy(EXAMPLE, tmp_path / "mine.py"))
    entry = {"benchmark": f"{file}:Questions", "max_new_tokens": 4}
    evaluate(tiny_checkpoint, [entry], tmp_path / "out", dtype="float32")
    generated = []
    generate = TransformersEngine.generate
    monkeypatch.setattr(
        TransformersEngine, "generate", lambda self, jobs: generated.extend(jobs) or generate(self, jobs)
    )
    evaluate(tiny_checkpoint, [entry], tmp_path / "out", dtype="float32")
    assert generated == []
    file.write_text(file.read_text() + "\n# edited\n")
    evaluate(tiny_checkpoint, [entry], tmp_path / "out", dtype="float32")
    assert len(generated) == 2


@pytest.mark.parametrize(
    ("word", "benchmark", "data", "name"),
    [
        ("my_bench.py:Tasks", "my_bench.py:Tasks", None, "Tasks"),
        ("../a b/my_bench.py:Tasks:rows/x.jsonl", "../a b/my_bench.py:Tasks", "rows/x.jsonl", "Tasks"),
        ("package.module:Tasks", "package.module:Tasks", None, "Tasks"),
        ("fim:held-out.jsonl", "fim", "held-out.jsonl", "held-out"),
        ("fim:rows", "fim", "rows", "rows"),
    ],
)
def test_a_benchmark_argument_is_parsed_into_code_rows_and_name(word, benchmark, data, name):
    request = parse_request(word)
    assert (request.benchmark, request.data, request.name) == (benchmark, data, name)


def test_a_module_on_the_python_path_is_loaded(tmp_path, monkeypatch):
    shutil.copy(EXAMPLE, tmp_path / "benchmark_of_a_module.py")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = benchmarks.load(BenchmarkRequest("benchmark_of_a_module:Questions"))
    assert len(loaded.problems) == 2 and len(loaded.source_digest) == 64


def test_texts_of_problems_without_a_row_are_known_to_decontamination(tmp_path):
    file = write(tmp_path, "def f(request):\n    return Benchmark('x', [Problem('a', TextPrompt('how?'), reference='so')], 1,\n"
                 "                     score=lambda p, a: {'s': 1.0})\n")  # fmt: skip
    (problem,) = benchmarks.load(BenchmarkRequest(f"{file}:f")).problems
    assert problem.row == {"prompt": "how?", "canonical_solution": "so"}


def write(folder, code):
    file = folder / "mine.py"
    file.write_text(HEAD + code)
    return file


def problem_of(code):
    return f"def f(request):\n    return Benchmark('x', [{code}], 8, score=lambda p, a: {{'s': 1.0}})\n"


FINE = "Problem('a', TextPrompt('p'))"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def g(request): ...\n", r"mine\.py defines no 'f'"),
        ("f = 3\n", "f is 3: it must be a function or class"),
        ("def f(request):\n    return 1 / 0\n", r"mine\.py:3: f: f\(request\) raised ZeroDivisionError"),
        ("def f(): ...\n", r"mine\.py: f: f\(request\) raised TypeError"),
        ("def f(request): ...\n", r"mine\.py:2: f returned None without `problems`"),
        ("class f:\n    problems = []\n    def __init__(self, request): ...\n", "without `max_new_tokens`"),
        (f"def f(request):\n    return Benchmark('x', [{FINE}], '8')\n", r"mine\.py:2: f: max_new_tokens is '8'"),
        (f"def f(request):\n    return Benchmark('x', [{FINE}], 8, stop='\\n')\n", "stop is '.*it must be a tuple"),
        (f"def f(request):\n    return Benchmark('x', [{FINE}], 8, mode='talk')\n", "mode is 'talk'"),
        (
            f"def f(request):\n    return Benchmark('x', [{FINE}], 8)\n",
            "problem 'a' has no `task`.*nothing measures",
        ),
        (
            f"def f(request):\n    return Benchmark('x', [{FINE}], 8, least_limits={{'cpu': 3}})\n",
            "least_limits is a dict",
        ),
        (problem_of("'p'"), "problem 1 is 'p': it must be a Problem"),
        (problem_of("Problem('a', 'p')"), "its prompt is 'p': it must be a TextPrompt"),
        (problem_of("Problem(3, TextPrompt('p'))"), "its id is 3"),
        (
            problem_of("Problem('a', TextPrompt('p'), task={'kind': 'calls'})"),
            "task cannot be graded: it has no 'tests'",
        ),
        (
            problem_of("Problem('a', TextPrompt('p'), task={'kind': 'quiz', 'tests': {}})"),
            "task cannot be graded: unknown kind of task 'quiz'",
        ),
        (problem_of(f"{FINE}, {FINE}"), "two tasks have the id 'a'"),
        ("import no_such_module\n", r"mine\.py:2: <module>: importing the file raised ModuleNotFoundError"),
        ("def f(request)\n", r"mine\.py:2"),
    ],
)
def test_what_is_wrong_with_a_benchmark_is_named_with_its_place(tmp_path, code, message):
    file = write(tmp_path, code)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        benchmarks.load(BenchmarkRequest(f"{file}:f"))


@pytest.mark.parametrize(
    ("method", "body", "message"),
    [
        ("assemble", "return None", r"mine\.py:10: f\.assemble returned None for problem 'a'"),
        ("assemble", "return problem.row['no']", r"mine\.py:11: assemble: assemble of problem 'a' raised KeyError"),
        ("score", "return 1.0", r"mine\.py:13: f\.score returned 1\.0 for problem 'a': it must return a dict"),
        ("score", "return {'s': float('nan')}", r"mine\.py:13: f\.score returned s = nan for problem 'a'"),
        ("score", "return {'s': 87.5}", "returned s = 87.5 .* a number from 0 to 1"),
        ("score", "return {'s': '1'}", "returned s = '1'"),
        ("score", "return {3: 1.0}", "returned a dict"),
        ("score", "return {}", "returned no score for problem 'a'"),
        (
            "score",
            "raise RuntimeError('no model')",
            r"mine\.py:14: score: score of problem 'a' raised RuntimeError: no",
        ),
        ("retry", "return problem.id", "returned 'a' for problem 'a': it must return a Problem"),
    ],
)
def test_what_is_wrong_with_a_method_is_named_with_its_place(tmp_path, method, body, message):
    bodies = {"assemble": "return completion", "score": "return {'s': 1}", "retry": "return problem"} | {method: body}
    code = f"""
class f:
    max_new_tokens = 8

    def __init__(self, request):
        self.problems = [{FINE}]


    def assemble(self, problem, completion):
        {bodies["assemble"]}

    def score(self, problem, answer):
        {bodies["score"]}

    def retry(self, problem, completion, failures):
        {bodies["retry"]}
"""
    loaded = benchmarks.load(BenchmarkRequest(f"{write(tmp_path, code)}:f"))
    (problem,) = loaded.problems
    with pytest.raises(ExtensionError, match=message):
        assert loaded.score(problem, loaded.assemble(problem, "c")) == {"s": 1.0}
        loaded.retry(problem, "c", "failed")


def test_scores_may_be_any_kind_of_number(tmp_path):
    code = "import numpy\n" + problem_of(FINE).replace("{'s': 1.0}", "{'a': True, 'b': numpy.float32(0.5), 'c': 0}")
    loaded = benchmarks.load(BenchmarkRequest(f"{write(tmp_path, code)}:f"))
    scores = loaded.score(loaded.problems[0], "x")
    assert scores == {"a": 1.0, "b": 0.5, "c": 0.0}
    assert all(type(value) is float and math.isfinite(value) for value in scores.values())
    assert json.dumps(scores)
