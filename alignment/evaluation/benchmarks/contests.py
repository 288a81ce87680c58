"""LiveCodeBench (all contests, or only the contests of some months) and BigCodeBench (full and hard).

The prompts are those of `qwencoder-eval/instruct` in QwenLM/Qwen2.5-Coder.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import re
import zlib
from typing import Any

from alignment.evaluation.benchmark_files import PublicFile, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.extraction import extract_code
from alignment.evaluation.problem import Benchmark, ChatPrompt, Problem, Prompt, Row, TextPrompt, task_row
from alignment.evaluation.python_imports import add_imports
from alignment.rows.reading import read_rows

LIVECODEBENCH = PublicFile(
    file="livecodebench.jsonl",
    aliases=("test.jsonl", "test5.jsonl"),
    url="https://huggingface.co/datasets/livecodebench/code_generation_lite",
    by_hand=True,
    note="Join its test*.jsonl files.",
)
SYSTEM_PROMPT = "You are a helpful assistant."
TASK = (
    "\nYou will be given a question (problem specification) and will generate a correct Python program that matches "
    "the specification and passes all tests. You will NOT return anything except for the program.\n\n"
    "Question: {question}\n\n"
)
WITH_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters.\n```python\n{starter}\n```\n\n"
)
WITHOUT_STARTER = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows.\n```python\n# YOUR CODE HERE\n```\n\n"
)
ENTRY = "\n\ndef __entry__(*arguments):\n    return Solution().{name}(*arguments)\n"


def livecodebench(request: BenchmarkRequest) -> Benchmark:
    """Load LiveCodeBench. `livecodebench@2024-07..2024-11` uses only contests of these months (both included).

    The published scores were measured with 10 samples at temperature 0.2.
    """
    window = request.benchmark.partition("@")[2]
    rows = [row for row in read_rows(locate(request, LIVECODEBENCH)) if in_window(row["contest_date"], window)]
    problems = [
        Problem(id=row["question_id"], prompt=livecodebench_prompt(row), task=livecodebench_task(row), row=row)
        for row in rows[: request.limit]
    ]

    def assemble(problem: Problem, completion: str) -> str:
        name = _function(problem.row)
        code = extract_code(completion, entry_point="Solution" if name else None)
        return add_imports(code) + (ENTRY.format(name=name) if name else "")

    return Benchmark(
        name=request.benchmark,
        problems=problems,
        mode="chat",
        max_new_tokens=2000,
        assemble=assemble,
        n=10,
        temperature=0.2,
        top_p=0.95,
    )


def in_window(date: str, window: str) -> bool:
    """Whether a date lies in a window of months.

    Args:
        date: an ISO date.
        window: `YYYY-MM..YYYY-MM`, both months included; empty for no restriction.
    """
    if not window:
        return True
    first, dots, last = window.partition("..")
    if not dots or not all(re.fullmatch(r"\d{4}-\d{2}", month) for month in (first, last)):
        raise ValueError(f"livecodebench@{window}: a window must be two months, as in livecodebench@2024-07..2024-11")
    return first <= date[:7] <= last


def livecodebench_prompt(row: Row) -> ChatPrompt:
    """Return the prompt of one problem, including the starter code if the problem has any."""
    form = WITH_STARTER.format(starter=row["starter_code"]) if row["starter_code"] else WITHOUT_STARTER
    question = TASK.format(question=row["question_content"]) + form
    return ChatPrompt(({"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": question}))


def _function(row: Row) -> str:
    """Return the name of the method of `Solution` that a problem asks for, or "" if it asks for a whole program."""
    return str(json.loads(row.get("metadata") or "{}").get("func_name") or "")


def livecodebench_task(row: Row) -> Row:
    """Return a task with the public and private test cases of a row."""
    cases = [*json.loads(row["public_test_cases"]), *private_cases(row["private_test_cases"])]
    tests: Row
    if _function(row):
        tests = {
            "cases": [
                {
                    "args": [json.loads(line) for line in case["input"].split("\n") if line.strip()],
                    "expected": json.loads(case["output"]),
                }
                for case in cases
            ]
        }
    else:
        tests = {"cases": [{"stdin": case["input"], "stdout": case["output"]} for case in cases]}
    return task_row(
        row["question_id"],
        "calls" if _function(row) else "stdio",
        tests,
        source="livecodebench",
        entry_point="__entry__" if _function(row) else None,
        prompt=row["question_content"],
    )


class _TextOnly(pickle.Unpickler):
    """An unpickler that loads only text, and raises an error for any other object.

    LiveCodeBench packs test cases as pickled JSON text. Any other pickle could run code.
    """

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(
            f"a file of test cases refers to {module}.{name}: refused, because loading that could run code. Get the file "
            f"again from {LIVECODEBENCH.url}"
        )


def private_cases(packed: str) -> list[Row]:
    """Decode private test cases: plain JSON, or JSON text that was pickled, compressed with zlib and encoded in base64.

    Raises:
        pickle.UnpicklingError: the pickle contains something other than text.
    """
    try:
        return list(json.loads(packed))
    except ValueError:
        text = _TextOnly(io.BytesIO(zlib.decompress(base64.b64decode(packed)))).load()
        return list(json.loads(text))


BIGCODEBENCH = {
    "bigcodebench": PublicFile(
        file="bigcodebench.jsonl",
        aliases=("BigCodeBench.jsonl", "BigCodeBench-v0.1.0_hf.jsonl"),
        url="https://huggingface.co/datasets/bigcode/bigcodebench",
        by_hand=True,
        note="Write the rows of its latest split as JSONL.",
    ),
    "bigcodebench-hard": PublicFile(
        file="bigcodebench-hard.jsonl",
        aliases=("BigCodeBench-Hard.jsonl",),
        url="https://huggingface.co/datasets/bigcode/bigcodebench-hard",
        by_hand=True,
        note="Write the rows of its latest split as JSONL.",
    ),
}
COMMON_STOPS = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(")
BASE_STOPS = ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ")
REQUEST = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
    "```\n{prompt}\n```\n"
)
PREFILL = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n"
    "```python\n"
)
RUN_TESTS = (
    "\n\nimport unittest as __unittest\n"
    "__result = __unittest.TextTestRunner(verbosity=0).run(__unittest.TestLoader().loadTestsFromTestCase(TestCases))\n"
    "assert __result.testsRun and __result.wasSuccessful(), 'tests failed'\n"
)


def bigcodebench(request: BenchmarkRequest) -> Benchmark:
    """Load BigCodeBench: the split `complete` in base mode, the split `instruct` in chat mode.

    The libraries that the tasks use must be installed in the sandbox's Python.
    """
    chat = request.mode == "chat"
    rows = read_rows(locate(request, BIGCODEBENCH[request.benchmark]))[: request.limit]

    def prompt(row: Row) -> Prompt:
        if chat:
            content = REQUEST.format(prompt=row["instruct_prompt"].strip())
            return ChatPrompt(({"role": "user", "content": content},), prefill=PREFILL)
        return TextPrompt(row["complete_prompt"].strip("\n"))

    def assemble(problem: Problem, completion: str) -> str:
        row = problem.row
        code = completion if chat else row["complete_prompt"].strip("\n") + completion
        if chat and f"def {row['entry_point']}" not in code:
            code = row["complete_prompt"] + code
        return f"{code}\n{row['test']}{RUN_TESTS}"

    problems = [
        Problem(
            id=row["task_id"],
            prompt=prompt(row),
            task=task_row(row["task_id"], "program", {"marker": True}, source="bigcodebench"),
            row=row,
        )
        for row in rows
    ]
    return Benchmark(
        name=request.benchmark,
        problems=problems,
        mode="chat" if chat else "base",
        max_new_tokens=1280,
        stop=(*COMMON_STOPS, "\n```\n", *(() if chat else BASE_STOPS)),
        assemble=assemble,
    )
