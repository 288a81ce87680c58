"""Make the prompt of a Python task from the code that the masked body needs, and tests."""

from __future__ import annotations

import ast
from typing import Protocol

from alignment.evaluation.answer_forms import AnswerForm
from data_builders.parsing.code_blocks import code_block
from data_builders.parsing.python_functions import Function
from data_builders.tasks.python.module_source import BUILTIN_NAMES, ModuleSource, declared_globals, global_names
from data_builders.tasks.python.needed_code import MASK_LINE, NeededCode
from data_builders.tasks.python.python_suite import PreparedSuite
from data_builders.tasks.task_rows import request_for


class Span(Protocol):
    """A part of a text, given by its start offset and its end offset."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


def window(text: str, function: Function | Span, before: int, after: int) -> tuple[int, int]:
    """Choose the lines around a function's body that a prompt shows.

    Args:
        text: text of the file.
        function: the function, whose header is always shown, or another part of the file.
        before: approximate number of characters to show before the body.
        after: approximate number of characters to show after the body.

    Returns:
        The offsets of the start and the end of the shown lines.
    """
    first = function.first if isinstance(function, Function) else function.start
    opening = max(0, min(first, function.start - before))
    if opening:
        opening = text.rfind("\n", 0, opening) + 1
    closing = min(len(text), function.end + after)
    if closing < len(text):
        closing = text.rfind("\n", function.end, closing) + 1 or text.find("\n", closing) + 1 or len(text)
    return opening, closing


def prompt(prepared: PreparedSuite, function: Function, needed: NeededCode, tests: str, form: AnswerForm) -> str:
    """Return the prompt of a task: a user message that asks for one function.

    Args:
        prepared: the snapshot of the repository.
        function: the function whose body is masked.
        needed: the code that the function needs.
        tests: code of the tests to show, or "".
        form: what the model is asked to write.
    """
    parts = [request_for(function.qualname, function.file, prepared.snapshot.data["name"], form, "Python")]
    if needed.others:
        parts.append(f"Other files of the repository have:\n\n{code_block(needed.other_files)}")
    parts.append(f"`{function.file}`:\n\n{code_block(f'{needed.head}{needed.indentation}{MASK_LINE}')}")
    if tests:
        parts.append(f"Among its tests are:\n\n{code_block(tests)}")
    return "\n\n".join(parts)


SUFFIX_CHARACTERS = 200
"""Number of characters after the body that the answer form `fim` shows, rounded up to whole lines."""


def code_before(function: Function, needed: NeededCode) -> str:
    """Return the code up to the body, which a model continues: definitions of other files, then the function's module."""
    if not needed.others:
        return needed.head
    return f"{needed.other_files}\n\n# {function.file}\n{needed.head}"


def code_after(text: str, function: Function) -> str:
    """Return the lines of the file after the body, at most about `SUFFIX_CHARACTERS`."""
    end = text.find("\n", min(len(text), function.end + SUFFIX_CHARACTERS))
    return text[function.end : end if end >= 0 else len(text)]


def unresolved_names(text: str, function: Function, needed: NeededCode) -> set[str]:
    """Return the names that a function's body takes from its module and that the code in the prompt does not define.

    Names of Python's builtins are defined. The names are computed from the code as the prompt shows it.

    Args:
        text: text of the function's file.
        function: the function whose body is masked.
        needed: the code that the prompt shows.
    """
    module = ModuleSource.parse(text)
    path = module.path_to(function.line) if module else []
    shown = ModuleSource.parse(f"{needed.head}{needed.indentation}...\n")
    if shown is None or not path or not isinstance(path[-1], ast.FunctionDef | ast.AsyncFunctionDef):
        return {"the code around the function does not parse"}
    if any(ModuleSource.parse(code) is None for code in needed.others.values()):
        return {"the code of another file does not parse"}
    names = global_names(path[-1]) - BUILTIN_NAMES
    return set() if shown.star_imports else names - shown.bindings.keys() - set(declared_globals(path[-1]))
