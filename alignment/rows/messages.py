"""Checks the messages of conversations: valid form, answers to learn, and keys that training would ignore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignment.models import formats
from alignment.rows.rendered import rendered_format
from alignment.rows.tool_calls import CALL_FORM, RESULT_FORM, WRITTEN_CALL, calls_of, check_tool_turns, tools_of

ROLES = ("system", "user", "assistant", "tool")

LOSS_MARKS = ("weight", "loss", "train", "training", "trainable", "train_on_turn")
"""Keys of a message that say whether the answer is learned: `weight` in OpenAI's files, `train` and `training` in
axolotl's, `loss` in ms-swift's. With the value 0 or false, the answer is context without loss."""

_DESCRIPTIVE = frozenset(
    ["role", "content", "id", "message_id", "parent_id", "index", "turn", "turn_identifier", "timestamp", "created",
     "created_at", "date", "model", "source", "language", "lang", "metadata", "meta", "country", "header", "hashed_ip",
     "redacted", "state", "toxic", "score", "rank"]
)  # fmt: skip
"""Keys that describe a message and have no effect on training."""

_TOOL_KEYS = {"assistant": ("tool_calls",), "tool": ("tool_call_id", "name")}
"""Keys that belong to tool calls or to the result of a tool, keyed by the role of the message."""

_HINTS = {
    "tool_calls": f"only the assistant calls tools: {CALL_FORM}",
    "function_call": f"set `format: openai` on the `data:` entry, or write `tool_calls`: {CALL_FORM}",
    "tool_call_id": f"only tool turns answer calls: {RESULT_FORM}",
    "name": "the chat format has no `name`; put the name into `content`, or remove the key",
    "refusal": "put the text of `refusal` into `content`",
    "reasoning_content": "reasoning is not supported; put it into `content`, or remove the key",
}
SHAREGPT = (
    "this is the ShareGPT form (`conversations`, `from`, `value`): set `format: sharegpt` on the `data:` entry, or rename "
    "`conversations` to `messages`, `from` to `role` (human: user, gpt: assistant) and `value` to `content`"
)


def conversation_of(row: Mapping[str, Any], where: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the messages and the tools of a conversation row.

    Args:
        row: a row with `messages`, and `tools` if there are any.
        where: file and row number, with which error messages begin.

    Raises:
        ValueError: a message or tool is malformed, or calls and results do not belong together.
    """
    tools = tools_of(row, where)
    messages = messages_of(row["messages"], where)
    check_tool_turns(messages, tools, where)
    return messages, tools


def messages_of(value: Any, where: str) -> list[dict[str, Any]]:
    """Check the messages of a conversation, and return them with all tool calls in the same form.

    Args:
        value: the value of the column `messages`.
        where: file and row number, with which the error message begins.

    Returns:
        The messages. In messages with tool calls, `tool_calls` has the form that `calls_of` returns, and `content` is
        never null.

    Raises:
        ValueError: `value` is not a list of messages `{role, content}`, `content` is not text, or a message has a key
            that training would ignore.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}: messages must be a list of {{role, content}}, not {_described(value)}")
    return [_checked(message, f"{where}, message {number}") for number, message in enumerate(value, 1)]


def _described(value: Any) -> str:
    return "an empty list" if value == [] else type(value).__name__


def _checked(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise ValueError(f"{where}: a message is {{role, content}}, not {type(message).__name__}")
    if "from" in message and "value" in message and message.get("role") is None:
        raise ValueError(f"{where}: {SHAREGPT}")
    if message.get("role") not in ROLES:
        raise ValueError(f"{where}: unknown role {message.get('role')!r}; use one of {', '.join(ROLES)}")
    _check_keys(message, where)
    if message.get("tool_calls"):
        calls = calls_of(message["tool_calls"], where)
        message = {
            **message,
            "content": "" if message.get("content") is None else message["content"],
            "tool_calls": calls,
        }
    _check_content(message, where)
    return message


def _check_keys(message: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for a key that training would ignore, and for a key of `LOSS_MARKS` with a wrong value or on a
    message that is not from the assistant.
    """
    for key, value in message.items():
        if key in _DESCRIPTIVE or value is None or (key not in LOSS_MARKS and _says_nothing(value)):
            continue
        if key in _TOOL_KEYS.get(message["role"], ()):
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


def _check_content(message: Mapping[str, Any], where: str) -> None:
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
    if message["role"] == "assistant" and WRITTEN_CALL.search(content):
        raise ValueError(
            f"{where}: a call is written out in `content`, which is trained as plain text; use {CALL_FORM}"
        )


def _says_nothing(value: Any) -> bool:
    return value is False or (isinstance(value, str | list | dict) and not value)


def is_learned(message: Mapping[str, Any]) -> bool:
    """Whether the loss covers a message: it is from the assistant, and no key of `LOSS_MARKS` is 0 or false."""
    marks = [message[key] for key in LOSS_MARKS if message.get(key) is not None]
    return message["role"] == "assistant" and all(marks)


def is_blank(message: Mapping[str, Any]) -> bool:
    """Whether a message of the assistant has neither text nor calls."""
    return not message["content"].strip() and not message.get("tool_calls")


def check_learned(messages: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raise ValueError if a conversation has no answer that is learned, or has a blank answer that is learned."""
    learned = [message for message in messages if is_learned(message)]
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError(f"{where}: the conversation has no message of the assistant to learn from")
    if not learned:
        raise ValueError(
            f"{where}: every answer is marked to have no loss ({', '.join(LOSS_MARKS)}); nothing is left to learn"
        )
    if any(is_blank(message) for message in learned):
        raise ValueError(f"{where}: an answer of the assistant is empty or blank; fill it, or remove the row")
