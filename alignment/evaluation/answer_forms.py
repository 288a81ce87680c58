"""The forms in which a task asks for a function: prompts of each form, and the program in an answer of each form.

A task row has the form in the column `answer`. Training and evaluation read the column here, so both use the same form.

| form | the model gets | the model writes |
|---|---|---|
| `function` | a user message | the whole function, in a code block |
| `body` | a user message | the statements of the body, in a code block |
| `continuation` | the column `prefix`: code up to the body, as plain text | the body |
| `fim` | the columns `prefix` and `suffix`, as a fill-in-the-middle prompt | the body |

A row without the column has the form `function`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from alignment.evaluation.answer_blocks import all_blocks, cleaned
from alignment.evaluation.body_end import cut_at_body_end
from alignment.evaluation.extraction import extract_code
from alignment.evaluation.problem import ChatPrompt, FimPrompt, Prompt, TextPrompt
from alignment.evaluation.python_code import parses
from alignment.models import formats

AnswerForm = Literal["function", "body", "continuation", "fim"]
ANSWER = "answer"
"""Name of the column with the form."""
FORM_COLUMNS = (ANSWER, "prefix", "suffix")
"""Columns of a task row from which the prompt and the program of an answer form are made."""
TEXT_FORMS = ("continuation", "fim")
"""Forms without a chat template: the model goes on with code."""
_STOPS = ("def ", "class ", "async def ", "@")
_TOP_STOPS = ("if __name__", "print(", "import ", "from ", "assert ")


def form_of(row: Mapping[str, Any], where: str = "") -> AnswerForm:
    """Return the form of a task row.

    Args:
        row: the row.
        where: file and row number, with which the error message begins.

    Raises:
        ValueError: the form is unknown, or the row lacks a column of its form.
    """
    form = row.get(ANSWER) or "function"
    place = f"{where}: " if where else ""
    if form not in get_args(AnswerForm):
        raise ValueError(f"{place}`answer` is {form!r}: choose one of {', '.join(get_args(AnswerForm))}")
    for column in ("prefix", "suffix")[: TEXT_FORMS.index(form) + 1] if form in TEXT_FORMS else ():
        if not isinstance(row.get(column), str):
            raise ValueError(f"{place}a task with `answer: {form}` needs the text column `{column}`")
    return cast(AnswerForm, form)


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """Return the prompt of a task row in the row's form."""
    form = form_of(row)
    if form == "continuation":
        return TextPrompt(row["prefix"])
    if form == "fim":
        return FimPrompt(row["prefix"], row["suffix"])
    return ChatPrompt(({"role": "user", "content": row["prompt"]},))


def prompt_text(row: Mapping[str, Any]) -> str:
    """Return the prompt of a row with a text form, with special tokens written out. Those in the code are escaped."""
    prefix = formats.escape_special_text(row["prefix"])
    if form_of(row) == "continuation":
        return prefix
    return formats.fim_prompt(prefix, formats.escape_special_text(row["suffix"]))


def program_of_answer(row: Mapping[str, Any], answer: str) -> str:
    """Return the program that is graded for an answer to a task row.

    For `continuation` and `fim`, this is the answer up to the end of the body, which is found by syntax.
    """
    language = row.get("language") or "python"
    form = form_of(row)
    if form in TEXT_FORMS:
        return cut_at_body_end(row["prefix"], answer, language)
    if form == "body":
        return body_in_answer(answer, language, row.get("entry_point") or None)
    return extract_code(answer, language=language, entry_point=row.get("entry_point") or None)


def reference_answer(row: Mapping[str, Any]) -> str:
    """Return the answer to a task row that consists of its reference, in the row's form. "" without a reference.

    The reference is in the column `reference` (the whole function) and, for other forms, in `reference_body`.
    """
    form, language = form_of(row), row.get("language") or "python"
    code = row.get("reference") if form == "function" else row.get("reference_body")
    if not code:
        return ""
    if form in TEXT_FORMS:
        return f"{code}\n"
    return f"```{language}\n{code if form == 'function' else textwrap.dedent(code).strip()}\n```"


def body_in_answer(answer: str, language: str, entry_point: str | None) -> str:
    """Return the body in a chat answer that was asked for a body.

    An answer with the whole function is accepted too: its function is returned.

    Args:
        answer: the answer.
        language: language of the task.
        entry_point: name of the function.
    """
    text = cleaned(answer)
    blocks = [block.content for block in all_blocks(text)] or [text]
    if entry_point and any(_defines(block, entry_point) for block in blocks):
        return extract_code(answer, language=language, entry_point=entry_point)
    body = textwrap.dedent(blocks[0].strip("\n"))
    if language == "python" and not parses(body):
        # The model began behind the indentation of the first line.
        first, _, rest = body.partition("\n")
        aligned = f"{first.lstrip()}\n{textwrap.dedent(rest)}"
        return aligned if parses(aligned) else body
    return body


def _defines(code: str, name: str) -> bool:
    return re.search(rf"\b(?:def|function\*?|const|let|var)\s+{re.escape(name)}\b", code) is not None


def ends_by_syntax(row: Mapping[str, Any], answer: str) -> bool:
    """Whether an answer with a text form goes on after the end of the body, so that the body is complete.

    An answer that was cut off at the length limit is complete in this case.
    """
    if form_of(row) not in TEXT_FORMS:
        return False
    body = program_of_answer(row, answer)
    return bool(body.strip()) and bool(answer[len(body.rstrip()) :].strip())


def stop_texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return texts that end a Python body. Generation may stop there."""
    if form_of(row) not in TEXT_FORMS or (row.get("language") or "python") != "python":
        return ()
    header = next((line for line in reversed(row["prefix"].split("\n")) if re.match(r"\s*(?:async )?def ", line)), "")
    depth = len(header) - len(header.lstrip())
    indents = [" " * width for width in range(0, depth + 1, 4)]
    return tuple(f"\n{indent}{word}" for indent in indents for word in _STOPS) + tuple(
        f"\n{word}" for word in _TOP_STOPS
    )


def stop_tokens(form: AnswerForm) -> tuple[str, ...]:
    """Return the special tokens that end an answer of a form."""
    return formats.FIM_STOP_TOKENS if form in TEXT_FORMS else formats.CHAT_STOP_TOKENS
