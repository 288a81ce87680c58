"""GSM8K and MATH, both 4-shot: compare the final answers of mathematical problems.

Answers of GSM8K are compared as numbers. Answers of MATH are compared by math-verify, which
`pip install 'code-alignment[math]'` installs.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from alignment.evaluation.benchmark_files import PublicFile, locate
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.problem import Benchmark, ChatPrompt, Problem, Prompt, Row, TextPrompt
from alignment.rows.reading import read_rows

GSM8K = PublicFile(
    file="gsm8k_test.jsonl",
    aliases=("test.jsonl",),
    url="https://github.com/openai/grade-school-math/raw/master/grade_school_math/data/test.jsonl",
    sha256="3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
)
MATH = PublicFile(
    file="math_test.jsonl",
    aliases=("test.jsonl",),
    url="https://huggingface.co/datasets/EleutherAI/hendrycks_math",
    by_hand=True,
    note="Join the test rows of all subjects into one JSONL with `problem` and `solution`.",
)
CHAT_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
SHOTS = (
    ("A tray holds 4 rows of 6 eggs. A cook uses 9 eggs. How many eggs are left?",
     "The tray holds 4 * 6 = 24 eggs. After the cook uses 9, 24 - 9 = 15 eggs are left.", "15"),
    ("A train travels 60 miles an hour for 2 hours and 40 miles an hour for 3 hours. How many miles does it travel?",
     "It travels 60 * 2 = 120 miles, then 40 * 3 = 120 miles, so 120 + 120 = 240 miles in all.", "240"),
    ("A shirt costs $20 and is sold at 25% off. How many dollars does it cost now?",
     "The discount is 20 * 25 / 100 = 5 dollars. The shirt costs 20 - 5 = 15 dollars.", "15"),
    ("Mia has three times as many pens as Tom. Together they have 28. How many pens has Tom?",
     "Tom has x pens and Mia 3x, so 4x = 28 and x = 28 / 4 = 7.", "7"),
)  # fmt: skip
"""Four worked examples, each (question, solution, answer). They were written for this toolkit: Qwen has not published
its examples."""


def gsm8k(request: BenchmarkRequest) -> Benchmark:
    """Load GSM8K (Cobbe et al., 2021, arXiv 2110.14168). The score is `accuracy`."""

    def reference(row: Row) -> str:
        return str(row["answer"].rsplit("####", 1)[1]).strip().replace(",", "")

    return _benchmark(request, GSM8K, "question", reference, "#### ", ("\nQuestion:",), numbers=True)


def math(request: BenchmarkRequest) -> Benchmark:
    """Load MATH (Hendrycks et al., 2021, arXiv 2103.03874). The score is `accuracy`."""
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{request.name} needs math-verify to compare answers: pip install 'code-alignment[math]'"
        ) from error

    def reference(row: Row) -> str:
        answer = boxed(row["solution"])
        if answer is None:
            raise ValueError(f"{request.name}: the `solution` of a row has no \\boxed answer: {row['solution'][:80]!r}")
        return answer

    return _benchmark(request, MATH, "problem", reference, "The answer is ", ("\nQuestion:",), numbers=False)


def _benchmark(
    request: BenchmarkRequest,
    source: PublicFile,
    column: str,
    reference: Callable[[Row], str],
    mark: str,
    stop: tuple[str, ...],
    *,
    numbers: bool,
) -> Benchmark:
    """Create a benchmark that compares final answers.

    Args:
        request: the request for the benchmark.
        source: the file of the benchmark's rows.
        column: the column with the question.
        reference: function that returns the correct answer of a row.
        mark: text that precedes the answer in the worked examples.
        stop: stop strings of base prompts.
        numbers: whether answers are compared as numbers instead of mathematical expressions.
    """
    chat = request.mode == "chat"
    shots = "".join(f"Question: {question}\nAnswer: {work}\n{mark}{answer}\n\n" for question, work, answer in SHOTS)

    def prompt(row: Row) -> Prompt:
        if chat:
            return ChatPrompt(
                ({"role": "system", "content": CHAT_INSTRUCTION}, {"role": "user", "content": row[column].strip()})
            )
        return TextPrompt(f"{shots}Question: {row[column].strip()}\nAnswer:")

    def assemble(problem: Problem, completion: str) -> str:
        return final_answer(completion, mark, numbers=numbers)

    def score(problem: Problem, answer: str) -> dict[str, float]:
        assert problem.reference is not None
        equal = same_number(answer, problem.reference) if numbers else same_expression(answer, problem.reference)
        return {"accuracy": float(equal)}

    rows = read_rows(locate(request, source))
    problems = [
        Problem(id=str(row.get("id", number)), prompt=prompt(row), reference=reference(row), row=row)
        for number, row in enumerate(rows)
    ]
    return Benchmark(
        name=request.benchmark,
        problems=problems,
        mode="chat" if chat else "base",
        max_new_tokens=1024 if chat else 512,
        stop=() if chat else stop,
        assemble=assemble,
        score=score,
    )


def boxed(text: str) -> str | None:
    """Return the content of the last `\\boxed{...}`, or None if the text has no `\\boxed` or its braces are not
    balanced.
    """
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for index in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[begin:index]
    return None


def final_answer(completion: str, mark: str, *, numbers: bool) -> str:
    """Return the final answer in a completion: the content of `\\boxed{...}`, or else the text after `mark`.

    If the completion has neither, the answer is the last number (with `numbers`) or the last line.
    """
    in_box = boxed(completion)
    if in_box is not None:
        return in_box.strip()
    if mark.strip() in completion:
        tail = completion.split(mark.strip(), 1)[1].strip()
        return tail.split("\n")[0].strip().rstrip(".")
    if not numbers:
        return completion.strip().split("\n")[-1]
    values = re.findall(r"-?\d[\d,]*(?:\.\d+)?", completion)
    return values[-1] if values else ""


def same_number(answer: str, reference: str) -> bool:
    """Whether the first number in an answer equals the reference: `$1,234.00` equals `1234`."""
    number = re.search(r"-?\d[\d,]*(?:\.\d+)?", answer.replace("\\!", ""))
    return number is not None and float(number.group().replace(",", "")) == float(reference)


def same_expression(answer: str, reference: str) -> bool:
    """Whether two expressions are mathematically equal according to math-verify."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${reference}$"), parse(f"${answer}$")))
