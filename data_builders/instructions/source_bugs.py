"""Put single bugs into the source text of a function. The rest of the text, with its formatting, stays as it is."""

from __future__ import annotations

import ast
import random
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from data_builders.parsing.python_functions import Function, SourceLines, parse

_COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "in": "not in", "not in": "in",
                "is": "is not", "is not": "is"}  # fmt: skip
_OPERATORS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "+"), ast.FloorDiv: ("//", "/"), ast.Div: ("/", "*"),
    ast.Mod: ("%", "//"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"), ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"),
}  # fmt: skip
_PAIRS = (
    ("min", "max"), ("any", "all"), ("startswith", "endswith"), ("lstrip", "rstrip"), ("lower", "upper"), ("find", "rfind"),
    ("floor", "ceil"), ("append", "extend"), ("pop", "popleft"), ("partition", "rpartition"), ("keys", "values"),
    ("update", "setdefault"), ("takewhile", "dropwhile"), ("items", "keys"), ("discard", "add"), ("union", "intersection"),
)  # fmt: skip
_NAMES = {**{right: left for left, right in _PAIRS}, **dict(_PAIRS)}


@dataclass(frozen=True)
class Bug:
    """One edit of a file that breaks a function."""

    kind: str
    start: int
    """Offset of the replaced text in the file, in characters."""
    end: int
    new: str

    def broken_text(self, text: str) -> str:
        """Return the text of the file with the bug."""
        return text[: self.start] + self.new + text[self.end :]

    def body(self, text: str, function: Function) -> str:
        """Return the body of the function with the bug, as it would stand in the file."""
        return self.broken_text(text)[function.start : function.end + len(self.new) - (self.end - self.start)]

    def definition(self, text: str, function: Function) -> str:
        """Return the dedented definition of the function with the bug."""
        end = function.end + len(self.new) - (self.end - self.start)
        return textwrap.dedent(self.broken_text(text)[function.first : end])

    def explanation(self, text: str) -> str:
        """Return a sentence that names the wrong line and the right line."""
        right = _line(text, self.start)
        if self.kind == "missing line":
            return f"The line `{right}` is missing."
        return f"The line `{_line(self.broken_text(text), self.start)}` is wrong. It has to be `{right}`."


def _line(text: str, offset: int) -> str:
    start = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    return text[start : end if end >= 0 else len(text)].strip()


def bugs(text: str, function: Function, count: int, seed: int) -> list[Bug]:
    """Return different bugs of a function, the kinds of bug in turn. Each broken version parses.

    Args:
        text: text of the function's file.
        function: the function.
        count: maximum number of bugs.
        seed: seed for drawing bugs, combined with the function's file and name.
    """
    by_kind: dict[str, list[Bug]] = {}
    for bug in _all_bugs(text, function):
        by_kind.setdefault(bug.kind, []).append(bug)
    generator = random.Random(f"{seed}:{function.file}:{function.qualname}")
    for items in by_kind.values():
        generator.shuffle(items)
    kinds = sorted(by_kind)
    generator.shuffle(kinds)
    chosen: list[Bug] = []
    while len(chosen) < count and any(by_kind.values()):
        for kind in kinds:
            while by_kind[kind] and len(chosen) < count:
                bug = by_kind[kind].pop()
                if parse(bug.definition(text, function)) is not None:
                    chosen.append(bug)
                    break
    return chosen


def _all_bugs(text: str, function: Function) -> Iterator[Bug]:
    lines = SourceLines(text)
    # A bug in an error message or an assertion seldom changes what a function does.
    skipped = {
        id(part)
        for item in function.body
        for node in ast.walk(item)
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr)
        for part in ast.walk(node)
    }
    for item in function.body:
        for node in ast.walk(item):
            if id(node) not in skipped:
                for kind, start, end, new in _edits(text, lines, node):
                    if "\n" not in text[start:end] and "`" not in _line(text, start):
                        yield Bug(kind, start, end, new)
    yield from _missing_lines(text, lines, function)


def _edits(text: str, lines: SourceLines, node: ast.AST) -> Iterator[tuple[str, int, int, str]]:
    """Yield (kind, start, end, new text) for each edit of one node."""
    if isinstance(node, ast.Compare):
        yield from _replaced_operator(text, lines, node.left, node.comparators[0], _COMPARISONS, "comparison")
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS and not _is_formatting(node):
        yield from _replaced_operator(
            text, lines, node.left, node.right, dict([_OPERATORS[type(node.op)]]), "arithmetic"
        )
    elif isinstance(node, ast.AugAssign) and type(node.op) in _OPERATORS:
        old, new = _OPERATORS[type(node.op)]
        yield from _replaced_operator(text, lines, node.target, node.value, {f"{old}=": f"{new}="}, "arithmetic")
    elif isinstance(node, ast.BoolOp):
        other = {"and": "or", "or": "and"}
        yield from _replaced_operator(text, lines, node.values[0], node.values[1], other, "boolean")
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        yield from _negated(lines, node.test)
    elif isinstance(node, ast.Constant):
        start, end = lines.span(node)
        if isinstance(node.value, bool):
            yield "constant", start, end, str(not node.value)
        elif isinstance(node.value, int) and text[start:end].isdecimal():
            yield "constant", start, end, str(node.value + 1)
    elif isinstance(node, ast.Break | ast.Continue):
        start, end = lines.span(node)
        yield "loop", start, end, "continue" if isinstance(node, ast.Break) else "break"
    elif isinstance(node, ast.Call):
        yield from _changed_calls(text, lines, node)


def _is_formatting(node: ast.BinOp) -> bool:
    return isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant | ast.JoinedStr)


def _replaced_operator(
    text: str, lines: SourceLines, left: ast.expr, right: ast.expr, operators: dict[str, str], kind: str
) -> Iterator[tuple[str, int, int, str]]:
    """Yield the edit that replaces the operator between two expressions."""
    first, last = lines.span(left)[1], lines.span(right)[0]
    gap = text[first:last]
    operator = re.search(r"not\s+in|is\s+not|[a-z]+|[-+*/%&|<>=!]+", gap)
    if operator and "#" not in gap and (new := operators.get(" ".join(operator.group().split()))):
        yield kind, first + operator.start(), first + operator.end(), new


def _negated(lines: SourceLines, test: ast.expr) -> Iterator[tuple[str, int, int, str]]:
    start = lines.span(test)[0]
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield "condition", start, lines.span(test.operand)[0], ""
    elif isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
        yield "condition", start, start, "not "


def _changed_calls(text: str, lines: SourceLines, node: ast.Call) -> Iterator[tuple[str, int, int, str]]:
    """Yield edits of a call: a similar function, or two arguments in the wrong order."""
    end = lines.span(node.func)[1]
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if new := _NAMES.get(name):
        yield "call", end - len(name), end, new
    if len(node.args) >= 2 and all(isinstance(item, ast.Name | ast.Attribute) for item in node.args[:2]):
        (start, middle), (other, last) = lines.span(node.args[0]), lines.span(node.args[1])
        yield "order", start, last, text[other:last] + text[middle:other] + text[start:middle]


def _missing_lines(text: str, lines: SourceLines, function: Function) -> Iterator[Bug]:
    """Yield bugs in which a statement of one line is missing."""
    for item in function.body:
        for node in ast.walk(item):
            for part in ("body", "orelse"):
                block = getattr(node, part, [])
                yield from _missing(text, lines, block if isinstance(block, list) else [])
    yield from _missing(text, lines, list(function.body))


def _missing(text: str, lines: SourceLines, block: list[ast.stmt]) -> Iterator[Bug]:
    for statement in block if len(block) > 1 else ():
        if isinstance(statement, ast.AugAssign | ast.Expr) and statement.lineno == statement.end_lineno:
            start = lines.starts[statement.lineno - 1]
            end = lines.starts[statement.lineno]
            alone = text[start:end].strip() == text[slice(*lines.span(statement))]
            if alone and not isinstance(getattr(statement, "value", None), ast.Constant) and end <= len(text):
                yield Bug("missing line", start, end, "")
