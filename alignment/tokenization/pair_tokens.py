"""Turn pairs of dialogues into token ids and loss masks for DPO.

The token ids equal those of TRL's DPOTrainer with Qwen2.5's chat template: each dialogue is written in ChatML, and the
text between two special tokens is encoded in one piece. Three sequences are compared: the prompt followed by the header
of an answer, and the two full dialogues. The shared prompt ends at the first position at which the three sequences are
not equal. The mask covers all ids after the prompt except the user's turns, which TRL's own mask includes. Special
tokens that are written out in messages stay plain text; with a rendered template they would become special tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, TypedDict

from alignment.models import formats
from alignment.models.formats import Tokenizer
from alignment.models.model_family import family_of
from alignment.rows.dialogue_pairs import Dialogue, DialoguePair


class PairSample(TypedDict):
    """A tokenized pair for DPOTrainer. The mask of an answer is 1 for tokens that the loss covers, else 0."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_mask: list[int]
    rejected_mask: list[int]


def tokenize_pair(pair: DialoguePair, tokenizer: Tokenizer) -> PairSample:
    """Tokenize a pair of dialogues.

    Raises:
        ValueError: the tokenizer does not have ChatML's special tokens.
    """
    shared, _ = _encode(tokenizer, pair.prompt, [], pair.tools)
    header = _answer_header(tokenizer)
    prompt_ids = [*shared, formats.token_id(tokenizer, formats.IM_START), *header]
    chosen_ids, chosen_mask = _encode(tokenizer, pair.prompt, pair.chosen, pair.tools)
    rejected_ids, rejected_mask = _encode(tokenizer, pair.prompt, pair.rejected, pair.tools)
    size = min(_shared_length(prompt_ids, chosen_ids), _shared_length(prompt_ids, rejected_ids))
    if pair.chosen[0]["role"] == pair.rejected[0]["role"] == "assistant":
        # An answer's first characters may merge with the end of the prompt into one token. Then the shared prompt ends
        # before this token, and the masks cover the token too.
        for mask in (chosen_mask, rejected_mask):
            start = mask.index(1)
            mask[size:start] = [1] * (start - size)
    return {
        "prompt_ids": prompt_ids[:size],
        "chosen_ids": chosen_ids[size:],
        "rejected_ids": rejected_ids[size:],
        "chosen_mask": chosen_mask[size:],
        "rejected_mask": rejected_mask[size:],
    }


def _encode(
    tokenizer: Tokenizer, prompt: Dialogue, answers: Dialogue, tools: Sequence[dict[str, Any]]
) -> tuple[list[int], list[int]]:
    """Return the ids of a dialogue and a mask that is 1 for learned tokens: the assistant's text in `answers`."""
    start, end = (formats.token_id(tokenizer, token) for token in (formats.IM_START, formats.IM_END))
    newline, header = formats.encode_text(tokenizer, "\n"), _answer_header(tokenizer)
    ids: list[int] = []
    mask: list[int] = []
    for turn in formats.chat_turns([*prompt, *answers], tools, family_of(tokenizer)):
        (first, _), *pieces = turn.pieces
        text = formats.encode_segments(tokenizer, [(f"{turn.role}\n{first}", False), *pieces])
        whole = [start, *text, end, *newline]
        learned = turn.first >= len(prompt) and turn.role == "assistant"
        skipped = 1 + _shared_length(header, text) if learned else len(whole)
        ids += whole
        mask += [0] * skipped + [1] * (len(whole) - skipped)
    return ids, mask


def _answer_header(tokenizer: Tokenizer) -> list[int]:
    return formats.encode_text(tokenizer, "assistant\n")


def _shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the longest common prefix of two sequences."""
    return sum(1 for _ in takewhile(lambda ids: ids[0] == ids[1], zip(first, second, strict=False)))
