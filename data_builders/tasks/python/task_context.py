"""What a task shows: the file around the masked body, what it needs of other files, and the visible tests."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Protocol

from data_builders.parsing.imports import Resolver
from data_builders.parsing.python_functions import Function, indentation, masked, parse
from data_builders.tasks.python.python_suite import PreparedSuite

SIGNATURES = 20  # names of other files that a prompt shows at most


class Span(Protocol):
    """A run of text: offsets of its begin and end."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


def window(text: str, function: Function | Span, before: int, after: int) -> tuple[int, int]:
    """Offsets of the part of a file that is shown: whole lines, about so many characters around the body."""
    first = function.first if isinstance(function, Function) else function.start
    opening = max(0, min(first, function.start - before))
    if opening:
        opening = text.rfind("\n", 0, opening) + 1
    closing = min(len(text), function.end + after)
    if closing < len(text):
        closing = text.rfind("\n", function.end, closing) + 1 or text.find("\n", closing) + 1 or len(text)
    return opening, closing


def prompt(prepared: PreparedSuite, function: Function, visible: Sequence[str], characters: int) -> str:
    """The user's message of a task: asks for one function's body."""
    text = prepared.texts[function.file]
    opening, closing = window(text, function, characters * 2 // 3, characters // 3)
    mark = f"{indentation(text, function) or '    '}...  # write this body"
    shown = masked(
        text, function, mark if text[function.start - 1 : function.start] == "\n" else "...  # write this body"
    )
    moved = len(shown) - len(text)
    part = shown[opening : closing + moved]
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
    """Return code as a fenced block of Markdown, without empty lines at its ends."""
    return f"```{language}\n{code.strip(chr(10))}\n```"


def imports_of(text: str, before: int) -> str:
    """The import statements at the top level that a window leaves out."""
    tree = parse(text)
    if tree is None:
        return ""
    lines = text.split("\n")
    limit = text.count("\n", 0, before)
    found = [
        "\n".join(lines[node.lineno - 1 : node.end_lineno])
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom) and (node.end_lineno or 0) <= limit
    ]
    return "\n".join([*found, "", "# ...", ""]) if found else "# ...\n"


def signatures(prepared: PreparedSuite, function: Function) -> str:
    """What the function's file imports from other files of the repository: signatures, and the first line of their
    documentation."""
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
    left = SIGNATURES
    for path in sorted(wanted):
        found = [item for name in dict.fromkeys(wanted[path]) if (item := _signature(prepared.texts[path], name))][
            :left
        ]
        left -= len(found)
        if found:
            parts.append("\n".join([f"# {path}", *found]))
    return "\n\n".join(parts)


def _signature(text: str, name: str) -> str:
    tree = parse(text)
    for node in tree.body if tree else []:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            doc = (ast.get_docstring(node) or "").split("\n", 1)[0]
            said = f'\n    """{doc}"""' if doc else ""
            if isinstance(node, ast.ClassDef):
                bases = ", ".join(ast.unparse(base) for base in node.bases)
                return (
                    f"class {node.name}({bases}):{said or ' ...'}" if bases else f"class {node.name}:{said or ' ...'}"
                )
            word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            return f"{word} {node.name}({ast.unparse(node.args)}){returns}:{said or ' ...'}"
        if isinstance(node, ast.Assign) and any(
            isinstance(item, ast.Name) and item.id == name for item in node.targets
        ):
            line = ast.unparse(node)
            return line if len(line) <= 120 else f"{name} = ..."
    return ""


def test_sources(texts: Mapping[str, str], names: Sequence[str], characters: int) -> str:
    """The code of visible tests, as far as there is room."""
    parts: list[str] = []
    for name in dict.fromkeys(item.partition("[")[0] for item in names):
        file, *path = name.split("::")
        source = texts.get(file, "")
        code = definition_of(source, path)
        if code and sum(map(len, parts)) + len(code) <= characters:
            parts.append(code)
    return "\n\n".join(parts)


def definition_of(source: str, path: Sequence[str]) -> str:
    """The code of a function by its path of names (class, then function), or "" where there is none."""
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
