"""Texts and programs in completions, and the values of one row among the columns of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignment.evaluation.extraction import extract_code
from alignment.rewards.reward_protocol import Completion, Prompt


def text_of(message: Prompt | Completion) -> str:
    """Return a text itself, or the content of the last message of a conversation."""
    if isinstance(message, str):
        return message
    return str(message[-1].get("content") or "") if message else ""


def row_columns(columns: Mapping[str, Any], count: int) -> dict[str, Sequence[Any]]:
    """Return the columns that have one value per completion; TRL adds others, such as `trainer_state`."""
    return {
        name: values
        for name, values in columns.items()
        if isinstance(values, Sequence) and not isinstance(values, str) and len(values) == count
    }


def row_at(columns: Mapping[str, Any], index: int, count: int) -> dict[str, Any]:
    """Return the values of one completion in a batch of `count`."""
    return {name: values[index] for name, values in row_columns(columns, count).items()}


def program_of(completion: Completion, row: Mapping[str, Any]) -> str:
    """Return the program that is graded for a completion.

    Fill-in-the-middle rows (columns `prefix` and `suffix`) give prefix + completion + suffix; of any other answer the
    code in `language` is taken, preferably the block that defines `entry_point`.
    """
    text = text_of(completion)
    if row.get("prefix") is not None and row.get("suffix") is not None:
        return f"{row['prefix']}{text}{row['suffix']}"
    return extract_code(text, language=row.get("language") or "python", entry_point=row.get("entry_point"))
