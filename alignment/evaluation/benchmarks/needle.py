"""Needle in a haystack for code: find a constant that a function in a long file returns.

`needle-32k` fills 32,768 tokens with modules of Python's standard library, or with the `text` of the user's rows, and
hides the function (the needle) at eleven depths. The end of the file asks for the constant. A model that uses a long
context must find the needle. But finding the needle is not sufficient: the model may still fail at tasks that need the
whole file.
"""

from __future__ import annotations

import functools
import random
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.problem import Benchmark, Problem
from alignment.models import formats
from alignment.models.model_family import family_of
from alignment.rows.reading import read_rows

LENGTHS = {"needle-8k": 8192, "needle-32k": 32_768, "needle-128k": 131_072}
"""Name of the benchmark -> length of prompt and answer together, in tokens."""
DEPTHS = tuple(step / 10 for step in range(11))
VARIANTS = 3
ANSWER_TOKENS = 16
_WORDS = ("amber", "basalt", "cedar", "delta", "ember", "fjord", "garnet", "harbor", "indigo", "juniper", "kelp")
_MARGIN = 24
"""Tokens kept in reserve: the parts of the file may have a few more tokens after they are joined."""


class Filler:
    """The text that surrounds the needles. All problems share one object, so that the text is tokenized once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokenizer: Any = None
        self._ids: list[int] = []

    def ids(self, tokenizer: Any) -> list[int]:
        """Return the token ids of the whole filler text."""
        if self._tokenizer is not tokenizer:
            self._tokenizer, self._ids = tokenizer, _encode(tokenizer, self.text)
        return self._ids


@dataclass(frozen=True)
class HaystackPrompt:
    """A file with a needle at some depth and a question at the end. File and answer together have `length` tokens."""

    filler: Filler
    needle: str
    question: str
    depth: float
    """Position of the needle: 0 is the beginning of the file, 1 is the end."""
    length: int
    start: float
    """Position in the filler at which the file begins, from 0 to 1. Variants start at different positions."""
    chat: bool

    def text(self, tokenizer: Any) -> str:
        ids = self.filler.ids(tokenizer)
        without_filler = self._with_question(f"\n\n\n{self.needle}\n\n\n", tokenizer)
        filler_tokens = self.length - len(_encode(tokenizer, without_filler)) - ANSWER_TOKENS - _MARGIN
        if filler_tokens < 1:
            raise ValueError(f"{self.length} tokens are too few for needle, question and answer: use a longer needle-*")
        first = int(self.start * len(ids))
        filler_ids = [ids[(first + offset) % len(ids)] for offset in range(filler_tokens)]
        lines = tokenizer.decode(filler_ids).splitlines(keepends=True)
        line = round(self.depth * len(lines))
        before, after = "".join(lines[:line]), "".join(lines[line:])
        return self._with_question(f"{before.rstrip()}\n\n\n{self.needle}\n\n{after.rstrip()}\n", tokenizer)

    def _with_question(self, file: str, tokenizer: Any) -> str:
        if not self.chat:
            return file + self.question
        message = f"{file}\n\nComplete the last line; answer with the number alone:\n\n{self.question.strip()}"
        family = family_of(tokenizer)
        safe = formats.escape_special_text(message, family)
        return formats.chat([{"role": "user", "content": safe}], True, family=family)

    def encode(self, tokenizer: Any) -> list[int]:
        return _encode(tokenizer, self.text(tokenizer))


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def needle(request: BenchmarkRequest) -> Benchmark:
    """Create a needle benchmark with three variants at each of eleven depths.

    The scores are `retrieved`, and for each depth one such as `retrieved@50%`.
    """
    length = LENGTHS[request.benchmark]
    filler = Filler(_rows_text(request.data) if request.data is not None else _library())
    generator = random.Random(length)
    problems = []
    for variant in range(VARIANTS):
        for depth in DEPTHS:
            word, value = generator.choice(_WORDS), str(generator.randrange(100_000, 1_000_000))
            name = f"{word}_{generator.randrange(100, 1000)}"
            prompt = HaystackPrompt(
                filler,
                f"def code_of_{name}():\n    return {value}\n",
                f"\n\nassert code_of_{name}() == ",
                depth,
                length,
                variant / VARIANTS,
                request.mode == "chat",
            )
            problems.append(Problem(f"{variant}-{depth:.1f}", prompt, reference=value, row={"depth": depth}))
    return Benchmark(
        name=request.benchmark,
        problems=problems,
        max_new_tokens=ANSWER_TOKENS,
        stop=("\n\n",),
        score=_retrieval_scores,
        mode="chat" if request.mode == "chat" else "base",
    )


def _retrieval_scores(problem: Problem, answer: str) -> dict[str, float]:
    """Return score 1 if the first number in the answer is the needle's constant, else 0."""
    numbers = "".join(character if character.isdigit() else " " for character in answer).split()
    retrieved = float(bool(numbers) and numbers[0] == problem.reference)
    return {"retrieved": retrieved, f"retrieved@{problem.row['depth']:.0%}": retrieved}


def _rows_text(data: str) -> str:
    text = "\n".join(str(row["text"]) for row in read_rows(data) if row.get("text"))
    if not text:
        raise ValueError(
            f"{data}: no row has the column `text`, from which the file around the needle is made: name rows with `text`"
        )
    return text


@functools.cache
def _library() -> str:
    """Return the joined source text of large modules of Python's standard library, in a fixed order."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    names = (
        "argparse", "ast", "calendar", "configparser", "datetime", "difflib", "doctest", "fractions", "inspect", "tarfile",
    )  # fmt: skip
    return "\n".join(path.read_text(encoding="utf-8") for name in names if (path := folder / f"{name}.py").is_file())
