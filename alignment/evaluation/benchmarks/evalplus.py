"""HumanEval, HumanEval+, MBPP and MBPP+ with the rows of EvalPlus and the prompts of Qwen2.5-Coder's evaluation.

Prompts, limits and stop strings are those of `qwencoder-eval/base/benchmarks/evalplus` and
`qwencoder-eval/instruct/eval_plus` in QwenLM/Qwen2.5-Coder. Values are compared as in EvalPlus (`evalplus/eval`);
`alignment.grading` implements the comparison.
"""

from __future__ import annotations

import textwrap

from alignment.evaluation.answer_blocks import cleaned, fenced_blocks
from alignment.evaluation.benchmark_files import PublicFile, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest, resolve_task_id
from alignment.evaluation.benchmarks.evalplus_tasks import evalplus_tasks
from alignment.evaluation.benchmarks.mbpp_types import restore_types
from alignment.evaluation.extraction import extract_code, is_stub
from alignment.evaluation.problem import Benchmark, ChatPrompt, Problem, Prompt, Row, TextPrompt
from alignment.evaluation.python_code import defined_names, longest_valid
from alignment.grading import benchmark_tasks
from alignment.rows.reading import read_rows

HUMANEVAL = PublicFile(
    file="HumanEvalPlus.jsonl.gz",
    aliases=("HumanEvalPlus.jsonl", "HumanEvalPlus-v0.1.9.jsonl", "HumanEval.jsonl.gz"),
    url="https://github.com/evalplus/humanevalplus_release/releases/download/v0.1.9/HumanEvalPlus.jsonl.gz",
)
MBPP = PublicFile(
    file="MbppPlus-v0.1.0.jsonl",
    aliases=("MbppPlus.jsonl.gz", "MbppPlus.jsonl", "mbpp.jsonl"),
    url="https://github.com/evalplus/mbppplus_release/releases/download/v0.1.0/MbppPlus.jsonl.gz",
    sha256="a855b9de667baea8e2f8aa61f898767a7336872208a85222b35622545e819fe9",
)

LEAST_LIMITS = {"cpu_seconds": 30, "wall_seconds": 30, "memory_bytes": 4 << 30, "reply_bytes": 512 << 20}
"""Lower limits of the sandbox are raised to these values. EvalPlus allows up to 60 s and 4 GB per task, and one task
returns 80 MB."""
BASE_TOKENS, CHAT_TOKENS = 768, 512
"""Largest number of new tokens for base and for chat prompts.

Qwen's chat script requests 2048 tokens for ChatML models, in a context of 1536 tokens; the default of its harness is
512.
"""
COMMON_STOPS = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(")
FENCE_STOPS = ("\n```\n", "```")
BASE_STOPS = {
    "humaneval": ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "),
    "mbpp": ('\n"""', "\nassert"),
}
CHAT_STOPS = (*COMMON_STOPS, "\n#", "\n```")
SYSTEM_PROMPT = "You are an intelligent programming assistant to produce Python algorithmic solutions"
PREFILL = "```python\n"
CHAT_REQUEST = "Can you complete the following Python function?\n```python\n{prompt}\n```\n"


def base_prompt(row: Row) -> TextPrompt:
    """Return the row's prompt without surrounding white space, followed by a newline."""
    return TextPrompt(row["prompt"].strip() + "\n")


def chat_prompt(row: Row) -> ChatPrompt:
    """Return the instruction to complete the function. The answer is prefilled with the start of a code block."""
    question = CHAT_REQUEST.format(prompt=row["prompt"].strip())
    system = {"role": "system", "content": SYSTEM_PROMPT}
    return ChatPrompt((system, {"role": "user", "content": question}), prefill=PREFILL)


def base_program(problem: Problem, completion: str) -> str:
    """Return the prompt followed by the completion, with tabs replaced by four spaces as in the harness."""
    assert isinstance(problem.prompt, TextPrompt)
    return problem.prompt.content + completion.replace("\t", "    ")


def chat_program(problem: Problem, completion: str) -> str:
    """Return the code of an answer. If the answer has only the function's body, put the row's prompt before it.

    A completion continues the code block that the prompt opened. An answer to another prompt
    begins with prose, or opens a code block by itself.
    """
    row, text = problem.row, completion.replace("\t", "    ")
    name = row["entry_point"]
    for answer in (PREFILL + text, text):
        code = extract_code(answer, entry_point=name)
        if name in defined_names(code):
            preamble = row["prompt"] if problem.id.startswith("HumanEval") else ""
            return _imports_of(preamble) + code
    return str(row["prompt"]) + _body(row["prompt"], text, name)


def _body(prompt: str, text: str, name: str) -> str:
    """Return the function's body in an answer, from a code block or from the text itself. Restore lost indentation."""
    bodies = [content for _, content in fenced_blocks(cleaned(PREFILL + text))] + [text]
    indented = [textwrap.indent(textwrap.dedent(body), "    ") for body in bodies]
    for body in (*bodies, *indented):
        code = longest_valid(prompt + body)
        if name in defined_names(code) and not is_stub(code, name):
            return code[len(prompt) :]
    return bodies[0]


def _imports_of(prompt: str) -> str:
    """Return the part of a HumanEval prompt before the last function: imports and helper functions."""
    head, mark, _ = prompt.rpartition("\ndef ")
    return f"{head}\n\n" if mark else ""


def humaneval(request: BenchmarkRequest) -> Benchmark:
    """Load HumanEval with the original inputs."""
    return _benchmark(request, HUMANEVAL, "humaneval", plus=False)


def humaneval_plus(request: BenchmarkRequest) -> Benchmark:
    """Load HumanEval with the additional inputs of EvalPlus."""
    return _benchmark(request, HUMANEVAL, "humaneval", plus=True)


def mbpp(request: BenchmarkRequest) -> Benchmark:
    """Load MBPP with the original inputs."""
    return _benchmark(request, MBPP, "mbpp", plus=False)


def mbpp_plus(request: BenchmarkRequest) -> Benchmark:
    """Load MBPP with the additional inputs of EvalPlus."""
    return _benchmark(request, MBPP, "mbpp", plus=True)


def with_types(row: Row) -> Row:
    """Restore the Python types of a row's inputs, since JSON has neither tuples, sets nor complex numbers."""
    if not row["task_id"].startswith("Mbpp/"):
        return row
    number = int(row["task_id"].split("/")[1])
    return row | {name: restore_types(number, row[name]) for name in ("base_input", "plus_input")}


def row_id(row: Row) -> str:
    """Return the task id of a row. The bare integer in rows of the original MBPP becomes `Mbpp/<integer>`."""
    return row["task_id"] if isinstance(row["task_id"], str) else f"Mbpp/{row['task_id']}"


def _benchmark(request: BenchmarkRequest, source: PublicFile, dataset: str, *, plus: bool) -> Benchmark:
    """Load a benchmark from rows of EvalPlus.

    If `plus` is False, rows of the original benchmark can be used instead of rows of EvalPlus.
    """
    rows = read_rows(locate(request, source))
    size = len(rows)
    if request.only is not None:  # computing expected values of all tasks takes minutes
        known = {row_id(row) for row in rows}
        wanted = {resolve_task_id(task_id, known) for task_id in request.only}
        if None in wanted:
            unknown = sorted(task_id for task_id in request.only if resolve_task_id(task_id, known) is None)
            raise ValueError(f"{request.name} has no task {unknown[0]!r} ({len(unknown)} of the ids are unknown)")
        rows = [row for row in rows if row_id(row) in wanted]
    if rows and "plus_input" in rows[0]:
        rows = [with_types(row) for row in rows[: request.limit]]
        tasks = evalplus_tasks(rows, dataset, plus=plus, sandbox=request.sandbox)
    elif plus:
        raise ValueError(f"{request.name} needs EvalPlus's rows (with `plus_input`), as in {source.file}")
    else:
        as_task = benchmark_tasks.humaneval if dataset == "humaneval" else benchmark_tasks.mbpp
        rows = [as_task(row) | {"task_id": as_task(row)["id"]} for row in rows[: request.limit]]
        tasks = {row["task_id"]: row for row in rows}
    chat = request.mode == "chat"

    def problem(row: Row) -> Problem:
        prompt: Prompt = chat_prompt(row) if chat else base_prompt(row)
        return Problem(id=row["task_id"], prompt=prompt, task=tasks[row["task_id"]], row=row)

    return Benchmark(
        name=request.benchmark,
        problems=[problem(row) for row in rows],
        mode="chat" if chat else "base",
        max_new_tokens=CHAT_TOKENS if chat else BASE_TOKENS,
        stop=CHAT_STOPS if chat else (*COMMON_STOPS, *BASE_STOPS[dataset], *FENCE_STOPS),
        assemble=chat_program if chat else base_program,
        least_limits=LEAST_LIMITS,
        size=size,
    )
