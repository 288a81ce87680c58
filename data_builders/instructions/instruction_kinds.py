"""Rules that make instructions from one function of a repository: a request, the shown code and the answer.

Each rule checks its rows. A row that could teach something wrong is not made, and the reason is counted: for example,
the prompt does not show what the answer uses, or the tests do not call the function.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from data_builders.instructions.docstrings import documentation_fault, grounded, names_other_exceptions, summary_of
from data_builders.instructions.function_facts import facts_of, raised_names
from data_builders.instructions.source_bugs import bugs
from data_builders.instructions.wordings import wording
from data_builders.parsing.code_blocks import code_block
from data_builders.parsing.python_functions import Definition, Function, definition, parse
from data_builders.tasks.python.module_source import attribute_names
from data_builders.tasks.python.needed_code import NeededCode, RepositoryCode
from data_builders.tasks.python.task_context import unresolved_names

MIN_DOC_WORDS = 4
"""Minimum number of words of a docstring that is used as a description."""
MAX_CONTEXT = 4000
"""Maximum number of characters of code that a prompt shows besides the function and its tests."""
MAX_BUGS = 4
"""Maximum number of bugs that are tried for one function. The first bug that a test notices becomes a row."""
MAX_PLAIN_NUMBER = 2
"""Numbers up to this one need no mention in a prompt."""
MIN_PLAIN_TEXT = 3
"""Minimum length of a text in an answer that the prompt must mention."""


@dataclass
class Draft:
    """One conversation before it is verified."""

    kind: str
    ask: str
    """The request in words. A writer model may reword the request."""
    material: str
    """The code that is shown with the request. The code is never reworded."""
    answer: str
    source: str
    """Repository, commit, file and function of which the draft is made."""
    task: dict[str, Any] | None = None
    """The executable task whose tests grade the answers of a writer model, or None."""
    broken: str = ""
    """The buggy body that a draft of the kind `fix` shows. If this body passes the tests, the draft is dropped."""
    language: str = "python"

    @property
    def prompt(self) -> str:
        """The user's message: the request, then the code."""
        return f"{self.ask}\n\n{self.material}" if self.material else self.ask


@dataclass(frozen=True)
class Rejected:
    """A row that is not made, with the reason that the build report counts."""

    reason: str


@dataclass(frozen=True)
class Code:
    """A function of a repository, with the data from which rules make instructions."""

    function: Function
    text: str
    """The text of the function's file."""
    source: str
    """Value of the column `source`, which names repository, commit, file and function."""
    repository: RepositoryCode
    """The repository's files, from which prompts take the code that the function needs."""
    seed: int
    task: dict[str, Any] | None = None
    """The executable task of the function, or None."""
    shown_tests: str = ""
    """The code of those visible tests of the task that call the function, or ""."""

    @property
    def definition(self) -> str:
        """The code of the whole function, without its outer indentation."""
        return definition(self.text, self.function)

    @cached_property
    def node(self) -> Definition | None:
        """The syntax tree of the definition, or None if the definition alone does not parse."""
        tree = parse(self.definition)
        node = tree.body[0] if tree and len(tree.body) == 1 else None
        return node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None

    @cached_property
    def needed(self) -> NeededCode:
        """The code of the repository that the body uses."""
        return self.repository.needed(self.function, MAX_CONTEXT)

    @property
    def context(self) -> str:
        """The needed code as Markdown, without the function. "" if nothing is needed."""
        around = "\n\n\n".join(part for part in (self.needed.module, self.needed.opening) if part)
        parts = [f"`{self.function.file}`:\n\n{code_block(around)}"] if around else []
        if self.needed.others:
            parts.append(f"Other files have:\n\n{code_block(self.needed.other_files)}")
        return "\n\n".join(parts)

    def without_docstring(self) -> str:
        """The code of the whole function without the docstring, or "" if the body would be empty."""
        if self.node is None or len(self.node.body) < 2 or not self.function.doc:
            return ""
        first = self.node.body[0]
        lines = self.definition.split("\n")
        assert first.end_lineno is not None
        return "\n".join([*lines[: first.lineno - 1], *lines[first.end_lineno :]])

    def ask(self, kind: str) -> str:
        """Draw the wording of a request."""
        names = {
            "name": self.function.qualname.rpartition(".")[2], "file": self.function.file,
            "qualname": self.function.qualname,
        }  # fmt: skip
        return wording(kind, self.source, self.seed, names)


def context_fault(code: Code, shown: str) -> str:
    """Return why the answer can't be written from a prompt, or "".

    Args:
        code: the function that the answer holds.
        shown: all code of the prompt.
    """
    if code.node is None:
        return "does_not_parse"
    if names_other_exceptions(code.function.doc, code.node):
        return "docstring_with_wrong_claims"
    if unresolved_names(code.text, code.function, code.needed):
        return "unresolved_names"
    if code.needed.size > MAX_CONTEXT:
        return "context_too_long"
    arguments = [*code.node.args.posonlyargs, *code.node.args.args]
    own = arguments[0].arg if arguments and "." in code.function.qualname else None
    attributes = attribute_names([*code.function.body])
    inner = attribute_names([*code.function.body], of=own) if own else set()
    if any(name not in shown for name in inner | {name for name in attributes if name.startswith("_")}):
        return "unknown_attributes"
    speaks_of_errors = re.search(r"\brais|\berror|\binvalid|\bfail|\bexception", code.function.doc, re.IGNORECASE)
    if not speaks_of_errors and any(name.rpartition(".")[2] not in shown for name in raised_names(code.node.body)):
        return "unknown_exceptions"
    return "unknown_values" if any(value not in shown for value in _special_values(code.function)) else ""


def _special_values(function: Function) -> Iterator[str]:
    """Yield the texts and numbers in a function that nobody can guess. Those in error messages are left out."""
    for statement in function.body:
        messages = {
            id(part)
            for node in ast.walk(statement)
            if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr) or _is_message(node)
            for part in ast.walk(node)
        }
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and id(node) not in messages:
                value = node.value
                if isinstance(value, str) and len(value) >= MIN_PLAIN_TEXT and not value.isspace():
                    yield value.strip()
                elif isinstance(value, int | float) and not isinstance(value, bool) and value > MAX_PLAIN_NUMBER:
                    yield str(value)


def _is_message(node: ast.AST) -> bool:
    """Whether a node is a call that logs or warns."""
    name = (
        ast.unparse(node.func) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute) else ""
    )
    return name.rpartition(".")[2] in ("warn", "debug", "info", "warning", "error", "exception", "print")


def _statements(function: Function) -> int:
    return sum(isinstance(node, ast.stmt) for item in function.body for node in ast.walk(item))


def implement(code: Code) -> Iterator[Draft | Rejected]:
    """Yield an instruction of the kind `implement`: write a function from its signature and docstring."""
    words = len(code.function.doc.split())
    if words < MIN_DOC_WORDS:
        return
    if words < 1.5 * _statements(code.function) + 2:
        yield Rejected("documentation_too_short")
        return
    if re.search(
        r"\b(?:utility|helper|convenience) (?:function|method)|\bused (?:internally|for|by|to)\b",
        code.function.doc[:200],
    ):
        yield Rejected("documentation_says_too_little")
        return
    shown = code_block(f"{code.needed.head}{code.needed.indentation}...")
    if code.needed.others:
        shown += f"\n\nOther files have:\n\n{code_block(code.needed.other_files)}"
    if reason := context_fault(code, shown):
        yield Rejected(reason)
    else:
        yield Draft("implement", code.ask("implement"), shown, code_block(code.definition), code.source, code.task)


def document(code: Code) -> Iterator[Draft | Rejected]:
    """Yield an instruction of the kind `document`: write the docstring of a function."""
    doc = grounded(code.function.doc)
    bare = code.without_docstring()
    if len(code.function.doc.split()) < MIN_DOC_WORDS or not bare or code.node is None:
        return
    if len(doc.split()) < MIN_DOC_WORDS:
        yield Rejected("docstring_points_elsewhere")
        return
    reason = documentation_fault(doc, code.node)
    raised = raised_names(code.node.body)
    if (
        not reason
        and raised
        and not any(re.search(rf"rais|error|{re.escape(name)}", doc, re.IGNORECASE) for name in raised)
    ):
        reason = "docstring_without_the_exceptions"
    if not reason and len(doc.split()) < 2 * _statements(code.function) + 2:
        reason = "documentation_too_short"
    if reason:
        yield Rejected(reason)
        return
    quoted = doc.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    end = "\n" if "\n" in quoted else ""
    yield Draft("document", code.ask("document"), code_block(bare), code_block(f'"""{quoted}{end}"""'), code.source)


def from_tests(code: Code) -> Iterator[Draft | Rejected]:
    """Yield an instruction of the kind `tests`: write a function from its signature and visible tests."""
    if code.task is None:
        return
    if not code.shown_tests:
        yield Rejected("tests_do_not_call_the_function")
        return
    stub = code_block(f"{code.needed.head}{code.needed.indentation}...")
    others = f"\n\nOther files have:\n\n{code_block(code.needed.other_files)}" if code.needed.others else ""
    material = f"{code_block(code.shown_tests)}\n\n`{code.function.file}`:\n\n{stub}{others}"
    if reason := context_fault(code, material):
        yield Rejected(reason)
    else:
        yield Draft("tests", code.ask("tests"), material, code_block(code.definition), code.source, code.task)


def fix(code: Code) -> Iterator[Draft | Rejected]:
    """Yield instructions of the kind `fix`: correct a function with one bug. The drafts differ only in the bug."""
    if code.task is None or code.node is None:
        return
    if unresolved_names(code.text, code.function, code.needed) or code.needed.size > MAX_CONTEXT:
        yield Rejected("unresolved_names")
        return
    for bug in bugs(code.text, code.function, MAX_BUGS, code.seed):
        parts = [code_block(bug.definition(code.text, code.function)), code.context]
        if code.shown_tests:
            parts.append(f"Among its tests are:\n\n{code_block(code.shown_tests)}")
        answer = f"{bug.explanation(code.text)}\n\n{code_block(code.definition)}"
        material = "\n\n".join(part for part in parts if part)
        broken = bug.body(code.text, code.function)
        yield Draft("fix", code.ask("fix"), material, answer, code.source, code.task, broken=broken)


def explain(code: Code) -> Iterator[Draft | Rejected]:
    """Yield an instruction of the kind `explain`: describe what a function does.

    The prompt shows the function without its docstring. The answer is the summary of the docstring, followed by facts
    from the syntax tree.
    """
    bare, summary = code.without_docstring(), summary_of(code.function.doc)
    if not bare or code.node is None or len(code.function.doc.split()) < MIN_DOC_WORDS:
        return
    if len(summary.split()) < MIN_DOC_WORDS:
        yield Rejected("docstring_points_elsewhere")
        return
    if reason := documentation_fault(summary, code.node):
        yield Rejected(reason)
        return
    facts = list(facts_of(code.node, code.text, is_method="." in code.function.qualname))
    if not facts:
        yield Rejected("no_facts")
        return
    answer = f"`{code.function.qualname}`: {summary}\n\n{' '.join(facts)}"
    if any(sentence in bare for sentence in summary.split(". ")):
        yield Rejected("answer_in_prompt")
        return
    yield Draft("explain", code.ask("explain"), code_block(bare), answer, code.source)


KINDS: Mapping[str, Callable[[Code], Iterator[Draft | Rejected]]] = {
    "implement": implement, "document": document, "tests": from_tests, "fix": fix, "explain": explain,
}  # fmt: skip
"""Maps a kind of instruction to the rule that makes instructions of this kind. The rules for `refactor` and `translate`
are in modules of their own, because they need more than one function."""
