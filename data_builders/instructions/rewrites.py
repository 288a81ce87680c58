"""Instructions over more than one function: a name changed across files, tests put into another framework's words."""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping

from data_builders.instructions.instruction_kinds import Draft, block, listed
from data_builders.parsing.python_functions import functions, parse
from data_builders.tasks.python.python_suite import is_test_file

MOST_FILES = 5
MOST_CHARACTERS = 12_000
_ASSERTIONS = {
    "assertEqual": "{0} == {1}", "assertNotEqual": "{0} != {1}", "assertIs": "{0} is {1}",
    "assertIsNot": "{0} is not {1}", "assertIn": "{0} in {1}", "assertNotIn": "{0} not in {1}",
    "assertTrue": "{0}", "assertFalse": "not {0}", "assertIsNone": "{0} is None",
    "assertIsNotNone": "{0} is not None", "assertGreater": "{0} > {1}", "assertLess": "{0} < {1}",
    "assertGreaterEqual": "{0} >= {1}", "assertLessEqual": "{0} <= {1}",
}  # fmt: skip


def refactors(repository: str, commit: str, texts: Mapping[str, str]) -> Iterator[Draft]:
    """Rename a function wherever it is used: asked with a name that says nothing, answered by the code as it is.

    So the answer is what the repository's tests were passed with. Only functions whose name stands for nothing else in
    the repository, and that other files use.
    """
    python = {path: text for path, text in texts.items() if path.endswith(".py") and parse(text) is not None}
    where: dict[str, dict[str, list[int]]] = defaultdict(dict)
    for path, text in python.items():
        for name, lines in _names(text).items():
            where[name][path] = lines
    taken = set(where)
    for path, text in sorted(python.items()):
        if is_test_file(path):
            continue
        for function in functions(path, text):
            name = function.qualname
            used = {file: lines for file, lines in where.get(name, {}).items() if not is_test_file(file)}
            if "." in name or name.startswith("_") or len(name) < 5 or path not in used:
                continue
            defined = sum(len(re.findall(rf"\b(?:def|class)\s+{name}\b", python[file])) for file in used)
            bound = any(
                re.search(rf"\b{name}\s*(?:=[^=]|:\s)|\bfor {name}\b|\bas {name}\b", python[file]) for file in used
            )
            if not 2 <= len(used) <= MOST_FILES or defined != 1 or bound:
                continue
            poor = next(word for number in range(1000) if (word := f"helper_{number}") not in taken)
            parts_before, parts_after = [], []
            for file in sorted(used, key=lambda item: (item != path, item)):
                shown = _statements(python[file], used[file])
                parts_after.append(f"`{file}`:\n\n{block(shown)}")
                parts_before.append(f"`{file}`:\n\n{block(re.sub(rf'{chr(92)}b{name}{chr(92)}b', poor, shown))}")
            if sum(map(len, parts_before)) > MOST_CHARACTERS:
                continue
            ask = (
                f"Rename the function `{poor}` to `{name}` in all of {listed([f'`{file}`' for file in sorted(used)])}."
            )
            source = f"{repository}@{commit[:12]}:{path}:{name}"
            yield Draft("refactor", ask, "\n\n".join(parts_before), "\n\n".join(parts_after), source)


def _names(text: str) -> dict[str, list[int]]:
    """Identifiers of a file, and the lines they stand in."""
    found: dict[str, list[int]] = defaultdict(list)
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME:
                found[token.string].append(token.start[0])
    except (tokenize.TokenError, SyntaxError):
        pass
    return found


def _statements(text: str, lines: list[int]) -> str:
    """The top-level statements that hold any of the lines; what lies between is left out with a mark."""
    tree = parse(text)
    assert tree is not None
    rows = text.split("\n")
    parts: list[str] = []
    for node in tree.body:
        first = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])
        last = node.end_lineno or first
        if any(first <= line <= last for line in lines):
            parts.append("\n".join(rows[first - 1 : last]))
    return "\n\n# ...\n\n".join(parts)


def translations(repository: str, commit: str, texts: Mapping[str, str]) -> Iterator[Draft]:
    """Test methods of `unittest` as plain functions for pytest, where every assertion has a plain form."""
    for path, text in sorted(texts.items()):
        tree = parse(text) if path.endswith(".py") and is_test_file(path) else None
        for owner in tree.body if tree else []:
            if not isinstance(owner, ast.ClassDef):
                continue
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                    before = ast.get_source_segment(text, node, padded=True)
                    after = _plain(node)
                    if before is not None and after is not None:
                        ask = f"Translate the test `{node.name}` from unittest to a plain function for pytest."
                        source = f"{repository}@{commit[:12]}:{path}:{owner.name}.{node.name}"
                        yield Draft("translate", ask, block(textwrap.dedent(before)), block(after), source)


class _Assertions(ast.NodeTransformer):
    def __init__(self) -> None:
        self.changed = 0

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and _is_self(call.func.value):
            form = _ASSERTIONS.get(call.func.attr)
            count = 2 if form and "{1}" in form else 1
            if form and len(call.args) == count and not call.keywords:
                self.changed += 1
                parts = [f"({ast.unparse(item)})" for item in call.args]
                return ast.parse(f"assert {form.format(*parts)}").body[0]
        return node

    def visit_With(self, node: ast.With) -> ast.AST:
        self.generic_visit(node)
        call = node.items[0].context_expr
        if (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and _is_self(call.func.value)
            and call.func.attr == "assertRaises" and len(call.args) == 1 and not call.keywords and len(node.items) == 1
        ):  # fmt: skip
            self.changed += 1
            call.func = ast.Attribute(ast.Name("pytest", ast.Load()), "raises", ast.Load())
        return node


def _plain(node: ast.FunctionDef) -> str | None:
    """The test without its class, or None where it needs one."""
    if node.decorator_list or len(node.args.args) != 1:
        return None
    transformer = _Assertions()
    made = transformer.visit(ast.parse(textwrap.dedent(ast.unparse(node))).body[0])
    made.args.args = []
    if not transformer.changed or any(_is_self(item) for item in ast.walk(made)):
        return None
    return ast.unparse(ast.fix_missing_locations(made))


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"
