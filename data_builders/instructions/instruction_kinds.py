"""Rules that make instructions from one function of a repository: a request, the shown code and the answer."""

from __future__ import annotations

import ast
import hashlib
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_builders.parsing.python_functions import Function, definition, indentation, parse
from data_builders.tasks.python.python_mutants import mutants
from data_builders.tasks.python.task_context import code_block, imports_of

MIN_DOC_WORDS = 4
"""Minimum number of words of a docstring that is used as a description."""
MUTANTS = 3
"""Maximum number of buggy versions of a function in `fix` conversations."""


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
class Code:
    """A function of a repository, with the data from which rules make instructions."""

    function: Function
    text: str
    """The text of the function's file."""
    source: str
    """Value of the column `source`, which names repository, commit, file and function."""
    task: dict[str, Any] | None
    """The executable task of the function, or None."""
    shown_tests: str
    """The code of the task's visible tests, or ""."""

    @property
    def definition(self) -> str:
        """The code of the whole function, without its outer indentation."""
        return definition(self.text, self.function)

    def pick(self, kind: str, choices: Sequence[str]) -> str:
        """Choose one of several wordings by a hash of `kind` and `source`, and insert the function's name into the
        wording.
        """
        digest = hashlib.sha256(f"{kind}:{self.source}".encode()).digest()
        return choices[digest[0] % len(choices)].format(
            name=self.function.qualname.rpartition(".")[2], file=self.function.file, qualname=self.function.qualname
        )


def _head(code: Code) -> str:
    """Return the code of a function above its body: decorators, signature and docstring."""
    return textwrap.dedent(code.text[code.function.first : code.function.start]).rstrip()


def implement(code: Code) -> Iterator[Draft]:
    """Yield an instruction of the kind `implement`: write a function from its signature and docstring."""
    if len(code.function.doc.split()) < MIN_DOC_WORDS:
        return
    ask = code.pick("implement", (
        "Write the function `{name}` of `{file}` from its signature and documentation.",
        "Implement `{qualname}` as its docstring describes it.",
        "Complete this function. Keep its signature and its docstring.",
        "The body of `{name}` is missing. Write it.",
    ))  # fmt: skip
    head = imports_of(code.text, code.function.first)
    shown = code_block(f"{head}\n{_head(code)}\n{_body_indentation(code)}..." if head else f"{_head(code)}\n    ...")
    yield Draft("implement", ask, shown, code_block(code.definition), code.source, code.task)


def _body_indentation(code: Code) -> str:
    """Return the indentation that the body has after the definition is moved to the left margin."""
    inner = len(indentation(code.text, code.function))
    line = code.text[code.function.first : code.function.first + 200]
    return " " * max(1, inner - (len(line) - len(line.lstrip(" "))) or 4)


def document(code: Code) -> Iterator[Draft]:
    """Yield an instruction of the kind `document`: write the docstring of a function."""
    if len(code.function.doc.split()) < MIN_DOC_WORDS:
        return
    tree = parse(code.definition)
    if tree is None or not tree.body or not isinstance(tree.body[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return
    node = tree.body[0]
    first = node.body[0]
    if len(node.body) < 2 or first.end_lineno is None:
        return
    lines = code.definition.split("\n")
    bare = "\n".join([*lines[: first.lineno - 1], *lines[first.end_lineno :]])
    ask = code.pick("document", (
        "Write a docstring for `{name}`.", "Document this function: give its docstring and nothing else.",
        "What would a good docstring of `{qualname}` say?",
    ))  # fmt: skip
    quoted = code.function.doc.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    yield Draft("document", ask, code_block(bare), code_block(f'"""{quoted}"""'), code.source)


def from_tests(code: Code) -> Iterator[Draft]:
    """Yield an instruction of the kind `tests`: write a function from its signature and visible tests."""
    if not code.shown_tests or code.task is None:
        return
    ask = code.pick("tests", (
        "Write `{qualname}` of `{file}` so that these tests pass.",
        "Here are tests of `{name}`, and its signature. Write the function.",
        "Make these tests pass: implement `{name}`.",
    ))  # fmt: skip
    material = f"{code_block(code.shown_tests)}\n\n{code_block(code.function.header + ':')}"
    yield Draft("tests", ask, material, code_block(code.definition), code.source, code.task)


def fix(code: Code) -> Iterator[Draft]:
    """Yield instructions of the kind `fix`: correct a mutant (a version with one error) of a function."""
    if code.task is None:
        return
    head = code.text[code.function.first : code.function.start]
    for body in mutants(code.function, MUTANTS, seed=1):
        inner = indentation(code.text, code.function) or "    "
        moved = "\n".join(f"{inner}{line[4:]}" if line.strip() else line for line in body.split("\n"))
        ask = code.pick(f"fix:{body}", (
            "`{qualname}` has a bug. Find it and fix it.", "Tests of `{name}` fail. Correct the function.",
            "This function does not do what it should. What is wrong? Give the corrected function.",
        ))  # fmt: skip
        shown = textwrap.dedent(head + moved)
        material = code_block(shown)
        if code.shown_tests:
            material += f"\n\nAmong its tests are:\n\n{code_block(code.shown_tests)}"
        yield Draft("fix", ask, material, code_block(code.definition), code.source, code.task, broken=body)


def explain(code: Code) -> Iterator[Draft]:
    """Yield an instruction of the kind `explain`: describe what a function does.

    The answer is the first sentence of the docstring, followed by facts from the syntax tree.
    """
    first = re.split(r"(?<=[.!?])\s|\n\n", code.function.doc, maxsplit=1)[0].replace("\n", " ").strip()
    tree = parse(code.definition)
    if len(first.split()) < MIN_DOC_WORDS or tree is None or not tree.body:
        return
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    sentences = [
        f"`{code.function.qualname}`: {first if first.endswith(('.', '!', '?')) else first + '.'}",
        *_facts(node),
    ]
    ask = code.pick("explain", (
        "Explain what `{qualname}` in `{file}` does.", "What does this function do, and how?",
        "Walk me through `{name}`.",
    ))  # fmt: skip
    yield Draft("explain", ask, code_block(code.definition), " ".join(sentences), code.source)


def _facts(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yield sentences with facts about a function, which are read from the syntax tree."""
    parameters = [*node.args.posonlyargs, *node.args.args]
    names = [item.arg for item in parameters if item.arg not in ("self", "cls")]
    optional = {item.arg for item in parameters[len(parameters) - len(node.args.defaults) :]}
    if names:
        yield "It takes " + listed([f"`{name}`" + (" (optional)" if name in optional else "") for name in names]) + "."
    inside = [item for part in node.body for item in ast.walk(part)]
    raised = sorted({name for item in inside if isinstance(item, ast.Raise) and (name := _name(item.exc))})
    if raised:
        yield f"It may raise {listed([f'`{name}`' for name in raised])}."
    loops = sum(isinstance(item, ast.For | ast.While | ast.AsyncFor) for item in inside)
    if loops:
        yield "It runs a loop." if loops == 1 else f"It runs {loops} loops."
    if any(isinstance(item, ast.Yield | ast.YieldFrom) for item in inside):
        yield "It is a generator: values come one by one, as they are asked for."
    called = sorted({name for item in inside if isinstance(item, ast.Call) and (name := _name(item.func))})[:6]
    if called:
        yield f"It calls {listed([f'`{name}`' for name in called])}."


def _name(node: ast.expr | None) -> str:
    """Return the name of a variable, or of the called function if `node` is a call. Otherwise return ""."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.id if isinstance(node, ast.Name) else ""


def listed(items: Sequence[str]) -> str:
    """Join items into an English list: `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


KINDS: Mapping[str, Callable[[Code], Iterator[Draft]]] = {
    "implement": implement, "document": document, "tests": from_tests, "fix": fix, "explain": explain,
}  # fmt: skip
"""Maps a kind of instruction to the rule that makes instructions of this kind. The rules for `refactor` and `translate`
are in `data_builders.instructions.rewrites`, because they need more than one function."""
