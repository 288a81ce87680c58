"""Find the functions in Python source and the spans of their bodies, and replace a body by a mask."""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from alignment.sandbox.inside import guard
from alignment.sandbox.inside.splice import bare_header

Definition = ast.FunctionDef | ast.AsyncFunctionDef
MASK = "raise NotImplementedError"


@dataclass(frozen=True)
class Function:
    """A function or method of a file. Offsets are in characters from the start of the file's text."""

    file: str
    qualname: str
    line: int
    """Line of the first decorator, or of `def` if the function has no decorator (`co_firstlineno` of the code
    object)."""
    header: str
    """The `def` line in the normalized form of `splice.bare_header`."""
    start: int
    """Offset of the body, after the docstring."""
    end: int
    """Offset of the end of the body."""
    first: int
    """Offset of the definition, decorators included."""
    plain: bool
    """Whether the function can run in a different process than its tests: it is not a coroutine."""
    doc: str = ""
    """The docstring."""
    names: tuple[str, ...] = ()
    """Words in the original body. `sandbox.inside.guard` also permits these words in the body of a graded program."""
    problem: str = ""
    """Reason why the function can't become a task (`no_body`, `nonlocal`), or ""."""
    body: tuple[ast.stmt, ...] = field(default=(), repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.qualname

    def target(self) -> dict[str, Any]:
        """Return the fields by which the sandbox finds the function, as JSON values."""
        return {
            "file": self.file,
            "line": self.line,
            "qualname": self.qualname,
            "header": self.header,
            "names": list(self.names),
        }


def parse(text: str) -> ast.Module | None:
    """Parse Python source. Return None if the running version of Python can't parse the text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def functions(file: str, text: str) -> list[Function]:
    """Return the functions and methods of a file, in order. Functions inside other functions are left out.

    Args:
        file: path of the file, copied to the result.
        text: source code of the file.

    Returns:
        The functions, or an empty list if the text does not parse.
    """
    tree = parse(text)
    if tree is None:
        return []
    lines = SourceLines(text)
    return [_function(file, node, owners, lines) for node, owners in _definitions(tree.body, ())]


def _definitions(body: list[ast.stmt], owners: tuple[str, ...]) -> Iterator[tuple[Definition, tuple[str, ...]]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, owners
        elif isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, (*owners, node.name))
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for part in ("body", "orelse", "finalbody"):
                yield from _definitions(getattr(node, part, []), owners)
            for handler in getattr(node, "handlers", []):
                yield from _definitions(handler.body, owners)


class SourceLines:
    """Converts line numbers and byte columns of a syntax tree to character offsets in the text."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)

    def offset(self, line: int, column: int) -> int:
        content = self.lines[line - 1]
        if not content.isascii():
            column = len(content.encode("utf-8", "surrogatepass")[:column].decode("utf-8", "replace"))
        return self.starts[line - 1] + column

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Return the offsets of the start and the end of a node."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset)

    def is_filler(self, line: int) -> bool:
        content = self.lines[line - 1].strip()
        return not content or content.startswith("#")


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])


def _function(file: str, node: Definition, owners: tuple[str, ...], lines: SourceLines) -> Function:
    doc = ast.get_docstring(node, clean=True) or ""
    body = node.body[1:] if doc or _is_text(node.body[0]) else node.body
    line = _first_line(node)
    first = lines.starts[line - 1]
    words = sorted({word for item in node.body for part in ast.walk(item) for word in guard.words(part)})
    common: dict[str, Any] = {
        "file": file, "qualname": ".".join((*owners, node.name)), "line": line, "header": bare_header(node), "first": first,
        "plain": isinstance(node, ast.FunctionDef), "doc": doc, "names": tuple(words), "body": tuple(body),
    }  # fmt: skip
    if not body or all(_is_nothing(item) for item in body):
        return Function(**common, start=first, end=first, problem="no_body")
    top = _first_line(body[0])
    above = node.body[0].end_lineno if len(body) < len(node.body) else None
    if not lines.lines[top - 1][: _column(body[0])].strip() and top != above:
        while top - 1 > max(node.lineno, above or 0) and lines.is_filler(top - 1):
            top -= 1  # also mask the comments above the first statement, because they describe it
        start = lines.starts[top - 1]
    else:
        start = lines.offset(body[0].lineno, body[0].col_offset)
    last = body[-1]
    assert last.end_lineno is not None and last.end_col_offset is not None
    end = lines.offset(last.end_lineno, last.end_col_offset)
    problem = "nonlocal" if any(isinstance(part, ast.Nonlocal) for item in body for part in _statements(item)) else ""
    return Function(**common, start=start, end=end, problem=problem)


def _column(node: ast.stmt) -> int:
    return min([node.col_offset, *(max(0, item.col_offset - 1) for item in getattr(node, "decorator_list", []))])


def _statements(node: ast.stmt) -> Iterator[ast.AST]:
    """Yield a statement and all nodes inside it, except the nodes inside nested functions and classes."""
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                yield from _statements(child)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_nothing(node: ast.stmt) -> bool:
    """Whether a statement is `pass`, `...`, a constant, or `raise NotImplementedError`."""
    if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        return True
    if isinstance(node, ast.Raise) and node.exc is not None:
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    return False


def masked(text: str, function: Function, mask: str) -> str:
    """Return the text of a file with the body of a function replaced by `mask`."""
    return text[: function.start] + mask + text[function.end :]


def indentation(text: str, function: Function) -> str:
    """Return the white space before the first statement of the body, or "" if the body is on the `def` line."""
    body = text[function.start : function.end]
    line = next((item for item in body.split("\n") if item.strip() and not item.strip().startswith("#")), "")
    return line[: len(line) - len(line.lstrip())]


def definition(text: str, function: Function) -> str:
    """Return the dedented source of a function, including decorators."""
    return textwrap.dedent(text[function.first : function.end])
