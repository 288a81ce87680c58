"""Split rows into segments, before tokenization. A segment is a piece of plain text or one special token.

A document row is plain text, fill-in-the-middle (FIM) or the files of a repository. A conversation row is written in
ChatML. Each special token is a separate segment, and text segments are never parsed for special tokens. Text in a row
therefore can't become a special token.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from alignment.models import formats
from alignment.models.model_family import QWEN2_5, ModelFamily
from alignment.recipe.schema import DataSource
from alignment.recipe.stage_parts import Fim
from alignment.rows.kinds import Row, check_columns, check_document, document_files, kind_of
from alignment.rows.messages import check_learned, conversation_of, is_learned
from alignment.tokenization.fim_windows import FimWindows, TokenSample
from alignment.tokenization.related_chunks import RepositoryFiles, language_of, with_repositories
from data_builders.parsing.languages import detect
from data_builders.parsing.syntax_spans import random_span, syntax_span

FimSpans = Literal["lines", "characters", "syntax"]
PROBES = 4
"""Number of prompts that are kept from a stage's rows, for the check that the trained model's answers end."""


class Segment(NamedTuple):
    """A piece of plain text or one special token of a row."""

    text: str
    special: bool
    """Whether `text` is one special token."""
    learned: bool
    """Whether the loss covers this segment."""


@dataclass(frozen=True)
class TokenizationRules:
    """Settings that determine how rows become samples. Cached token ids are reused only under the same rules."""

    max_length: int
    """Largest number of tokens in a sample."""
    overlong: Literal["drop", "error", "split"]
    """What happens to a sample with more than `max_length` tokens."""
    fim_rate: float
    """Share of documents that become FIM documents."""
    spm_rate: float
    """Share of FIM documents in suffix-prefix-middle order."""
    fim_spans: FimSpans
    """Where the middle of a FIM document may start and end; see `choose_span`."""
    packing: str | None
    """`fill` (alignment.tokenization.packing), a packing strategy of TRL, or None for no packing."""
    context_fim: Fim | None = None
    """The stage's `fim:` if its level is `context`. The FIM rates and spans above are then not used."""


def row_segments(
    source: DataSource,
    rules: TokenizationRules,
    rng: random.Random,
    counts: Counter[str],
    probes: list[str],
    rows: Iterable[tuple[int, Row]],
    windows: FimWindows | None = None,
    family: ModelFamily = QWEN2_5,
) -> Iterator[list[Segment] | TokenSample]:
    """Yield the segments of each row of a `data:` entry, and the samples of documents for context-level FIM.

    Args:
        source: the entry, with an absolute path.
        rules: FIM rates and spans.
        rng: random generator of the FIM draws.
        counts: counter that is increased for each row, keyed by how the row was used.
        probes: list to which up to `PROBES` prompts of conversations are added.
        rows: (row number, row) pairs of the rows to use.
        windows: cuts documents for context-level FIM. None for document level.
        family: the family of the model that is trained.

    Raises:
        ValueError: a row is malformed, or neither a document nor a conversation. The message names file and row.
    """
    with_files = rules.context_fim is not None and rules.context_fim.context_files_rate > 0
    for number, row, related in with_repositories(rows) if with_files else ((*row, None) for row in rows):
        where = f"{source.data}, row {number}"
        kind = kind_of(row, where)
        check_columns(row, kind, where)
        counts["rows"] += 1
        if kind == "document" and windows is not None:
            yield from document_windows(row, windows, counts, where, related)
        elif kind == "document":
            document = document_pieces(row, rules, rng, counts, where)
            if document:
                yield [Segment(text, special, True) for text, special in document]
        elif kind == "conversation":
            messages, tools = conversation_of(row, where)
            if len(probes) < PROBES and len(messages) > 1 and messages[-1]["role"] == "assistant":
                probes.append(formats.chat(messages[:-1], True, tools=tools, escape=True, family=family))
            yield list(chat_segments(messages, where, tools, family))
        else:
            raise ValueError(f"{where}: a {kind} can't be trained on here; use documents and conversations")


def document_pieces(
    row: Row, rules: TokenizationRules, rng: random.Random, counts: Counter[str], where: str
) -> list[tuple[str, bool]]:
    """Split a document into (text, special) pieces, where `special` says whether the text is a special token.

    A draw with probability `rules.fim_rate` makes the document a FIM document. If the row holds the files of a
    repository, only the last file can become FIM.

    Args:
        row: a row with `text`, or with `repository` and `files`.
        rules: FIM rates and spans.
        rng: random generator of the draws.
        counts: counter whose `repo_level`, `empty` and `fim` are increased.
        where: file and row number, for errors.

    Returns:
        The pieces. The list is empty for an empty text.

    Raises:
        ValueError: the text is not a string, or contains written-out special tokens.
    """
    check_document(row, where)
    before: list[tuple[str, bool]] = []
    language = str(row.get("language") or "")
    if files := document_files(row, where):
        path, text = files[-1]
        if rules.fim_spans == "syntax":
            language = detect(path, text)
        before = formats.repo_segments(row.get("repository") or "repository", files[:-1])
        before += [(formats.FILE_SEP, True), (f"{path}\n", False)]
        counts["repo_level"] += 1
    else:
        text = row["text"]
    if not text:
        counts["empty"] += 1
        return []
    if rng.random() < rules.fim_rate and (span := choose_span(text, rng, rules.fim_spans, language)):
        start, end = span
        mode: formats.FimMode = "spm" if rng.random() < rules.spm_rate else "psm"
        counts["fim"] += 1
        return before + formats.fim_segments(text[:start], text[start:end], text[end:], mode)
    return [*before, (text, False), (formats.ENDOFTEXT, True)]


def document_windows(
    row: Row, windows: FimWindows, counts: Counter[str], where: str, related: RepositoryFiles | None = None
) -> Iterator[TokenSample]:
    """Yield the samples of a document for context-level FIM.

    Args:
        row: a row with `text`, or with `repository` and `files`.
        windows: cuts the document.
        counts: counter whose `repo_level` and `empty` are increased.
        where: file and row number, for errors.
        related: the files of the row's repository, for a row with `text`.

    Raises:
        ValueError: the text is not a string, or contains written-out special tokens.
    """
    check_document(row, where)
    if files := document_files(row, where):
        counts["repo_level"] += 1
        languages = [detect(path, text) for path, text in files]
        yield from windows.repository_samples(row.get("repository") or "repository", files, languages)
    elif row["text"]:
        yield from windows.document_samples(row["text"], language_of(row), str(row.get("path") or ""), related)
    else:
        counts["empty"] += 1


def choose_span(text: str, rng: random.Random, spans: FimSpans, language: str = "") -> tuple[int, int] | None:
    """Choose the middle of a FIM document.

    Args:
        text: the document.
        rng: random generator of the draws.
        spans: `characters` and `lines` draw two cuts uniformly (arXiv 2207.14255, section 3), between characters or at
            line ends. `syntax` takes a node of the syntax tree with probability 1/2, and otherwise does the same as
            `characters`.
        language: language of the text, for `syntax`.

    Returns:
        Start and end of the middle, or None if the text is too short.
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


def chat_segments(
    messages: Sequence[Mapping[str, Any]],
    where: str,
    tools: Sequence[Mapping[str, Any]] = (),
    family: ModelFamily = QWEN2_5,
) -> Iterator[Segment]:
    """Yield the segments of a conversation in ChatML.

    The assistant's turns and the `<|im_end|>` after them are learned.

    Args:
        messages: messages as `alignment.rows.messages.messages_of` returns them. A key of
            `alignment.rows.messages.LOSS_MARKS` can exclude an answer from the loss. The family's default system
            prompt is added if the first message is not a system prompt.
        where: file and row number, for errors.
        tools: descriptions of the tools, for the system message.
        family: the family of the model that is trained.

    Raises:
        ValueError: the conversation has no answer to learn, or a blank answer, or tools that the family's template
            can't write.
    """
    check_learned(messages, where)
    try:
        turns = formats.chat_turns(messages, tools, family)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    for turn in turns:
        learned = turn.first >= 0 and is_learned(messages[turn.first])
        yield Segment(formats.IM_START, True, False)
        pieces = turn.pieces
        if turn.role == "assistant":
            # Split where generation starts, so that training and inference have the same tokens.
            yield Segment("assistant\n", False, False)
        else:
            (text, _), *pieces = turn.pieces
            yield Segment(f"{turn.role}\n{text}", False, False)
        for text, special in pieces:
            yield Segment(text, special, learned)
        yield Segment(formats.IM_END, True, learned)
        yield Segment("\n", False, False)
