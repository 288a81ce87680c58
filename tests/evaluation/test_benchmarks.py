"""Loading of benchmarks, with the public rows if they are available, or else with rows of the same schema."""

import base64
import json
import pickle
import zlib

import pytest

from alignment.evaluation import catalogue
from alignment.evaluation.benchmark_files import PublicFile, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks import contests, math_answers, multilingual, multipl_e, repository_completion
from alignment.evaluation.benchmarks.multipl_e_chat import chat_code
from alignment.evaluation.problem import Problem, TextPrompt


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("humaneval-infilling-single-line", 1033),
        ("humaneval-infilling-multi-line", 5815),
        ("humaneval-infilling-random-span", 164),
        ("cruxeval-output-cot", 800),
        ("gsm8k", 1319),
    ],
)
def test_real_rows_load(data_dir, name, count):
    assert len(catalogue.load(BenchmarkRequest(name, data=str(data_dir / "benchmarks"))).problems) == count


@pytest.mark.parametrize(("name", "languages"), [("mceval", 7), ("mdeval", 4)])
def test_multilingual_rows_load(data_dir, name, languages):
    problems = catalogue.load(BenchmarkRequest(name, data=str(data_dir / "benchmarks" / name))).problems
    assert len({problem.row["language"] for problem in problems}) == languages


def test_gsm8k_solutions_of_the_rows_score_1(data_dir):
    benchmark = catalogue.load(BenchmarkRequest("gsm8k", data=str(data_dir / "benchmarks")))
    for problem in benchmark.problems:
        answer = benchmark.assemble(problem, problem.row["answer"])
        assert benchmark.score(problem, answer) == {"accuracy": 1.0}


@pytest.mark.parametrize(
    ("completion", "expected"),
    [("so \\boxed{1{,}234} it is", "1{,}234"), ("#### 1,234\nQ", "1,234"), ("that makes 12 apples.", "12"), ("", "")],
)
def test_final_answers(completion, expected):
    assert math_answers.final_answer(completion, "#### ", numbers=True) == expected


LIVE = {
    "question_id": "q", "question_content": "Add.", "starter_code": "", "contest_date": "2024-08-10T00:00:00",
    "metadata": "{}", "public_test_cases": json.dumps([{"input": "1 2", "output": "3", "testtype": "stdin"}]),
}  # fmt: skip


def packed(value):
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def test_livecodebench_unpacks_its_private_cases(write_rows):
    row = LIVE | {"private_test_cases": packed(json.dumps([{"input": "4 5", "output": "9", "testtype": "stdin"}]))}
    benchmark = catalogue.load(BenchmarkRequest("livecodebench@2024-07..2024-09", data=str(write_rows([row]))))
    cases = json.loads(benchmark.problems[0].task["tests"])["cases"]
    assert [case["stdout"] for case in cases] == ["3", "9"]
    assert (benchmark.n, benchmark.temperature, benchmark.top_p) == (10, 0.2, 0.95)


def test_a_pickle_that_could_run_code_is_refused():
    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    with pytest.raises(pickle.UnpicklingError, match="refused"):
        contests.private_cases(packed(Evil()))


@pytest.mark.parametrize(
    ("window", "inside"),
    [("", True), ("2024-08..2024-08", True), ("2024-09..2024-12", False), ("2023-01..2024-07", False)],
)
def test_windows_include_their_first_and_last_month(window, inside):
    assert contests.in_window("2024-08-10", window) is inside


def test_a_malformed_window_is_an_error():
    with pytest.raises(ValueError, match="two months"):
        contests.in_window("2024-08-10", "2024")


def test_livecodebench_functions_become_calls():
    row = LIVE | {
        "metadata": '{"func_name": "add"}', "private_test_cases": "[]",
        "public_test_cases": json.dumps([{"input": "[1, 2]\n3", "output": "[6]", "testtype": "functional"}]),
    }  # fmt: skip
    task = contests.livecodebench_task(row)
    assert task["kind"] == "calls"
    assert json.loads(task["tests"])["cases"] == [{"args": [[1, 2], 3], "expected": [6]}]


def test_bigcodebench_joins_prompt_completion_and_tests(write_rows):
    row = {
        "task_id": "BigCodeBench/0", "complete_prompt": "def task_func():\n    '''Doc'''\n", 
        "instruct_prompt": "Write it.",
        "test": (
            "import unittest\nclass TestCases(unittest.TestCase):\n"
            "    def test(self):\n        self.assertEqual(task_func(), 1)"
        ),
        "entry_point": "task_func",
    }  # fmt: skip
    benchmark = catalogue.load(BenchmarkRequest("bigcodebench-hard", data=str(write_rows([row]))))
    program = benchmark.assemble(benchmark.problems[0], "\n    return 1\n")
    exec(compile(program, "program.py", "exec"), {"__name__": "program"})
    with pytest.raises(AssertionError, match="tests failed"):
        exec(benchmark.assemble(benchmark.problems[0], "\n    return 2\n"), {"__name__": "program"})


def test_cross_file_prompts_keep_within_their_tokens(real_tokenizer):
    prompt = repository_completion.CrossFilePrompt("left " * 9000, "right " * 9000, "other " * 9000, 50)
    assert len(prompt.encode(real_tokenizer)) <= 8192 - 50 + 8
    left, suffix = prompt.parts(real_tokenizer)
    assert left.endswith("left ")
    assert suffix.startswith("right ") and "\n\nother" in suffix


def test_repository_scores_ignore_white_space_and_quotes(write_rows):
    row = {"metadata": {"task_id": "a"}, "prompt": "x", "right_context": "", "groundtruth": "f('a', 1)"}
    benchmark = catalogue.load(BenchmarkRequest("crosscodeeval", data=str(write_rows([row]))))
    answer = benchmark.assemble(benchmark.problems[0], '\n\nf( "a",1 )\ng()\n')
    assert benchmark.score(benchmark.problems[0], answer)["exact_match"] == 1.0


def test_safim_puts_the_completion_into_its_hole(write_rows):
    row = {
        "task_id": "s", "lang": "python", "eval_prompt": "a = input()\n{{completion}}\n", "ground_truth": "print(a)",
        "unit_tests": json.dumps([{"input": "1", "output": ["1"]}]),
    }  # fmt: skip
    benchmark = catalogue.load(BenchmarkRequest("safim-block", data=str(write_rows([row]))))
    assert benchmark.assemble(benchmark.problems[0], "print(a)") == "a = input()\nprint(a)\n"
    assert benchmark.problems[0].task["kind"] == "stdio"


def test_humaneval_fim_compares_the_first_line(write_rows):
    row = {"task_id": "HumanEval/0", "prompt": "a", "suffix": "b", "canonical_solution": "    return 1\n"}
    benchmark = catalogue.load(BenchmarkRequest("humaneval-fim", data=str(write_rows([row, row]))))
    assert len({problem.id for problem in benchmark.problems}) == 2
    answer = benchmark.assemble(benchmark.problems[0], "\n return 1\nmore")
    assert benchmark.score(benchmark.problems[0], answer)["exact_match"] == 1.0


def test_java_chat_answers_lose_main_and_closing_braces():
    row = {
        "prompt": "import java.util.*;\nclass Problem {\n    public static long f(long x) {\n",
        "tests": "    }\n    public static void main(String[] args) {\n    assert(f(1l) == (2l));\n    }\n\n}\n",
    }  # fmt: skip
    answer = (
        "```java\nclass Problem {\n    public static long f(long x) {\n        return x + 1;\n    }\n"
        "    public static void main(String[] args) {\n        System.out.println(f(1));\n    }\n}\n```"
    )
    program = multipl_e.join_tests(chat_code(answer, row, "java"), row, "java")
    assert program.count("{") == program.count("}")
    assert program.count("void main") == 1
    assert program.startswith("import java.util.*;\nclass Problem")


def test_javascript_asserts_end_the_program(data_dir):
    benchmark = catalogue.load(BenchmarkRequest("mceval", data=str(data_dir / "benchmarks/mceval/JavaScript.jsonl")))
    program = multilingual.assemble(benchmark.problems[0], "```js\nfunction hello_mmcodeeval() { return 1; }\n```")
    assert program.startswith("console.assert = ")


def test_a_regression_file_that_is_not_yaml_is_an_error(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("- {a: b")
    with pytest.raises(ValueError, match=r"r\.yaml"):
        catalogue.load(BenchmarkRequest("regression", data=str(path)))


def test_errors_of_regression_files_say_what_is_wrong(tmp_path):
    path = tmp_path / "r.yaml"
    for text, message in (
        ("- {prompt: a}", "give one of"), ("- {prompt: a, expect: b}", "Did you mean 'expected'"), ("a: b", "must be a list"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            catalogue.load(BenchmarkRequest("regression", data=str(path)))


def test_regression_texts_are_compared(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("- {id: a, prompt: Say hi, expected: hi}\n- {id: b, prompt: Name colours, contains: [red, blue]}\n")
    benchmark = catalogue.load(BenchmarkRequest("regression", data=str(path)))
    first, second = benchmark.problems
    assert benchmark.score(first, " hi\n") == {"pass": 1.0}
    assert benchmark.score(second, "red") == {"pass": 0.0}


def test_a_second_try_shows_the_failures(write_rows):
    row = {
        "id": "e", "instructions": "Add.", "file": "a.py", "content": "def f(): pass", "kind": "asserts",
        "tests": '{"code": "assert f() == 1"}', "entry_point": "f",
    }  # fmt: skip
    benchmark = catalogue.load(BenchmarkRequest("editing", data=str(write_rows([row]))))
    again = benchmark.retry(benchmark.problems[0], "first answer", "AssertionError: 0")
    assert [message["role"] for message in again.prompt.messages] == ["user", "assistant", "user"]
    assert "AssertionError: 0" in again.prompt.messages[-1]["content"]
    assert benchmark.assemble(again, "a.py\n```\ndef f(): return 1\n```") == "def f(): return 1\n"


def test_every_benchmark_of_the_catalogue_has_a_function():
    import importlib

    for place, _ in catalogue.BENCHMARKS.values():
        module, _, function = place.partition(":")
        assert callable(getattr(importlib.import_module(f"{catalogue.PACKAGE}.{module}"), function))


def test_a_changed_file_in_the_cache_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    file = tmp_path / "benchmarks/x.jsonl"
    file.parent.mkdir()
    file.write_text("{}\n")
    source = PublicFile(file="x.jsonl", url="https://example.invalid/x.jsonl")
    assert locate(BenchmarkRequest("x"), source) == file
    file.write_text('{"changed": 1}\n')
    with pytest.raises(ValueError, match="SHA-256"):
        locate(BenchmarkRequest("x"), source)


def test_nothing_is_downloaded_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE"):
        locate(BenchmarkRequest("x"), PublicFile(file="x.jsonl", url="https://example.invalid/x.jsonl"))


def test_base_and_chat_mode_have_different_prompts(data_dir):
    data = str(data_dir / "benchmarks/multipl_e")
    base, chat = (
        catalogue.load(BenchmarkRequest("multipl-e-sh", data=data, mode=mode, limit=2)) for mode in ("base", "chat")
    )
    assert (base.mode, chat.mode, chat.max_new_tokens) == ("base", "chat", 4096)
    assert isinstance(base.problems[0], Problem) and isinstance(base.problems[0].prompt, TextPrompt)


@pytest.mark.parametrize("name", ["mceval", "mdeval"])
def test_multilingual_solutions_of_the_rows_pass_and_wrong_ones_fail(data_dir, name):
    """Checked for the first task of each language whose toolchain is installed."""
    from alignment.grading import Grader, Limits
    from alignment.sandbox import toolchains

    benchmark = catalogue.load(BenchmarkRequest(name, data=str(data_dir / "benchmarks")))
    first = {problem.row["language"]: problem for problem in reversed(benchmark.problems)}
    pairs, expected = [], []
    for language, problem in first.items():
        try:
            toolchains.toolchain(problem.task["language"])
        except toolchains.NoToolchain:
            continue
        row = problem.row
        code = row["prompt"] + "\n" + row["canonical_solution"] if name == "mceval" else row["canonical_solution"]
        for text, passed in ((code, True), (row.get("buggy_code") or row["prompt"], False)):
            pairs.append((problem.task, benchmark.assemble(problem, f"```{language.lower()}\n{text}\n```")))
            expected.append((language, passed))
    with Grader(limits=Limits().at_least(cpu_seconds=30, wall_seconds=30, memory_bytes=4 << 30)) as grader:
        verdicts = grader.grade_many(pairs)
    passes = [(language, verdict.status == "passed") for (language, _), verdict in zip(expected, verdicts, strict=True)]
    assert passes == expected
