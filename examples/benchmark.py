"""Examples of your own benchmarks: `functions` runs programs in the sandbox, `Questions` compares answers as text.

On the command line:

    align evaluate MODEL --tasks examples/benchmark.py:functions examples/benchmark.py:Questions

In a recipe (the path is relative to the recipe's file):

    evaluate:
      - {name: functions, benchmark: ../examples/benchmark.py:functions}
      - {name: questions, benchmark: ../examples/benchmark.py:Questions, data: questions.jsonl}

A benchmark is a function or class that takes a `BenchmarkRequest`: the settings of the recipe's entry, such as `data`,
`mode` and `limit`. The toolkit applies `n`, `temperature`, `limit` and similar settings; your code uses `data` and
`mode`. `alignment/evaluation/problem.py` documents the types. After an edit of this file, every stage that uses it runs
again, and completions that were stored for an earlier version are not reused.
"""

from __future__ import annotations

import json
from pathlib import Path

from alignment.evaluation import Benchmark, BenchmarkRequest, ChatPrompt, Problem, TextPrompt, extract_code

# name of the function -> (instruction for the model, test calls as (arguments, expected value))
FUNCTIONS = {
    "clamp": (
        "Write a Python function `clamp(x, low, high)` that returns `x`, limited to the range from `low` to `high`.",
        [([5, 0, 3], 3), ([-1, 0, 3], 0), ([2, 0, 3], 2)],
    ),
    "initials": (
        "Write a Python function `initials(name)` that returns the first letters of the words in `name`, in upper case.",
        [(["ada lovelace"], "AL"), ([""], "")],
    ),
}


def functions(request: BenchmarkRequest) -> Benchmark:
    """Return a benchmark of programs with tests. Its metric is pass@k."""
    # Supporting both modes is optional. A benchmark for chat models alone ignores `request.mode`. A recipe that asks
    # for `mode: base` then gets an error.
    chat = request.mode != "base"

    def assemble(problem: Problem, completion: str) -> str:
        """Return the program to run. A completion is untrusted: process it as text, but never execute it here."""
        if chat:
            return extract_code(completion, language="python", entry_point=problem.row["name"])
        return problem.row["header"] + completion

    problems = []
    for name, (instruction, calls) in FUNCTIONS.items():
        header = f"# {instruction}\ndef {name}("
        prompt = ChatPrompt(({"role": "user", "content": instruction},)) if chat else TextPrompt(header)
        # A task says how the program is tested. The program runs in the sandbox; expected values never enter the
        # sandbox.
        cases = [{"args": arguments, "expected": expected} for arguments, expected in calls]
        task = {"language": "python", "kind": "calls", "entry_point": name, "tests": json.dumps({"cases": cases})}
        # `row` can hold any data for `assemble`. Training rows that share its texts are removed.
        row = {"name": name, "header": header, "prompt": instruction}
        problems.append(Problem(id=name, prompt=prompt, task=task, row=row))
    return Benchmark(
        name="functions",
        problems=problems,
        mode="chat" if chat else "base",
        max_new_tokens=256,
        stop=() if chat else ("\ndef ", "\nclass ", "\n#"),
        assemble=assemble,
    )


QUESTIONS = [
    {"id": "ext", "question": "Which file extension do Python modules have?", "answer": ".py"},
    {"id": "len", "question": "Which built-in function of Python returns the length of a list?", "answer": "len"},
]


class Questions:
    """A benchmark of short answers, as a class with some attributes and methods of `Benchmark`.

    All other attributes have the defaults of `Benchmark`. With `data`, the questions come from a JSONL file with the
    columns `id`, `question` and `answer`.
    """

    mode = "chat"
    max_new_tokens = 32

    def __init__(self, request: BenchmarkRequest) -> None:
        rows = QUESTIONS
        if request.data is not None:
            lines = Path(request.data).read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines if line.strip()]
        self.problems = [
            Problem(
                id=row["id"],
                prompt=ChatPrompt(
                    (
                        {"role": "system", "content": "Answer with one word."},
                        {"role": "user", "content": row["question"]},
                    )
                ),
                reference=row["answer"],
                row=row,
            )
            for row in rows
        ]

    def assemble(self, problem: Problem, completion: str) -> str:
        """Return the answer to compare: the first line without quotes, backticks and `()`."""
        lines = completion.strip().splitlines() or [""]
        return lines[0].strip().strip("`'\"").removesuffix("()").rstrip("`'\"")

    def score(self, problem: Problem, answer: str) -> dict[str, float]:
        """Return scores by name, each from 0 to 1. The metrics are the means over all problems, in percent."""
        assert problem.reference is not None
        return {
            "exact_match": float(answer == problem.reference),
            "contains": float(problem.reference.lower() in answer.lower()),
        }
