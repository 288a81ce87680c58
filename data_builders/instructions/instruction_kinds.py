"""Instructions that rules make from a repository's code: what is asked, what is answered, and how it can be proven."""

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
from data_builders.tasks.python.task_context import imports_of

LEAST_DOC_WORDS = 4
MUTANTS = 3


@dataclass
class Draft:
    """One conversation before it is judged."""

    kind: str
    ask: str
    """What is asked, in words; a writer may say it otherwise."""
    material: str
    """The code that is shown with it, word for word."""
    answer: str
    source: str
    task: dict[str, Any] | None = None
    """The executable task that decides on other answers."""
    broken: str = ""
    """A body that the task's tests must notice, or the draft is none."""
    language: str = "python"

    @property
    def prompt(self) -> str:
        return f"{self.ask}\n\n{self.material}" if self.material else self.ask


@dataclass(frozen=True)
class Code:
    """A function with what the kinds need of it."""

    function: Function
    text: str
    """Of its file."""
    source: str
    """Of the row: repository, commit and place."""
    task: dict[str, Any] | None
    shown_tests: str
    """The code of its visible tests, or ""."""

    @property
    def whole(self) -> str:
        return definition(self.text, self.function)

    def pick(self, kind: str, choices: Sequence[str]) -> str:
        """One wording, always the same for a function."""
        digest = hashlib.sha256(f"{kind}:{self.source}".encode()).digest()
        return choices[digest[0] % len(choices)].format(
            name=self.function.qualname.rpartition(".")[2], file=self.function.file, qualname=self.function.qualname
        )


def block(code: str, language: str = "python") -> str:
    return f"```{language}\n{code.strip(chr(10))}\n```"


def _head(code: Code) -> str:
    """Decorators, signature and docstring: the function as far as its body."""
    return textwrap.dedent(code.text[code.function.first : code.function.start]).rstrip()


def implement(code: Code) -> Iterator[Draft]:
    """Docstring to function."""
    if len(code.function.doc.split()) < LEAST_DOC_WORDS:
        return
    ask = code.pick("implement", (
        "Write the function `{name}` of `{file}` from its signature and documentation.",
        "Implement `{qualname}` as its docstring describes it.",
        "Complete this function. Keep its signature and its docstring.",
        "The body of `{name}` is missing. Write it.",
    ))  # fmt: skip
    head = imports_of(code.text, code.function.first)
    shown = block(f"{head}\n{_head(code)}\n{indentation_of(code)}..." if head else f"{_head(code)}\n    ...")
    yield Draft("implement", ask, shown, block(code.whole), code.source, code.task)


def indentation_of(code: Code) -> str:
    """The inner indentation of a definition that begins at the left margin."""
    inner = len(indentation(code.text, code.function))
    line = code.text[code.function.first : code.function.first + 200]
    return " " * max(1, inner - (len(line) - len(line.lstrip(" "))) or 4)


def document(code: Code) -> Iterator[Draft]:
    """Function to docstring."""
    if len(code.function.doc.split()) < LEAST_DOC_WORDS:
        return
    tree = parse(code.whole)
    if tree is None or not tree.body or not isinstance(tree.body[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return
    node = tree.body[0]
    first = node.body[0]
    if len(node.body) < 2 or first.end_lineno is None:
        return
    lines = code.whole.split("\n")
    bare = "\n".join([*lines[: first.lineno - 1], *lines[first.end_lineno :]])
    ask = code.pick("document", (
        "Write a docstring for `{name}`.", "Document this function: give its docstring and nothing else.",
        "What would a good docstring of `{qualname}` say?",
    ))  # fmt: skip
    quoted = code.function.doc.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    yield Draft("document", ask, block(bare), block(f'"""{quoted}"""'), code.source)


def from_tests(code: Code) -> Iterator[Draft]:
    """Tests to function."""
    if not code.shown_tests or code.task is None:
        return
    ask = code.pick("tests", (
        "Write `{qualname}` of `{file}` so that these tests pass.",
        "Here are tests of `{name}`, and its signature. Write the function.",
        "Make these tests pass: implement `{name}`.",
    ))  # fmt: skip
    material = f"{block(code.shown_tests)}\n\n{block(code.function.header + ':')}"
    yield Draft("tests", ask, material, block(code.whole), code.source, code.task)


def fix(code: Code) -> Iterator[Draft]:
    """A bug to fix: one small change that the function's own tests notice."""
    if code.task is None:
        return
    begin, end = code.text[code.function.first : code.function.start], code.text[code.function.end : code.function.end]
    for body in mutants(code.function, MUTANTS, seed=1):
        inner = indentation(code.text, code.function) or "    "
        moved = "\n".join(f"{inner}{line[4:]}" if line.strip() else line for line in body.split("\n"))
        ask = code.pick(f"fix:{body}", (
            "`{qualname}` has a bug. Find it and fix it.", "Tests of `{name}` fail. Correct the function.",
            "This function does not do what it should. What is wrong? Give the corrected function.",
        ))  # fmt: skip
        shown = textwrap.dedent(begin + moved + end)
        material = block(shown)
        if code.shown_tests:
            material += f"\n\nAmong its tests are:\n\n{block(code.shown_tests)}"
        yield Draft("fix", ask, material, block(code.whole), code.source, code.task, broken=body)


def explain(code: Code) -> Iterator[Draft]:
    """What a function does, from its documentation and its syntax tree."""
    first = re.split(r"(?<=[.!?])\s|\n\n", code.function.doc, maxsplit=1)[0].replace("\n", " ").strip()
    tree = parse(code.whole)
    if len(first.split()) < LEAST_DOC_WORDS or tree is None or not tree.body:
        return
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    said = [f"`{code.function.qualname}`: {first if first.endswith(('.', '!', '?')) else first + '.'}", *_facts(node)]
    ask = code.pick("explain", (
        "Explain what `{qualname}` in `{file}` does.", "What does this function do, and how?",
        "Walk me through `{name}`.",
    ))  # fmt: skip
    yield Draft("explain", ask, block(code.whole), " ".join(said), code.source)


def _facts(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Sentences that the syntax tree proves."""
    given = node.args
    names = [item.arg for item in (*given.posonlyargs, *given.args) if item.arg not in ("self", "cls")]
    optional = {item.arg for item in (*given.posonlyargs, *given.args)[len(given.posonlyargs + given.args) - len(given.defaults) :]}  # fmt: skip
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
    node = node.func if isinstance(node, ast.Call) else node
    return node.id if isinstance(node, ast.Name) else ""


def listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


KINDS: Mapping[str, Callable[[Code], Iterator[Draft]]] = {
    "implement": implement, "document": document, "tests": from_tests, "fix": fix, "explain": explain,
}  # fmt: skip
"""Kinds that are made from one function. `refactor` and `translate` are in `data_builders.instructions.rewrites`."""
