"""Converts preference rows to pairs of dialogues. The messages at the start that both dialogues share are the prompt.

As in TRL (docs, "Dataset formats", preference), a row has one of three forms: `prompt` with two answers, two whole
dialogues without `prompt`, or two whole dialogues with a `prompt` that repeats their first messages. A string is read
as one message.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Any

from alignment.rows.kinds import Row, check_columns
from alignment.rows.messages import is_blank, is_learned, messages_of
from alignment.rows.tool_calls import check_tool_turns, tools_of

Dialogue = list[dict[str, Any]]
"""Messages with `role`, `content` and, if the assistant calls tools, `tool_calls`."""


@dataclass(frozen=True)
class DialoguePair:
    """A preference: two dialogues that begin with the same messages."""

    prompt: Dialogue
    """The messages with which both dialogues begin."""
    chosen: Dialogue
    """The remaining messages of the better dialogue. The last message is from the assistant."""
    rejected: Dialogue
    """The remaining messages of the worse dialogue. The last message is from the assistant."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    """The tools that both dialogues may call."""


def pair_of(row: Row, where: str) -> DialoguePair | None:
    """Return the two dialogues of a preference row.

    Args:
        row: a row with `chosen` and `rejected`.
        where: file and row number, with which error messages begin.

    Returns:
        The pair, or None if the dialogues differ only in Unicode normalization and whitespace at the end of messages.

    Raises:
        ValueError: the row has no prompt, an answer is missing or empty, or training would ignore a column or a loss
            mark (a key such as `weight` that excludes a message from the loss).
    """
    check_columns(row, "preference", where)
    prompt = [] if _is_empty(row.get("prompt")) else _messages(row["prompt"], f"{where}, prompt", "user")
    tools = tools_of(row, where)
    sides = [_dialogue(prompt, row, where, key) for key in ("chosen", "rejected")]
    for key, side in zip(("chosen", "rejected"), sides, strict=True):
        check_tool_turns(side, tools, f"{where}, {key}")
    if _comparable(sides[0]) == _comparable(sides[1]):
        return None
    chosen, rejected = ([_plain(message) for message in side] for side in sides)
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if not any(message["role"] == "user" for message in chosen[:shared]):
        raise ValueError(f"{where}: `chosen` and `rejected` answer different questions; both need the same `prompt`")
    for key, side in zip(("chosen", "rejected"), sides, strict=True):
        _check_answer(side[shared:], f"{where}, {key}")
    return DialoguePair(chosen[:shared], chosen[shared:], rejected[shared:], tools)


def _is_empty(prompt: Any) -> bool:
    return prompt is None or prompt == [] or (isinstance(prompt, str) and not prompt.strip())


def _messages(value: Any, where: str, role: str) -> list[dict[str, Any]]:
    return messages_of([{"role": role, "content": value}] if isinstance(value, str) else value, where)


def _dialogue(prompt: list[dict[str, Any]], row: Row, where: str, key: str) -> list[dict[str, Any]]:
    """Return the whole dialogue of one side of a preference (`key` is `chosen` or `rejected`).

    The column `key` contains either only the answer or the whole dialogue.
    """
    side = row[key]
    messages = _messages(side, f"{where}, {key}", "assistant")
    if messages[-1]["role"] != "assistant":
        raise ValueError(
            f"{where}: `{key}` must end with a message of the assistant, not of the {messages[-1]['role']}"
        )
    if messages[0]["role"] == "assistant":
        if not prompt:
            raise ValueError(
                f"{where}: a preference needs a `prompt` that is not empty, or whole dialogues in `chosen` and `rejected`, "
                "whose shared messages are the prompt"
            )
        return prompt + messages
    if not prompt:
        return messages
    asked, head = _without_system(prompt), _without_system(messages)
    repeated = [_plain(message) for message in head[: len(asked)]] == [_plain(message) for message in asked]
    if asked and (repeated or (isinstance(row["prompt"], str) and _asks(head, row["prompt"]))):
        systems = [dialogue[0] for dialogue in (prompt, messages) if dialogue[0]["role"] == "system"]
        if len(systems) == 2 and _plain(systems[0]) != _plain(systems[1]):
            raise ValueError(f"{where}: the system messages of `prompt` and `{key}` differ")
        return [*systems[:1], *head]
    if prompt[-1]["role"] == "assistant" and messages[0]["role"] == "user":
        return prompt + messages
    raise ValueError(
        f"{where}: `{key}` begins with a message of the {messages[0]['role']}, but does not repeat `prompt`. Give answers of "
        "the assistant, or the whole dialogues"
    )


def _asks(messages: list[dict[str, Any]], prompt: str) -> bool:
    """Whether the text of any user message equals the prompt."""
    return any(message["role"] == "user" and message["content"].strip() == prompt.strip() for message in messages)


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return messages[1:] if messages[0]["role"] == "system" else messages


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message without its ids, names and loss marks, which the chat template does not write out."""
    calls = [{"type": "function", "function": call["function"]} for call in message.get("tool_calls") or []]
    return {"role": message["role"], "content": message["content"], **({"tool_calls": calls} if calls else {})}


def _comparable(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**_plain(message), "content": unicodedata.normalize("NFC", message["content"]).rstrip()}
        for message in messages
    ]


def _check_answer(messages: list[dict[str, Any]], where: str) -> None:
    """Check the messages of one dialogue that are not part of the prompt.

    Raise ValueError if they contain no answer, a blank answer, or an answer that a mark excludes from the loss.
    """
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise ValueError(
            f"{where}: no answer is left to learn, because the other dialogue begins with all messages of this dialogue"
        )
    if any(map(is_blank, answers)):
        raise ValueError(f"{where}: an answer of the assistant is empty or blank; fill it, or remove the row")
    if not all(map(is_learned, answers)):
        raise ValueError(
            f"{where}: an answer is marked to have no loss, but a preference is learned from it; remove the mark"
        )
