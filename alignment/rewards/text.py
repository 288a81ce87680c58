"""Rewards that depend only on the text of a completion: valid Python, one fenced code block, length."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from typing import Any

from alignment.rewards.answers import program_of, row_at, text_of
from alignment.rewards.reward_protocol import Completion, Prompt, RewardFunction, Scores
from alignment.sandbox.toolchains import language_of

FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+#.-]*)", re.MULTILINE)
PARSE_CHARACTERS = 1 << 18
"""Maximum length of a program that is parsed. Longer programs score 0."""


async def parses(prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any) -> Scores:
    """Score 1 if the program is valid Python, otherwise 0. Programs in other languages get no score (None).

    A program that is too long or nested too deeply for the parser scores 0.
    """
    count = len(completions)
    languages = columns.get("language") or ["python"] * count
    return [
        float(_is_python(program_of(completion, row_at(columns, index, count)))) if language == "python" else None
        for index, (completion, language) in enumerate(zip(completions, languages, strict=True))
    ]


def _is_python(program: str) -> bool:
    if not program.strip() or len(program) > PARSE_CHARACTERS or _is_too_deep(program):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about invalid escapes in the program
            ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _is_too_deep(program: str) -> bool:
    """Whether the program could exhaust the C stack of the parser, which would end the trainer's process."""
    if any(line.count("lambda") >= 80 for line in program.split("\n")):
        return True
    return re.search(r"(?:[-+~(\[{!]\s*){80}|(?:\bnot\s+){80}", program) is not None


async def fenced(prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any) -> Scores:
    """Score 1 if the answer contains exactly one closed code block with a correct label, otherwise 0.

    A label is correct if it is empty or names the language of the task.
    """
    languages = columns.get("language") or [None] * len(completions)
    return [
        float(_is_well_fenced(text_of(completion), language))
        for completion, language in zip(completions, languages, strict=True)
    ]


def _is_well_fenced(text: str, language: str | None) -> bool:
    labels = FENCE.findall(text)
    return len(labels) == 2 and (not language or not labels[0] or _is_same_language(labels[0], language))


def _is_same_language(label: str, language: str) -> bool:
    try:
        return language_of(label).name == language_of(language).name
    except ValueError:
        return label.lower() == language.lower()


def length_penalty(soft: int, hard: int) -> RewardFunction:
    """Return a reward function that is 0 up to `soft` tokens, decreases linearly, and is -1 from `hard` tokens on.

    This is the soft overlong punishment of DAPO (arXiv 2503.14476).

    Args:
        soft: length in tokens up to which there is no penalty.
        hard: length in tokens from which the penalty is -1.

    Raises:
        ValueError: `soft` is negative or not less than `hard`.
    """
    if not 0 <= soft < hard:
        raise ValueError(f"length_penalty: soft is {soft} and hard is {hard}; 0 <= soft < hard is needed")

    async def reward(prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any) -> Scores:
        # Outside of a trainer there are no token ids: the length is counted in characters.
        answers = columns.get("completion_ids") or [text_of(completion) for completion in completions]
        return [-min(1.0, max(0.0, (len(answer) - soft) / (hard - soft))) for answer in answers]

    reward.__name__ = "length_penalty"
    return reward
