"""HumanEval, HumanEval+, MBPP and MBPP+ as EvalPlus has them, asked as Qwen2.5-Coder's evaluation asks.

Prompts, limits and stops: `qwencoder-eval/base/benchmarks/evalplus` and `qwencoder-eval/instruct/eval_plus` of
QwenLM/Qwen2.5-Coder. Comparison rules: EvalPlus (`evalplus/eval`), kept by `alignment.grading`.
"""

from __future__ import annotations

import textwrap

from alignment.evaluation.benchmark_files import PublicFile, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest, resolve_task_id
from alignment.evaluation.benchmark_rows import read_rows
from alignment.evaluation.benchmarks.evalplus_tasks import evalplus_tasks
from alignment.evaluation.benchmarks.mbpp_types import restore_types
from alignment.evaluation.extraction import cleaned, extract_code, fenced_blocks, is_stub
from alignment.evaluation.problem import Benchmark, ChatPrompt, Problem, Prompt, Row, TextPrompt
from alignment.evaluation.python_code import defined_names, longest_valid

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
"""EvalPlus gives a task up to 60 seconds and 4 GB; one of its tasks answers with 80 MB."""
BASE_TOKENS, CHAT_TOKENS = 768, 512
"""New tokens. The chat script's class for ChatML asks for 2048 of a window of 1536; its harness's own figure is 512."""
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
    return TextPrompt(row["prompt"].strip() + "\n")


def chat_prompt(row: Row) -> ChatPrompt:
    """The answer is opened with a Python block, so that code is all that can follow."""
    question = CHAT_REQUEST.format(prompt=row["prompt"].strip())
    system = {"role": "system", "content": SYSTEM_PROMPT}
    return ChatPrompt((system, {"role": "user", "content": question}), prefill=PREFILL)


def base_program(problem: Problem, completion: str) -> str:
    """Prompt and completion; a tab counts four spaces, as the harness writes it."""
    assert isinstance(problem.prompt, TextPrompt)
    return problem.prompt.content + completion.replace("\t", "    ")


def chat_program(problem: Problem, completion: str) -> str:
    """The code of an answer; behind the prompt where the answer only went on with the body.

    The prompt has opened the block already, so the completion begins inside of it; answers of models that were asked
    without that opening, as in files of completions, begin with prose or with a block of their own.
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
    """What comes behind the prompt: the first block's lines, indented where the answer has lost that."""
    opened = [content for _, content in fenced_blocks(cleaned(PREFILL + text))] + [text]
    indented = [textwrap.indent(textwrap.dedent(body), "    ") for body in opened]
    for body in (*opened, *indented):
        code = longest_valid(prompt + body)
        if name in defined_names(code) and not is_stub(code, name):
            return code[len(prompt) :]
    return opened[0]


def _imports_of(prompt: str) -> str:
    """What a HumanEval prompt sets up before its last function: imports and helper functions."""
    head, mark, _ = prompt.rpartition("\ndef ")
    return f"{head}\n\n" if mark else ""


def humaneval(request: BenchmarkRequest) -> Benchmark:
    return _benchmark(request, HUMANEVAL, "humaneval", plus=False)


def humaneval_plus(request: BenchmarkRequest) -> Benchmark:
    return _benchmark(request, HUMANEVAL, "humaneval", plus=True)


def mbpp(request: BenchmarkRequest) -> Benchmark:
    return _benchmark(request, MBPP, "mbpp", plus=False)


def mbpp_plus(request: BenchmarkRequest) -> Benchmark:
    return _benchmark(request, MBPP, "mbpp", plus=True)


def with_types(row: Row) -> Row:
    """The row with inputs as Python has them; MBPP's JSON lost its tuples."""
    if not row["task_id"].startswith("Mbpp/"):
        return row
    number = int(row["task_id"].split("/")[1])
    return row | {name: restore_types(number, row[name]) for name in ("base_input", "plus_input")}


def spelled(row: Row) -> str:
    """The id of a row; MBPP's own file has bare numbers."""
    return row["task_id"] if isinstance(row["task_id"], str) else f"Mbpp/{row['task_id']}"


def _benchmark(request: BenchmarkRequest, home: PublicFile, dataset: str, *, plus: bool) -> Benchmark:
    from alignment.grading import benchmark_tasks as graded

    rows = read_rows(locate(request, home))
    size = len(rows)
    if request.only is not None:  # a file of a few completions needs the reference values of a few tasks
        known = {spelled(row) for row in rows}
        wanted = {resolve_task_id(task_id, known) for task_id in request.only}
        if None in wanted:
            unknown = sorted(task_id for task_id in request.only if resolve_task_id(task_id, known) is None)
            raise ValueError(f"{request.name} has no task {unknown[0]!r} ({len(unknown)} of the ids are unknown)")
        rows = [row for row in rows if spelled(row) in wanted]
    if rows and "plus_input" in rows[0]:
        rows = [with_types(row) for row in rows[: request.limit]]
        tasks = evalplus_tasks(rows, dataset, plus=plus, sandbox=request.sandbox)
    elif plus:
        raise ValueError(f"{request.name} needs EvalPlus's rows (with `plus_input`), as in {home.file}")
    else:
        own = graded.humaneval if dataset == "humaneval" else graded.mbpp
        rows = [own(row) | {"task_id": own(row)["id"]} for row in rows[: request.limit]]
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
