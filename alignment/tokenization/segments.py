"""What rows become: pieces of text, each with what it is, before any tokenizer sees them.

A document is text, fill-in-the-middle or a repository's files; a conversation is ChatML. Text is never parsed for special
tokens: those are pieces of their own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.models import formats
from alignment.rows.kinds import Row, kind_of, messages_of
from alignment.tokenization.screen import Screen
from data_builders.parsing.languages import detect
from data_builders.parsing.syntax_spans import random_span, syntax_span

Segments = list[tuple[str, bool]]
"""Texts, and whether each is one special token."""


@dataclass(frozen=True)
class Rules:
    """How rows become samples."""

    max_length: int
    overlong: str
    """drop, error or split."""
    fim_rate: float
    spm_rate: float
    fim_spans: str
    packing: str | None
    """`fill`, a packing strategy of TRL's, or None."""


def segments_of(
    source: Any, rules: Rules, rng: random.Random, counted: Counter[str], probes: list[str], screen: Screen
) -> Iterator[list[tuple[str, bool, bool]]]:
    """Each row as `(text, special, learned)` segments."""
    for number, row in screen.rows(source, counted):
        where = f"{source.data}, row {number}"
        kind = kind_of(row, where)
        counted["rows"] += 1
        if kind == "document":
            document = document_segments(row, rules, rng, counted, where)
            if document:
                yield [(text, special, True) for text, special in document]
        elif kind == "conversation":
            messages = messages_of(row["messages"], where)
            if len(probes) < 4 and len(messages) > 1 and messages[-1]["role"] == "assistant":
                asked = [{**m, "content": formats.escape_special_text(m["content"])} for m in messages[:-1]]
                probes.append(formats.chat(asked, add_generation_prompt=True))
            yield list(chat_segments(messages, where))
        else:
            raise ValueError(f"{where}: a {kind} can't be trained on here; documents and conversations can")


def document_segments(row: Row, rules: Rules, rng: random.Random, counted: Counter[str], where: str) -> Segments:
    """A document, a FIM document at the given rate, or a repo-level document with FIM in its last file."""
    before: Segments = []
    language = str(row.get("language") or "")
    if row.get("files"):
        files = [(file["path"], file["text"]) for file in row["files"]]
        path, text = files[-1]
        if rules.fim_spans == "syntax":
            language = detect(path, text)
        before = formats.repo_segments(row.get("repository") or "repository", files[:-1])
        before += [(formats.FILE_SEP, True), (f"{path}\n", False)]
        counted["repo_level"] += 1
    else:
        text = row["text"]
    if not isinstance(text, str):
        raise ValueError(f"{where}: `text` must be text, not {type(text).__name__}")
    if not text:
        counted["empty"] += 1
        return []
    if str(row.get("format") or "plain") != "plain":
        raise ValueError(
            f"{where}: the row is a {row['format']} document for another trainer: its special tokens stand in its text, "
            "and would be read as text. Name the corpus itself; the stage's `fim:` cuts it."
        )
    if rng.random() < rules.fim_rate and (span := choose_span(text, rng, rules.fim_spans, language)):
        start, end = span
        mode: formats.FimMode = "spm" if rng.random() < rules.spm_rate else "psm"
        counted["fim"] += 1
        return before + formats.fim_segments(text[:start], text[start:end], text[end:], mode)
    return [*before, (text, False), (formats.ENDOFTEXT, True)]


def choose_span(text: str, rng: random.Random, spans: str, language: str = "") -> tuple[int, int] | None:
    """Where the middle starts and ends: two uniform cuts (arXiv 2207.14255, section 3) by character or by line.

    `syntax`: for half of the documents a node of the syntax tree, where the language is known and has one.
    """
    if spans == "syntax":
        if rng.random() < 0.5 and (node := syntax_span(text, language, rng)):
            return node
        spans = "characters"
    if spans == "characters":
        return random_span(text, rng, min_characters=2)
    edges = [0]
    for line in text.splitlines(keepends=True):
        edges.append(edges[-1] + len(line))
    if len(edges) < 3:
        return None
    first, last = sorted(rng.sample(range(len(edges)), 2))
    return edges[first], edges[last]


def chat_segments(messages: Sequence[dict[str, str]], where: str) -> Iterator[tuple[str, bool, bool]]:
    """ChatML as segments; learned are the assistant's words and the `<|im_end|>` that ends them.

    Text is never parsed for special tokens, so a message that quotes `<|im_end|>` can't end itself.
    """
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": formats.DEFAULT_SYSTEM_PROMPT}, *messages]
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError(f"{where}: no message of the assistant to learn from")
    for message in messages:
        answer = message["role"] == "assistant"
        yield formats.IM_START, True, False
        if answer:
            # Cut where generation starts, so that training and inference see the same tokens.
            yield "assistant\n", False, False
            yield message["content"], False, True
        else:
            yield f"{message['role']}\n{message['content']}", False, False
        yield formats.IM_END, True, answer
        yield "\n", False, False
