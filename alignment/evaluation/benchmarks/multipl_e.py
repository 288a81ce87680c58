"""MultiPL-E: HumanEval in thirteen languages.

Prompts and the assembly of programs follow `qwencoder-eval` (QwenLM/Qwen2.5-Coder). Each language is one benchmark, for
example `multipl-e-java`. `data` is the folder of `humaneval-LANG.jsonl` files, or one such file. Source: Cassano et
al., 2022, arXiv 2208.08227.
"""

from __future__ import annotations

import re

from alignment.evaluation.benchmark_files import PublicFile, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmarks.multipl_e_chat import chat_code
from alignment.evaluation.problem import Benchmark, ChatPrompt, Problem, Row, TextPrompt, task_row
from alignment.grading.benchmark_tasks import multipl_e_tests
from alignment.rows.reading import read_rows

LANGUAGES = {
    "java": "java", "cpp": "cpp", "js": "javascript", "cs": "csharp", "php": "php", "sh": "bash", "ts": "typescript",
    "go": "go", "lua": "lua", "pl": "perl", "r": "r", "rb": "ruby", "rs": "rust",
}  # fmt: skip
"""Language in the benchmark's name -> language of the grader. The languages of Qwen2.5-Coder's table come first."""

LEAST_LIMITS = {"cpu_seconds": 30, "wall_seconds": 30, "memory_bytes": 4 << 30}
HIDDEN = ("/usr/bin/bc",)
"""Programs of this machine that tests must not find, because the container in which the published verdicts were
computed did not have them."""
STOPS = ("<|endoftext|>", "<|endofmask|>", "</s>")
TYPESCRIPT_STOPS = ("\nexport", "\nimport", "\nexport default", "\nimport default", "\nconsole.log")
CHAT_REQUEST = (
    "Please continue to complete the function and return all completed code in a codeblock. "
    "Here is the given code to do completion:\n```{language}\n{prompt}\n```"
)
CPP_INCLUDES = (
    "stdlib.h", "algorithm", "math.h", "stdio.h", "vector", "string", "climits", "cstring", "iostream", "cassert",
)  # fmt: skip
CSHARP_USINGS = (
    "System.Numerics", "System.Diagnostics", "System.Collections.Generic", "System.Linq", "System.Text",
    "System.Security.Cryptography", "System.Collections.Generic",
)  # fmt: skip


UNMARKED = ("go", "lua", "rb")
"""Languages whose test framework ends the process.

For other languages, code after the tests prints a marker that shows that all tests ran. Here that code would never run,
so only the exit code decides.
"""
NEEDS = {
    "lua": ("require('luaunit')", "Lua's tests need luaunit: apt-get install lua-unit"),
    "pl": ("use Test::Deep;", "Perl's tests need Test::Deep: apt-get install libtest-deep-perl"),
    "rb": ("require 'test/unit'", "Ruby's tests need test-unit: apt-get install ruby-test-unit"),
}
"""A test program that must run in the sandbox, and a text that says what to install if it fails. Keyed by the short
names of languages in `LANGUAGES`."""


def multipl_e(request: BenchmarkRequest) -> Benchmark:
    """Load MultiPL-E in the language that the benchmark's name ends with."""
    short = request.benchmark.partition("-e-")[2]
    if short == "r":
        raise ValueError(f"{request.name}: R is not supported: the sandbox has no R")
    source = PublicFile(
        file=f"humaneval-{short}.jsonl",
        url=f"https://huggingface.co/datasets/nuprl/MultiPL-E (configuration humaneval-{short})",
        by_hand=True,
        note="It is also in qwencoder-eval/base/benchmarks/multiple-eval/data of QwenLM/Qwen2.5-Coder.",
    )
    rows = read_rows(locate(request, source))[: request.limit]
    chat = request.mode == "chat"
    cuts = tuple(rows[0]["stop_tokens"]) if rows else ()  # the harness uses the first row's stop strings for all rows

    def assemble(problem: Problem, completion: str) -> str:
        code = chat_code(completion, problem.row, short) if chat else base_code(completion, problem.row, short, cuts)
        return join_tests(code, problem.row, short)

    problems = [
        Problem(
            id=row["name"],
            prompt=chat_prompt(row, short) if chat else TextPrompt(row["prompt"].strip() + "\n"),
            task=task_of(row["name"], short),
            row=row,
        )
        for row in rows
    ]
    return Benchmark(
        name=request.benchmark,
        problems=problems,
        mode="chat" if chat else "base",
        max_new_tokens=4096 if chat else 500,
        stop=STOPS,
        assemble=assemble,
        least_limits=LEAST_LIMITS,
        hidden=HIDDEN,
        needs=NEEDS.get(short),
    )


def task_of(name: str, short: str, *, published: bool = True) -> Row:
    """Return a task for programs that include their tests. A program passes only if its tests run to their end.

    Args:
        name: the name of the problem.
        short: the short name of the language.
        published: whether to grade by the rules of qwencoder-eval, which made the published verdicts, instead of the
            rule of MultiPL-E's harness (exit code 0).
    """
    tests = multipl_e_tests(short) if published and short not in UNMARKED else {"marker": short not in UNMARKED}
    return task_row(name, "program", tests, source="multipl-e", language=LANGUAGES[short])


def chat_prompt(row: Row, short: str) -> ChatPrompt:
    """Return the instruction to complete the row's function."""
    content = CHAT_REQUEST.format(language=short, prompt=row["prompt"].strip())
    return ChatPrompt(({"role": "user", "content": content},))


def base_code(completion: str, row: Row, short: str, cuts: tuple[str, ...]) -> str:
    """Return the prompt and the completion. The completion is cut before the first of the stop strings `cuts`."""
    stops = (*cuts, *TYPESCRIPT_STOPS) if short == "ts" else cuts
    ends = [index for index in (completion.find(stop) for stop in stops) if index >= 0]
    return f"{row['prompt']}\n{completion[: min(ends, default=len(completion))]}"


def join_tests(code: str, row: Row, short: str) -> str:
    """Return the complete program: the imports that every solution may use, then the code, then the tests."""
    if short == "cpp":
        head = "".join(f"#include<{name}>\n" for name in CPP_INCLUDES if f"#include<{name}>" not in row["prompt"])
        code = f"{head}\n{code}"
    elif short == "cs":
        head = "".join(f"using {name};\n" for name in CSHARP_USINGS)
        code = f"{head}\n{code}"
    elif short == "php" and code[:5] != "<?php":
        code = f"<?php\n{code}"
    program = f"{code}\n{row['tests']}" + ("?>" if short == "php" else "")
    return go_main(program) if short == "go" else program


def go_main(program: str) -> str:
    """Turn a Go test file into a program whose `main` runs the tests, since `go test` would need a Go module."""
    tests = re.findall(r"^func (Test\w+)\(\w+ \*testing\.T\)", program, re.MULTILINE)
    if not tests or re.search(r"^func main\(\)", program, re.MULTILINE):
        return program
    listed = ", ".join(f'{{"{name}", {name}}}' for name in tests)
    program = re.sub(r"^package \w+", "package main", program, count=1, flags=re.MULTILINE)
    return (
        f"{program}\nfunc main() {{\n\ttesting.Main(func(pattern, name string) (bool, error) {{ return true, nil }}, "
        f"[]testing.InternalTest{{{listed}}}, nil, nil)\n}}\n"
    )
