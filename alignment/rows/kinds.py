"""Kinds of training rows (document, conversation, preference, feedback, task), recognised by their columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from alignment.rows.messages import SHAREGPT
from alignment.rows.rendered import rendered_format

Row = dict[str, Any]
RowKind = Literal["document", "conversation", "preference", "feedback", "task"]

_KINDS: tuple[tuple[RowKind, tuple[str, ...]], ...] = (
    ("preference", ("chosen", "rejected")),
    ("feedback", ("completion", "label")),
    ("conversation", ("messages",)),
    ("document", ("text",)),
    ("document", ("files",)),
    ("task", ("prompt", "tests")),
    ("task", ("prompt", "environment")),
)
_COLUMNS: dict[str, dict[str, type]] = {
    "document": {"repository": str, "language": str, "format": str},
    "conversation": {"tools": object},
    "preference": {"prompt": object, "tools": object},
    "feedback": {"prompt": object, "tools": object, "suffix": str},
    "task": {},
}
"""Kind of row -> additional columns that training reads, each with the type of its values."""

_CHAT_COLUMNS = {
    **dict.fromkeys(
        ("system", "system_prompt", "system_message", "sys_prompt", "developer"),
        "put the text into a first message with the role `system`",
    ),
    **dict.fromkeys(
        ("functions", "available_tools", "function_call", "tool_calls"),
        "tools are in the column `tools`, their calls in `tool_calls` of messages; for OpenAI's older form set "
        "`format: openai` on the `data:` entry",
    ),
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios"), "only text is supported"),
    **dict.fromkeys(("documents", "context", "history"), "put the text into the messages"),
    **dict.fromkeys(
        ("reasoning_content", "reasoning", "thinking"), "put the text into the answer's `content`, or remove the column"
    ),
    "chat_template_kwargs": "the chat format has no settings",
    "train_on_turn": "mark messages, not the row",
}
"""Advice for the error message, keyed by columns that other trainers read in conversations and preferences, but that
this toolkit would ignore."""

_WEIGHT_COLUMNS = dict.fromkeys(
    ("weight", "weights", "loss_weight", "sample_weight", "loss_mask", "train_mask", "labels_mask"),
    "rows have no weights or masks; mark messages (`weight: 0`), use `share`, or remove the column",
)


def kind_of(row: Row, where: str | None = None) -> RowKind:
    """Return the kind of a row, which its columns determine.

    Columns whose value is null are considered only if the other columns do not determine the kind.

    Args:
        row: a row as it was read.
        where: file and row number, with which the error message begins.

    Raises:
        ValueError: the columns match no kind. The message lists the columns that each kind needs.
    """
    for present in ({key for key, value in row.items() if value is not None}, row.keys()):
        for kind, columns in _KINDS:
            if present >= set(columns):
                return kind
    place = f"{where}: " if where else ""
    raise ValueError(
        f"{place}unsupported row: columns {', '.join(sorted(map(str, row))) or '(none)'}. A document needs `text` (or "
        "`repository` and `files`), a conversation `messages`, a preference `prompt`, `chosen` and `rejected`, feedback "
        f"`prompt` (or `prefix` and `suffix`), `completion` and `label`, a task `prompt` and `tests`.{_how_to_convert(row)}"
    )


def _how_to_convert(row: Row) -> str:
    """Return advice on how to convert a row of another trainer, or an empty string if the form of the row is not
    known.
    """
    if "conversations" in row or "conversation" in row:
        return f" T{SHAREGPT[1:]}."
    if "instruction" in row and "output" in row:
        return (
            " This is the Alpaca form: set `format: alpaca` on the `data:` entry, or turn `instruction` and `output` into "
            "`messages`."
        )
    if isinstance(row.get("input"), dict) and "preferred_output" in row:
        return " This is OpenAI's form of a preference: set `format: openai` on the `data:` entry."
    for question, answer in (("prompt", "completion"), ("question", "answer")):
        if question in row and answer in row:
            return (
                f" Turn `{question}` and `{answer}` into `messages`: "
                '[{"role": "user", "content": ...}, {"role": "assistant", "content": ...}].'
            )
    return ""


def check_columns(row: Row, kind: RowKind, where: str) -> None:
    """Refuse columns that other trainers use but this toolkit would ignore, and misspelled names of known columns.

    Args:
        row: a row as it was read.
        kind: the kind of the row.
        where: file and row number, with which the error message begins.

    Raises:
        ValueError: a column that is not empty would be ignored. The message says what to do.
    """
    refused = _WEIGHT_COLUMNS | (_CHAT_COLUMNS if kind in ("conversation", "preference", "feedback") else {})
    known = _COLUMNS[kind]
    absent = [name for name in known if row.get(name) is None]
    for column, value in row.items():
        if value is None or (not isinstance(value, int) and value in ("", [], {})):
            continue
        if column in refused:
            raise ValueError(f"{where}: the column `{column}` would be ignored: {refused[column]}")
        if kind == "preference" and column == "conversations":
            raise ValueError(
                f"{where}: {SHAREGPT}; name the question `prompt`, and give `chosen` and `rejected` as messages"
            )
        for name in absent:
            if column not in known and isinstance(value, known[name]) and _is_slip(str(column), (name,)):
                raise ValueError(f"{where}: unknown column `{column}`, which would be ignored. Did you mean {name!r}?")


def _is_slip(word: str, names: Iterable[str]) -> bool:
    """Whether a word is a misspelled name: a different case, or one letter added, missing, changed or swapped.

    The plural of a name is not counted as a misspelling.
    """
    return any(_one_edit(word.lower().replace("-", "_"), name) and word != f"{name}s" for name in names)


def _one_edit(word: str, name: str) -> bool:
    if word == name:
        return True
    start = next((at for at, pair in enumerate(zip(word, name, strict=False)) if pair[0] != pair[1]), None)
    if start is None:
        return abs(len(word) - len(name)) == 1
    left, right = word[start:], name[start:]
    swapped = left[:2] == right[1::-1] and left[2:] == right[2:]
    return left[1:] == right or left == right[1:] or left[1:] == right[1:] or swapped


def document_files(row: Row, where: str) -> list[tuple[str, str]]:
    """Return the files of a repo-level document as (path, text). Return an empty list if the row has no `files`.

    Raises:
        ValueError: `files` is not a list of `{path, text}`, or a path or a text is not a string.
    """
    files = row.get("files")
    if files is None:
        return []
    if not isinstance(files, list):
        raise ValueError(f"{where}: `files` must be a list of {{path, text}}, not {type(files).__name__}")
    for number, file in enumerate(files, 1):
        if not isinstance(file, dict):
            raise ValueError(f"{where}: file {number} of `files` is {{path, text}}, not {type(file).__name__}")
        for key in ("path", "text"):
            if not isinstance(file.get(key), str):
                raise ValueError(
                    f"{where}: `{key}` of file {number} in `files` must be text, not {type(file.get(key)).__name__}"
                )
    return [(file["path"], file["text"]) for file in files]


def check_document(row: Row, where: str) -> None:
    """Raise ValueError if the texts of a document are not strings, or contain special tokens written out as text.

    Args:
        row: a row with `text`, or with `repository` and `files`.
        where: file and row number, with which the error message begins.
    """
    files = document_files(row, where)
    texts = [text for _, text in files] if files else [row.get("text")]
    if files and row.get("repository") is not None and not isinstance(row["repository"], str):
        raise ValueError(f"{where}: `repository` must be text, not {type(row['repository']).__name__}")
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{where}: `text` must be text, not {type(text).__name__}")
    if str(row.get("format") or "plain") != "plain":
        raise ValueError(
            f"{where}: the row is a {row['format']} document for another trainer: special tokens are written out in its "
            "text, and would be tokenized as text. Train on the corpus itself: the stage's `fim:` splits its documents."
        )
    for text in texts:
        if name := rendered_format(str(text)):
            raise ValueError(
                f"{where}: the text is written in {name} with its special tokens, which are trained as plain text. Use "
                "`messages` for conversations, `repository` and `files` for repositories, and plain documents with the "
                "stage's `fim:` for fill-in-the-middle."
            )
        if str(text).rstrip().endswith("<|endoftext|>"):
            raise ValueError(f"{where}: the text ends with the special token <|endoftext|>, which is added; remove it")
