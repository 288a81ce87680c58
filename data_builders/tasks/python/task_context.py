"""Make the prompt of a Python task from the code around the masked body, signatures of other files, and tests."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Protocol

from data_builders.parsing.imports import Resolver
from data_builders.parsing.python_functions import Function, indentation, masked, parse
from data_builders.tasks.python.python_suite import PreparedSuite

MAX_SIGNATURES = 20
"""Maximum number of signatures from other files that a prompt shows."""


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


def prompt(prepared: PreparedSuite, function: Function, visible: Sequence[str], characters: int) -> str:
    """Return the prompt of a task: a user message that asks for the body of one function.

    Args:
        prepared: the snapshot of the repository.
        function: the function whose body is masked.
        visible: names of the tests to show.
        characters: approximate number of characters to show of the function's file. The shown tests are limited to a
            third of this number.
    """
    text = prepared.texts[function.file]
    opening, closing = window(text, function, characters * 2 // 3, characters // 3)
    mark = f"{indentation(text, function) or '    '}...  # write this body"
    shown = masked(
        text, function, mark if text[function.start - 1 : function.start] == "\n" else "...  # write this body"
    )
    shift = len(shown) - len(text)
    part = shown[opening : closing + shift]
    parts = [
        f"Write the body of `{function.qualname}` in `{function.file}` of the repository `{prepared.snapshot.data['name']}`. "
        "Keep its signature. Answer with the whole function in one Python block."
    ]
    if needed := signatures(prepared, function):
        parts.append(f"Other files of the repository have:\n\n{code_block(needed)}")
    head = imports_of(text, opening) if opening else ""
    parts.append(f"`{function.file}`:\n\n{code_block(head + part)}")
    if tests := test_sources(prepared.tests_texts, visible, characters // 3):
        parts.append(f"Among its tests are:\n\n{code_block(tests)}")
    return "\n\n".join(parts)


def code_block(code: str, language: str = "python") -> str:
    """Format code as a fenced Markdown block, without empty lines at the start and the end."""
    return f"```{language}\n{code.strip(chr(10))}\n```"


def imports_of(text: str, before: int) -> str:
    """Return the top-level imports above an offset of a file, followed by the line `# ...` in place of omitted code."""
    tree = parse(text)
    if tree is None:
        return ""
    lines = text.split("\n")
    limit = text.count("\n", 0, before)
    imports = [
        "\n".join(lines[node.lineno - 1 : node.end_lineno])
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom) and (node.end_lineno or 0) <= limit
    ]
    return "\n".join([*imports, "", "# ...", ""]) if imports else "# ...\n"


def signatures(prepared: PreparedSuite, function: Function) -> str:
    """Return the signatures of functions and classes that the function's file imports from files of the repository.

    Each signature is followed by the first line of the docstring. For an imported constant, its assignment is returned.
    """
    tree = parse(prepared.texts[function.file])
    if tree is None:
        return ""
    resolver = Resolver(prepared.texts, prepared.snapshot.data["name"])
    wanted: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for path in resolver.dependencies(function.file, "python", [module]):
                wanted.setdefault(path, []).extend(alias.name for alias in node.names)
    parts: list[str] = []
    left = MAX_SIGNATURES
    for path in sorted(wanted):
        lines = [item for name in dict.fromkeys(wanted[path]) if (item := _signature(prepared.texts[path], name))][
            :left
        ]
        left -= len(lines)
        if lines:
            parts.append("\n".join([f"# {path}", *lines]))
    return "\n\n".join(parts)


def _signature(text: str, name: str) -> str:
    """Return the signature of the top-level function or class `name`, or the assignment to the constant `name`.

    Return "" if the text does not define the name.
    """
    tree = parse(text)
    for node in tree.body if tree else []:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            doc = (ast.get_docstring(node) or "").split("\n", 1)[0]
            rest = f'\n    """{doc}"""' if doc else " ..."
            if isinstance(node, ast.ClassDef):
                bases = ", ".join(ast.unparse(base) for base in node.bases)
                return f"class {node.name}({bases}):{rest}" if bases else f"class {node.name}:{rest}"
            word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            return f"{word} {node.name}({ast.unparse(node.args)}){returns}:{rest}"
        if isinstance(node, ast.Assign) and any(
            isinstance(item, ast.Name) and item.id == name for item in node.targets
        ):
            line = ast.unparse(node)
            return line if len(line) <= 120 else f"{name} = ..."
    return ""


def test_sources(texts: Mapping[str, str], names: Sequence[str], characters: int) -> str:
    """Return the code of test functions, each function once. Functions that would exceed the limit are left out.

    Args:
        texts: texts of the test files, keyed by path.
        names: names of the tests in pytest's notation: `file::class::function[parameters]`.
        characters: maximum number of characters of code.
    """
    parts: list[str] = []
    for name in dict.fromkeys(item.partition("[")[0] for item in names):
        file, *path = name.split("::")
        source = texts.get(file, "")
        code = definition_of(source, path)
        if code and sum(map(len, parts)) + len(code) <= characters:
            parts.append(code)
    return "\n\n".join(parts)


def definition_of(source: str, path: Sequence[str]) -> str:
    """Return the code of a function, given by a path of names such as `["TestCart", "test_total"]` (class, function).

    Return "" if the source has no such function.
    """
    tree = parse(source)
    if tree is None or not path:
        return ""
    node: ast.Module | ast.stmt = tree
    for name in path:
        inner = next(
            (item for item in getattr(node, "body", [])
             if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and item.name == name), None,
        )  # fmt: skip
        if inner is None:
            return ""
        node = inner
    return ast.get_source_segment(source, node, padded=True) or "" if isinstance(node, ast.stmt) else ""
