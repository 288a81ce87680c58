"""From pairs of dialogues to token ids and masks for DPO.

The ids are those of TRL's DPOTrainer with Qwen2.5's template: each dialogue in ChatML, encoded as one text between special
tokens. The prompt ends where the ids of the prompt (with the start of an answer) and those of both dialogues diverge. The mask
covers all ids after the prompt, except turns of the user: TRL's own mask has those too. Unlike with a rendered template,
special tokens written in messages stay plain text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TypedDict

from alignment.models import formats
from alignment.models.formats import Tokenizer
from alignment.rows.dialogue_pairs import Dialogue, DialoguePair


class PairSample(TypedDict):
    """A pair as DPOTrainer takes it (ids), and the tokens of each answer that the loss covers (masks, 0 or 1)."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_mask: list[int]
    rejected_mask: list[int]


def tokenize_pair(pair: DialoguePair, tokenizer: Tokenizer) -> PairSample:
    """Encode a pair; raises ValueError if the tokenizer lacks ChatML's special tokens."""
    shared, _ = _encode(tokenizer, pair.prompt, [])
    header = _answer_header(tokenizer)
    prompt_ids = [*shared, formats.token_id(tokenizer, formats.IM_START), *header]
    chosen_ids, chosen_mask = _encode(tokenizer, pair.prompt, pair.chosen)
    rejected_ids, rejected_mask = _encode(tokenizer, pair.prompt, pair.rejected)
    size = min(_shared_length(prompt_ids, chosen_ids), _shared_length(prompt_ids, rejected_ids))
    if pair.chosen[0]["role"] == pair.rejected[0]["role"] == "assistant":
        # If one answer's first token reaches into the prompt's last, the prompt of both ends before it.
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


def _encode(tokenizer: Tokenizer, prompt: Dialogue, answers: Dialogue) -> tuple[list[int], list[int]]:
    """The ids of a dialogue and a mask of the tokens that are learned: what the assistant says in `answers`."""
    start, end = (formats.token_id(tokenizer, token) for token in (formats.IM_START, formats.IM_END))
    newline, header = formats.encode_text(tokenizer, "\n"), _answer_header(tokenizer)
    ids: list[int] = []
    mask: list[int] = []
    messages = [*prompt, *answers]
    system = [] if messages[0]["role"] == "system" else [{"role": "system", "content": formats.DEFAULT_SYSTEM_PROMPT}]
    for number, message in enumerate([*system, *messages], -len(system)):
        text = formats.encode_text(tokenizer, f"{message['role']}\n{message['content']}")
        turn = [start, *text, end, *newline]
        learned = number >= len(prompt) and message["role"] == "assistant"
        skipped = 1 + _shared_length(header, text) if learned else len(turn)
        ids += turn
        mask += [0] * skipped + [1] * (len(turn) - skipped)
    return ids, mask


def _answer_header(tokenizer: Tokenizer) -> list[int]:
    return formats.encode_text(tokenizer, "assistant\n")


def _shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of ids that two sequences begin with in common."""
    return sum(1 for _ in takewhile(lambda ids: ids[0] == ids[1], zip(first, second, strict=False)))
