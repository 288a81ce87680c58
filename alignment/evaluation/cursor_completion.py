"""Completes a file at a cursor, with the prompt of the benchmark `editor`: what stands before the cursor, and what
follows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignment.evaluation.body_end import cut_at_body_end
from alignment.evaluation.engines.protocol import Engine, Finish, GenerationJob
from alignment.evaluation.problem import FimPrompt
from alignment.models import formats

_PREFIX_SHARE = 0.75
"""Share of the prompt that is left to the text before the cursor, in a file that is longer than the model's context."""


@dataclass(frozen=True)
class CursorCompletion:
    """What a model writes at a cursor."""

    text: str
    finish: Finish
    """See `Completion.finish`."""
    prompt_tokens: int
    shortened: bool
    """Whether parts of the file were left out, because the file is longer than the model's context."""


def prompt_at(text: str, line: int, column: int | None) -> FimPrompt:
    """Return the prompt for a cursor in a text.

    Args:
        text: the whole file.
        line: line of the cursor, from 1.
        column: column of the cursor in characters, from 1: the cursor stands before this character. None is the end of
            the line.

    Raises:
        ValueError: the text has no such line, or the line has no such column.
    """
    lines = text.split("\n")  # as editors count: not at form feeds and other separators
    if not 1 <= line <= len(lines):
        raise ValueError(f"there is no line {line}: the file has {len(lines)}")
    length = len(lines[line - 1].removesuffix("\r"))
    if column is not None and not 1 <= column <= length + 1:
        raise ValueError(
            f"line {line} has no column {column}: it has {length} characters, so the last column is {length + 1}"
        )
    offset = sum(len(earlier) + 1 for earlier in lines[: line - 1]) + (length if column is None else column - 1)
    return FimPrompt(text[:offset], text[offset:])


def complete(engine: Engine, prompt: FimPrompt, language: str, max_new_tokens: int) -> CursorCompletion:
    """Complete greedily, and cut the completion where the function body ends, as the benchmark does.

    Args:
        engine: the model.
        prompt: the text around the cursor.
        language: language of the file, or "" if it is unknown. Then the completion is not cut.
        max_new_tokens: largest number of generated tokens.

    Raises:
        ValueError: the model's context has no room for a prompt.
    """
    budget = engine.max_length - max_new_tokens
    if budget < 1:
        raise ValueError(
            f"{max_new_tokens} new tokens do not fit into the model's {engine.max_length} positions: ask for fewer"
        )
    shown, ids = _shortened(engine, prompt, budget)
    stop = formats.stop_token_ids(engine.tokenizer, formats.FIM_STOP_TOKENS)
    job = GenerationJob("cursor", ids, max_new_tokens, stop_ids=tuple(stop))
    ((_, completion),) = engine.generate([job])
    text = cut_at_body_end(shown.prefix, completion.text, language) if language else completion.text
    return CursorCompletion(text, completion.finish, len(ids), shown != prompt)


def _shortened(engine: Engine, prompt: FimPrompt, budget: int) -> tuple[FimPrompt, list[int]]:
    """Return the prompt with at most `budget` tokens, and its token ids. Text far from the cursor is left out."""
    ids = prompt.encode(engine.tokenizer)
    while len(ids) > budget:
        characters = int((len(prompt.prefix) + len(prompt.suffix)) * budget / len(ids) * 0.95)
        if characters < 1:
            raise ValueError(f"the model's context has no room for a prompt beside the completion: {budget} tokens")
        suffix = prompt.suffix[: max(int(characters * (1 - _PREFIX_SHARE)), characters - len(prompt.prefix))]
        prefix = prompt.prefix[len(prompt.prefix) - min(len(prompt.prefix), characters - len(suffix)) :]
        prompt = FimPrompt(prefix, suffix)
        ids = prompt.encode(engine.tokenizer)
    return prompt, ids
