"""Extracts the text of a row: all its strings, the text of a document, or the text in the model's format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alignment.models import formats
from alignment.rows.dialogue_pairs import pair_of
from alignment.rows.kinds import document_files
from alignment.rows.messages import conversation_of

IGNORED_KEYS = frozenset(
    [
        "stop_tokens",
        "language",
        "task_id",
        "name",
        "split",
        "source",
        "kind",
        "entry_point",
        "id",
        "role",
        "repository",
        "path",
        "commit",
        "license",
        "format",
        "part",
        "time",
    ]
)
"""Columns that identify or describe a row. They contain no text on which a model is trained."""

_JSON_KEYS = frozenset(["arguments", "tool_calls", "tools"])
"""Keys in conversations whose values may be JSON strings."""

QUESTION_COLUMNS = (
    ("question", "answer"),
    ("problem", "solution"),
    ("prompt", "completion"),
    ("instruction", "output"),
)
"""Pairs (question, answer) of column names in public datasets."""


@dataclass(frozen=True)
class ModelText:
    """A row as one string, in the format that the model was trained on."""

    text: str
    form: Literal["plain", "chat", "fim", "repository"]


def all_texts(row: dict[str, Any]) -> list[str]:
    """Return all strings of a row, including nested strings, in the order of the columns.

    The values of `IGNORED_KEYS` are left out.
    """
    texts: list[str] = []
    _gather(row, "", texts)
    return texts


def _gather(value: Any, key: str, texts: list[str]) -> None:
    if isinstance(value, str):
        if key in _JSON_KEYS and (inner := _decoded(value)) is not None:
            _gather(inner, "", texts)
        elif key not in IGNORED_KEYS:
            texts.append(value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            _gather(inner, str(name), texts)
    elif isinstance(value, list | tuple):
        for inner in value:
            if isinstance(inner, str | dict | list | tuple):  # some tests contain lists of a million numbers
                _gather(inner, key, texts)


def _decoded(text: str) -> dict[str, Any] | list[Any] | None:
    """Parse a JSON string that holds an object or a list. Return None for any other string.

    Texts are extracted from the parsed value, because escapes such as `\\n` in the JSON string would hide words.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def document_text(row: Mapping[str, Any]) -> str:
    """Return the text of a document, of all files of a repo-level document, or of a question and its answer.

    Raises:
        ValueError: the row has no column with a text, files, or a question, or the value of a column is not text.
    """
    if row.get("text"):
        if not isinstance(row["text"], str):
            raise ValueError(f"`text` must be text, not {type(row['text']).__name__}")
        return row["text"]
    if row.get("files"):
        return "\n".join(text for _, text in document_files(dict(row), "a repo-level document"))
    for question, answer in QUESTION_COLUMNS:
        if isinstance(row.get(question), str) and isinstance(row.get(answer), str):
            return f"{row[question].strip()}\n\n{row[answer].strip()}\n"
    if "text" in row or "files" in row:
        return ""
    raise ValueError(
        f"unsupported row: columns {', '.join(sorted(map(str, row)))}. A text row needs `text`, `files`, or a question "
        f"and an answer ({', '.join('/'.join(columns) for columns in QUESTION_COLUMNS)})"
    )


def model_text(row: Mapping[str, Any]) -> ModelText:
    """Return a row as the model sees it: in the chat, FIM or repository format, or as plain text.

    Raises:
        ValueError: the row has no text for training, for example because it is a task.
    """
    if row.get("messages") is not None:
        messages, tools = conversation_of(row, "a conversation")
        return ModelText(formats.chat(messages, tools=tools), "chat")
    if row.get("chosen") is not None:
        pair = pair_of(dict(row), "a preference row")
        return (
            ModelText(formats.chat([*pair.prompt, *pair.chosen], tools=pair.tools), "chat")
            if pair
            else ModelText("", "plain")
        )
    if "middle" in row and "prefix" in row:
        return ModelText(formats.fim_document(row["prefix"], row["middle"], row["suffix"]), "fim")
    if isinstance(row.get("files"), list):
        files = document_files(dict(row), "a repo-level document")
        return ModelText(formats.repo_document(row.get("repository") or "", files), "repository")
    if "text" in row:
        return ModelText(row["text"], "plain")
    raise ValueError(
        f"unsupported row: columns {', '.join(sorted(map(str, row)))}. Give documents, conversations or preferences."
    )
