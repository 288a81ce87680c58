"""Extracts texts and programs from completions, and extracts the values of one row from the columns of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignment.evaluation.answer_forms import ANSWER, program_of_answer
from alignment.rewards.reward_protocol import Completion, Prompt

SUBMISSION = "submission"
"""Name of the column with the program that a rollout last submitted to its environment (None: no submission)."""


def text_of(message: Prompt | Completion) -> str:
    """Return `message` if it is a text, or the content of the last message if it is a conversation.

    If the last message is the result of a tool, return an empty text, because the model did not write this message.
    """
    if isinstance(message, str):
        return message
    if not message or message[-1].get("role") == "tool":
        return ""
    return str(message[-1].get("content") or "")


def row_columns(columns: Mapping[str, Any], count: int) -> dict[str, Sequence[Any]]:
    """Return the columns that have one value per completion. Leave out arguments such as `trainer_state`."""
    return {
        name: values
        for name, values in columns.items()
        if isinstance(values, Sequence) and not isinstance(values, str) and len(values) == count
    }


def row_at(columns: Mapping[str, Any], index: int, count: int) -> dict[str, Any]:
    """Return the column values of the completion at position `index` in a batch of `count` completions."""
    return {name: values[index] for name, values in row_columns(columns, count).items()}


def program_of(completion: Completion, row: Mapping[str, Any]) -> str:
    """Return the program that is graded for a completion.

    If a program was submitted to the rollout's environment, that program is graded. For fill-in-the-middle rows
    (columns `prefix` and `suffix`, no `answer`), the program is prefix + completion + suffix. For other rows, the
    program depends on the row's answer form (`alignment.evaluation.answer_forms`).
    """
    if row.get(SUBMISSION) is not None:
        return str(row[SUBMISSION])
    text = text_of(completion)
    if row.get("prefix") is not None and row.get("suffix") is not None and not row.get(ANSWER):
        return f"{row['prefix']}{text}{row['suffix']}"
    return program_of_answer(row, text)
