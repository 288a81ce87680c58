"""Needle in a haystack, for code: a constant that one function returns, hidden at eleven depths of a long file, asked at its end.

`needle-32k` fills 32,768 tokens with Python's own library (or with the `text` of your rows). Retrieval is necessary for using
a long context and not sufficient: a model may find a needle and still fail at tasks that need the whole file.
"""

from __future__ import annotations

import functools
import random
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.evaluation.benchmark_rows import read_rows
from alignment.evaluation.problem import Benchmark, Problem
from alignment.models import formats

LENGTHS = {"needle-8k": 8192, "needle-32k": 32_768, "needle-128k": 131_072}
DEPTHS = tuple(step / 10 for step in range(11))
VARIANTS = 3
ANSWER_TOKENS = 16
_WORDS = ("amber", "basalt", "cedar", "delta", "ember", "fjord", "garnet", "harbor", "indigo", "juniper", "kelp")
_MARGIN = 24  # tokens that the seams may add


@dataclass(frozen=True)
class Haystack:
    """A file of `length` tokens with the needle at `depth` (0 is its beginning), and the question at its end."""

    filler: str
    needle: str
    question: str
    depth: float
    length: int
    start: float
    """Where in the filler the file begins, as a share: variants read other code."""
    chat: bool

    def text(self, tokenizer: Any) -> str:
        ids = _ids(tokenizer, self.filler)
        empty = self._asked(f"\n\n\n{self.needle}\n\n\n")
        room = self.length - len(_encode(tokenizer, empty)) - ANSWER_TOKENS - _MARGIN
        if room < 1:
            raise ValueError(f"{self.length} tokens leave no room for a haystack")
        first = int(self.start * len(ids))
        taken = [ids[(first + offset) % len(ids)] for offset in range(room)]
        lines = tokenizer.decode(taken).splitlines(keepends=True)
        at = round(self.depth * len(lines))
        before, after = "".join(lines[:at]), "".join(lines[at:])
        return self._asked(f"{before.rstrip()}\n\n\n{self.needle}\n\n{after.rstrip()}\n")

    def _asked(self, file: str) -> str:
        if not self.chat:
            return file + self.question
        asked = f"{file}\n\nComplete the last line; answer with the number alone:\n\n{self.question.strip()}"
        return formats.chat([{"role": "user", "content": formats.escape_special_text(asked)}], True)

    def encode(self, tokenizer: Any) -> list[int]:
        return _encode(tokenizer, self.text(tokenizer))


def _encode(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def needle(request: BenchmarkRequest) -> Benchmark:
    """Eleven depths, three variants each; `retrieved` is the share found, `retrieved@50%` that at one depth."""
    length = LENGTHS[request.benchmark]
    filler = _rows_text(request.data) if request.data is not None else _library()
    draw = random.Random(length)
    problems = []
    for variant in range(VARIANTS):
        for depth in DEPTHS:
            word, value = draw.choice(_WORDS), str(draw.randrange(100_000, 1_000_000))
            name = f"{word}_{draw.randrange(100, 1000)}"
            hidden = f"def code_of_{name}():\n    return {value}\n"
            prompt = Haystack(
                filler,
                hidden,
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
        score=_found,
        mode="chat" if request.mode == "chat" else "base",
    )


def _found(problem: Problem, answer: str) -> dict[str, float]:
    digits = "".join(character if character.isdigit() else " " for character in answer).split()
    right = float(bool(digits) and digits[0] == problem.reference)
    return {"retrieved": right, f"retrieved@{problem.row['depth']:.0%}": right}


def _rows_text(data: str) -> str:
    text = "\n".join(str(row["text"]) for row in read_rows(data) if row.get("text"))
    if not text:
        raise ValueError(f"{data}: no row has `text` to make a haystack of")
    return text


@functools.cache
def _library() -> str:
    """A few large modules of this Python's own library, in a fixed order."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    names = (
        "argparse",
        "ast",
        "calendar",
        "configparser",
        "datetime",
        "difflib",
        "doctest",
        "fractions",
        "inspect",
        "tarfile",
    )
    return "\n".join(path.read_text(encoding="utf-8") for name in names if (path := folder / f"{name}.py").is_file())


_KNOWN: dict[tuple[int, int], tuple[Any, list[int]]] = {}


def _ids(tokenizer: Any, filler: str) -> list[int]:
    """The filler's ids, tokenized once: all problems share it."""
    key = (id(tokenizer), hash(filler))
    if key not in _KNOWN or _KNOWN[key][0] is not tokenizer:
        _KNOWN[key] = (tokenizer, _encode(tokenizer, filler))
    return _KNOWN[key][1]
