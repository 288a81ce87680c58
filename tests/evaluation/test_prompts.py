"""Prompts, byte for byte: those of the published completions, and the official strings."""

import json

import pytest

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks import contests, cruxeval, evalplus, infilling, multipl_e
from alignment.evaluation.benchmarks.cruxeval_prompts import PROMPTS
from alignment.evaluation.problem import Problem, TextPrompt
from alignment.models import formats
from alignment.rows.reading import read_rows

PUBLISHED = "published/qwen2.5-coder-1.5b"


@pytest.mark.parametrize(("file", "rows"), [("humaneval", "HumanEvalPlus.jsonl.gz"), ("mbpp", "MbppPlus-v0.1.0.jsonl")])
def test_published_completions_begin_with_the_base_prompts(data_dir, file, rows):
    published = {
        row["task_id"]: row["completion"] for row in read_rows(data_dir / PUBLISHED / f"{file}.completions.jsonl")
    }
    problems = read_rows(data_dir / "benchmarks" / rows)
    assert len(problems) == len(published)
    for row in problems:
        prompt = evalplus.base_prompt(row).content
        assert prompt.endswith("\n") and not prompt.endswith("\n\n")
        assert published[row["task_id"]].startswith(prompt)


@pytest.mark.parametrize(("file", "rows"), [("humaneval", "HumanEvalPlus.jsonl.gz"), ("mbpp", "MbppPlus-v0.1.0.jsonl")])
def test_assembled_programs_are_the_published_ones(data_dir, file, rows):
    published = {
        row["task_id"]: row["completion"] for row in read_rows(data_dir / PUBLISHED / f"{file}.completions.jsonl")
    }
    for row in read_rows(data_dir / "benchmarks" / rows):
        prompt = evalplus.base_prompt(row)
        completion = published[row["task_id"]].removeprefix(prompt.content)
        assert evalplus.base_program(Problem("x", prompt, row=row), completion) == published[row["task_id"]]


@pytest.mark.parametrize("short", ["java", "cpp", "js", "cs", "php", "sh", "ts"])
def test_multipl_e_programs_equal_the_published_ones(data_dir, short):
    """Prompt, completion and tests give exactly the program that was graded for the published verdict."""
    published = json.loads((data_dir / PUBLISHED / "multipl_e" / f"{short}.json").read_text())
    rows = read_rows(data_dir / "benchmarks/multipl_e" / f"humaneval-{short}.jsonl")
    cuts = tuple(rows[0]["stop_tokens"])
    for row in rows:
        code = published[row["name"]][0][1]["code"]
        marker = row["prompt"] + "\n"
        tests = row["tests"] + ("?>" if short == "php" else "")
        assert code.endswith("\n" + tests), row["name"]
        completion = code[code.index(marker) + len(marker) : -len(tests) - 1]
        assert multipl_e.join_tests(multipl_e.base_code(completion, row, short, cuts), row, short) == code


def test_multipl_e_base_prompt_is_stripped_and_ends_its_line(data_dir):
    benchmark = multipl_e.multipl_e(BenchmarkRequest("multipl-e-java", data=str(data_dir / "benchmarks/multipl_e")))
    assert len(benchmark.problems) == 158
    row = benchmark.problems[0].row
    assert benchmark.problems[0].prompt == TextPrompt(row["prompt"].strip() + "\n")
    assert benchmark.max_new_tokens == 500


def test_multipl_e_chat_prompt():
    prompt = multipl_e.chat_prompt({"prompt": "class Problem {\n"}, "java")
    assert prompt.messages[0]["content"] == (
        "Please continue to complete the function and return all completed code in a codeblock. "
        "Here is the given code to do completion:\n```java\nclass Problem {\n```"
    )


def test_evalplus_chat_prompt_is_the_official_text(chat_tokenizer):
    prompt = evalplus.chat_prompt({"prompt": "def f(x):\n    pass\n\n"})
    assert prompt.text(chat_tokenizer) == (
        "<|im_start|>system\nYou are an intelligent programming assistant to produce Python algorithmic solutions"
        "<|im_end|>\n<|im_start|>user\nCan you complete the following Python function?\n```python\n"
        "def f(x):\n    pass\n```\n<|im_end|>\n<|im_start|>assistant\n```python\n"
    )


def test_livecodebench_prompt_is_the_official_text(chat_tokenizer):
    text = contests.livecodebench_prompt({"question_content": "Add.", "starter_code": ""}).text(chat_tokenizer)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n\nYou will be given a question "
        "(problem specification) and will generate a correct Python program that matches the specification and passes "
        "all tests. You will NOT return anything except for the program.\n\nQuestion: Add.\n\nRead the inputs from "
        "stdin solve the problem and write the answer to stdout (do not directly test on the sample inputs). Enclose "
        "your code within delimiters as follows.\n```python\n# YOUR CODE HERE\n```\n\n<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_fim_prompts_are_psm_and_stop_at_the_official_ids(data_dir, real_tokenizer):
    data = str(data_dir / "benchmarks")
    benchmark = infilling.humaneval_infilling(BenchmarkRequest("humaneval-infilling-single-line", data=data))
    assert len(benchmark.problems) == 1033
    problem = benchmark.problems[0]
    row = problem.row
    expected = f"<|fim_prefix|>{row['prompt']}<|fim_suffix|>{row['suffix']}<|fim_middle|>"
    assert problem.prompt.text(real_tokenizer) == expected
    assert problem.prompt.encode(real_tokenizer) == real_tokenizer.encode(expected, add_special_tokens=False)
    ids = sorted(real_tokenizer.convert_tokens_to_ids(token) for token in benchmark.stop_tokens)
    assert ids == [151643, 151645, 151659, 151661, 151662, 151663, 151664]


def test_text_that_spells_a_special_token_stays_text_in_fim(real_tokenizer):
    from alignment.evaluation.problem import FimPrompt

    ids = FimPrompt("a = '<|fim_middle|>'", "").encode(real_tokenizer)
    assert ids.count(real_tokenizer.convert_tokens_to_ids(formats.FIM_MIDDLE)) == 1


def test_cruxeval_prompts_contain_the_row_with_its_braces():
    row = {"code": "def f(d):\n    return {'{input}': d}", "input": "{1}", "output": "{'{input}': {1}}"}
    for (kind, _), template in PROMPTS.items():
        text = cruxeval.prompt_of(row, template)
        assert row["code"] in text
        assert f"f({row['input']}) == ??" in text if kind == "output" else f"f(??) == {row['output']}" in text


@pytest.mark.parametrize(
    ("completion", "kind", "cot", "expected"),
    [
        ('assert f("a") == "b"\n', "output", False, '"b"'),
        ("so [ANSWER]\nassert f(1) == 2\n", "output", True, "2"),
        ("assert f(16) == 17\n", "input", False, "f(16)"),
        ("think [ANSWER] assert f([1], 2) == 17", "input", True, "f([1], 2)"),
    ],
)
def test_cruxeval_answers(completion, kind, cot, expected):
    assert cruxeval.answer(completion, kind, cot) == expected


@pytest.mark.parametrize(
    ("name", "mode", "tokens"),
    [
        ("humaneval", "base", 768), ("mbpp+", "base", 768), ("humaneval+", "chat", 512), ("multipl-e-sh", "base", 500),
        ("multipl-e-sh", "chat", 4096),
    ],
)  # fmt: skip
def test_decoding_is_greedy_with_the_limits_of_the_harness(data_dir, monkeypatch, name, mode, tokens):
    from alignment.evaluation import catalogue

    monkeypatch.setattr(evalplus, "evalplus_tasks", lambda rows, *_, **__: {row["task_id"]: {} for row in rows})
    benchmark = catalogue.load(BenchmarkRequest(name, data=str(data_dir / "benchmarks"), mode=mode, limit=1))
    assert (benchmark.n, benchmark.temperature, benchmark.max_new_tokens) == (1, 0.0, tokens)
    common = {"<|endoftext|>", "<|endofmask|>", "</s>"}
    assert common <= set(benchmark.stop)
    if name == "humaneval":
        words = {"\nif __name__", "\ndef main(", "\nprint(", "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "}
        assert words <= set(benchmark.stop)
    if name == "mbpp+":
        assert {"\nif __name__", '\n"""', "\nassert"} <= set(benchmark.stop)
        assert "\ndef " not in benchmark.stop
