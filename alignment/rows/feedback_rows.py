"""Reads feedback rows: an answer in a conversation or a completion in an editor, and whether it was accepted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from alignment.rows.dialogue_pairs import Dialogue
from alignment.rows.kinds import Row, check_columns
from alignment.rows.messages import is_blank, messages_of
from alignment.rows.tool_calls import check_tool_turns, tools_of

_CHAT = "`prompt` (text or messages)"
_EDITOR = "`prefix` and `suffix`"


@dataclass(frozen=True)
class ChatFeedback:
    """An answer of the assistant, and whether it was accepted."""

    prompt: Dialogue
    answer: dict[str, Any]
    """The message of the assistant."""
    accepted: bool
    tools: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class EditorFeedback:
    """A fill-in-the-middle completion, and whether it was accepted."""

    prefix: str
    suffix: str
    completion: str
    accepted: bool


def feedback_of(row: Row, where: str) -> ChatFeedback | EditorFeedback:
    """Return the feedback in a row.

    Args:
        row: a row with `completion` and `label`, and either `prompt` or `prefix` and `suffix`.
        where: file and row number, with which error messages begin.

    Raises:
        ValueError: the label is not true or false, the completion is empty, or the row has neither `prompt` nor
            `prefix`, or has both.
    """
    check_columns(row, "feedback", where)
    label = row["label"]
    if isinstance(label, int) and label in (0, 1):
        label = bool(label)
    if not isinstance(label, bool):
        raise ValueError(f"{where}: `label` must be true (accepted) or false (rejected), not {label!r}")
    forms = [name for name in ("prompt", "prefix") if row.get(name) is not None]
    if len(forms) != 1:
        raise ValueError(
            f"{where}: a feedback row has either {_CHAT} or {_EDITOR}; this one has {'both' if forms else 'neither'}"
        )
    if forms == ["prefix"]:
        return _editor_feedback(row, label, where)
    prompt = _messages(row["prompt"], "user", f"{where}, prompt")
    completion = _messages(row["completion"], "assistant", f"{where}, completion")
    if [message["role"] for message in completion] != ["assistant"]:
        raise ValueError(
            f"{where}: `completion` must be text or one message of the assistant; earlier turns belong into `prompt`"
        )
    if prompt[-1]["role"] == "assistant":
        raise ValueError(
            f"{where}: `prompt` ends with a message of the assistant: it must end with the turn that is answered"
        )
    if is_blank(completion[0]):
        raise ValueError(f"{where}: `completion` is empty; fill it, or remove the row")
    tools = tools_of(row, where)
    check_tool_turns([*prompt, *completion], tools, where)
    return ChatFeedback(prompt, completion[0], label, tools)


def _messages(value: Any, role: str, where: str) -> Dialogue:
    return messages_of([{"role": role, "content": value}] if isinstance(value, str) else value, where)


def _editor_feedback(row: Row, label: bool, where: str) -> EditorFeedback:
    suffix = "" if row.get("suffix") is None else row["suffix"]
    for name, value in (("prefix", row["prefix"]), ("suffix", suffix), ("completion", row["completion"])):
        if not isinstance(value, str):
            raise ValueError(f"{where}: `{name}` of a completion in an editor must be text, not {type(value).__name__}")
    if not row["completion"].strip():
        raise ValueError(f"{where}: `completion` is empty; fill it, or remove the row")
    return EditorFeedback(row["prefix"], suffix, row["completion"], label)
