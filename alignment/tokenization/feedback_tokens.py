"""Turn feedback rows into token ids for KTO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from alignment.models import formats
from alignment.models.formats import Tokenizer
from alignment.rows.dialogue_pairs import DialoguePair
from alignment.rows.feedback_rows import ChatFeedback, EditorFeedback
from alignment.tokenization.pair_tokens import tokenize_pair


class FeedbackSample(TypedDict):
    """Tokenized feedback for KTOTrainer."""

    prompt_ids: list[int]
    completion_ids: list[int]
    """The answer with the tokens that end it."""
    label: bool


def tokenize_feedback(feedback: ChatFeedback | EditorFeedback, tokenizer: Tokenizer) -> FeedbackSample:
    """Tokenize one piece of feedback: a conversation in ChatML, or a completion in the fill-in-the-middle format.

    Written-out special tokens stay plain text. A completion ends with `<|endoftext|>`, as in training on documents.
    """
    if isinstance(feedback, EditorFeedback):
        segments = formats.fim_segments(feedback.prefix, None, feedback.suffix)
        return {
            "prompt_ids": formats.encode_segments(tokenizer, segments),
            "completion_ids": [
                *formats.encode_text(tokenizer, feedback.completion),
                formats.token_id(tokenizer, formats.ENDOFTEXT),
            ],
            "label": feedback.accepted,
        }
    # A pair of the answer with itself shares everything up to the answer.
    pair = DialoguePair(feedback.prompt, [feedback.answer], [feedback.answer], feedback.tools)
    sample = tokenize_pair(pair, tokenizer)
    return {
        "prompt_ids": sample["prompt_ids"],
        "completion_ids": sample["chosen_ids"],
        "label": feedback.accepted,
    }


def mismatched_completions(completions: Sequence[list[int]], batch: int) -> list[list[int]]:
    """Return, for each prompt, the completion of the row before it in its batch; the first row gets the batch's last
    one.

    KTO estimates its reference point from these pairs (arXiv 2402.01306, section 4.1). TRL's KTOTrainer makes them in
    the same way.
    """
    shifted: list[list[int]] = []
    for start in range(0, len(completions), batch):
        part = list(completions[start : start + batch])
        shifted += [part[-1], *part[:-1]]
    return shifted
