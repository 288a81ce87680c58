"""Checks the messages of conversations: valid form, answers to learn, and keys that training would ignore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignment.models import formats
from alignment.rows.rendered import rendered_format

ROLES = ("system", "user", "assistant")

LOSS_MARKS = ("weight", "loss", "train", "training", "trainable", "train_on_turn")
"""Keys of a message that say whether the answer is learned: `weight` in OpenAI's files, `train` and `training` in
axolotl's, `loss` in ms-swift's. With the value 0 or false, the answer is context without loss."""

_DESCRIPTIVE = frozenset(
    ["role", "content", "id", "message_id", "parent_id", "index", "turn", "turn_identifier", "timestamp", "created",
     "created_at", "date", "model", "source", "language", "lang", "metadata", "meta", "country", "header", "hashed_ip",
     "redacted", "state", "toxic", "score", "rank"]
)  # fmt: skip
"""Keys that describe a message and have no effect on training."""

_HINTS = {
    "tool_calls": "tool calls are not supported in training rows",
    "function_call": "function calls (`function_call`, tool calls) are not supported in training rows",
    "tool_call_id": "tool calls are not supported in training rows",
    "name": "the chat format has no `name`; put the name into `content`, or remove the key",
    "refusal": "put the text of `refusal` into `content`",
    "reasoning_content": "reasoning is not supported; put it into `content`, or remove the key",
}
SHAREGPT = (
    "this is the ShareGPT form (`conversations`, `from`, `value`): rename `conversations` to `messages`, `from` to `role` "
    "(human: user, gpt: assistant) and `value` to `content`"
)


def messages_of(value: Any, where: str) -> list[dict[str, Any]]:
    """Check the messages of a conversation and return them unchanged.

    Args:
        value: the value of the column `messages`.
        where: file and row number, with which the error message begins.

    Raises:
        ValueError: `value` is not a list of messages `{role, content}`, `content` is not text, or a message has a key
            that training would ignore.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}: messages must be a list of {{role, content}}, not {_described(value)}")
    for number, message in enumerate(value, 1):
        _check_message(message, f"{where}, message {number}")
    return value


def _described(value: Any) -> str:
    return "an empty list" if value == [] else type(value).__name__


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise ValueError(f"{where}: a message is {{role, content}}, not {type(message).__name__}")
    if "from" in message and "value" in message and message.get("role") is None:
        raise ValueError(f"{where}: {SHAREGPT}")
    if message.get("role") not in ROLES:
        raise ValueError(f"{where}: unknown role {message.get('role')!r}; use one of {', '.join(ROLES)}")
    for key, value in message.items():
        if key in _DESCRIPTIVE or value is None or (key not in LOSS_MARKS and _says_nothing(value)):
            continue
        if key not in LOSS_MARKS:
            hint = _HINTS.get(key, "training would ignore it; put it into `content`, or remove the key")
            raise ValueError(f"{where}: unsupported key `{key}`: {hint}")
        if isinstance(value, str) or value not in (0, 1):
            raise ValueError(
                f"{where}: `{key}` is {value!r}; use 0 or false for an answer without loss, 1 or true otherwise"
            )
        if value and message["role"] != "assistant":
            raise ValueError(
                f"{where}: `{key}` on a message of the {message['role']}: only messages of the assistant are learned; "
                "remove the key"
            )
    content = message.get("content")
    if isinstance(content, list):
        raise ValueError(f"{where}: `content` must be text, not a list of parts; join the text parts to one string")
    if not isinstance(content, str):
        raise ValueError(f"{where}: every message needs a `content` of text, not {type(content).__name__}")
    if name := rendered_format(content):
        raise ValueError(
            f"{where}: `content` is written in {name} with its special tokens, which are trained as plain text; use documents "
            "and the stage's `fim:`, or the conversation's own messages"
        )
    if message["role"] == "assistant" and content.rstrip().endswith((formats.IM_END, formats.ENDOFTEXT)):
        raise ValueError(f"{where}: `content` ends with a special token, which is trained as plain text; remove it")


def _says_nothing(value: Any) -> bool:
    return value is False or (isinstance(value, str | list | dict) and not value)


def is_learned(message: Mapping[str, Any]) -> bool:
    """Whether the loss covers a message: it is from the assistant, and no key of `LOSS_MARKS` is 0 or false."""
    marks = [message[key] for key in LOSS_MARKS if message.get(key) is not None]
    return message["role"] == "assistant" and all(marks)


def check_learned(messages: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raise ValueError if a conversation has no answer that is learned, or has a blank answer that is learned."""
    learned = [message for message in messages if is_learned(message)]
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError(f"{where}: the conversation has no message of the assistant to learn from")
    if not learned:
        raise ValueError(
            f"{where}: every answer is marked to have no loss ({', '.join(LOSS_MARKS)}); nothing is left to learn"
        )
    if any(not message["content"].strip() for message in learned):
        raise ValueError(f"{where}: an answer of the assistant is empty or blank; fill it, or remove the row")
