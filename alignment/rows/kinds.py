"""Kinds of training rows (document, conversation, preference, task), recognised by their columns."""

from __future__ import annotations

from typing import Any, Literal

Row = dict[str, Any]
RowKind = Literal["document", "conversation", "preference", "task"]
ROLES = ("system", "user", "assistant")


def kind_of(row: Row, where: str | None = None) -> RowKind:
    """Return the kind of a row, from its columns.

    Args:
        row: a row as it was read.
        where: file and row number, put in front of the error.

    Raises:
        ValueError: the columns belong to no kind; the message lists the columns that each kind needs.
    """
    if "chosen" in row and "rejected" in row:
        return "preference"
    if "messages" in row:
        return "conversation"
    if "text" in row or "files" in row:
        return "document"
    if "prompt" in row and "tests" in row:
        return "task"
    place = f"{where}: " if where else ""
    raise ValueError(
        f"{place}unsupported row: columns {', '.join(sorted(map(str, row))) or '(none)'}. A document needs `text` (or "
        "`repository` and `files`), a conversation `messages`, a preference `prompt`, `chosen` and `rejected`, a task "
        "`prompt` and `tests`."
    )


def messages_of(value: Any, where: str) -> list[dict[str, str]]:
    """Check the messages of a conversation and return them unchanged.

    Args:
        value: what the row holds in `messages`.
        where: file and row number, put in front of the error.

    Raises:
        ValueError: `value` is no list of `{role, content}` with text in it, or has tool calls.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where}: messages must be a list of {{role, content}}, not {type(value).__name__}")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f"{where}: every message needs a `content` of text")
        if message.get("role") not in ROLES:
            raise ValueError(f"{where}: unknown role {message.get('role')!r}; use one of {', '.join(ROLES)}")
        if message.get("tool_calls"):
            raise ValueError(f"{where}: tool calls are not supported in training rows")
    return value
