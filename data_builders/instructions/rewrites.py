"""Make instructions of two kinds: rename a function (`refactor`), and rewrite a unittest for pytest (`translate`)."""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping

from data_builders.instructions.instruction_kinds import Draft, listed
from data_builders.parsing.python_functions import functions, parse
from data_builders.tasks.python.python_suite import is_test_file
from data_builders.tasks.python.task_context import code_block

MAX_FILES = 5
"""Maximum number of files that a rename changes."""
MAX_CHARACTERS = 12_000
"""Maximum number of characters of code that a rename shows."""
MIN_NAME = 5
"""Minimum length of a function's name. Shorter names are not descriptive enough to be the target of a rename."""
_ASSERTIONS = {
    "assertEqual": "{0} == {1}", "assertNotEqual": "{0} != {1}", "assertIs": "{0} is {1}",
    "assertIsNot": "{0} is not {1}", "assertIn": "{0} in {1}", "assertNotIn": "{0} not in {1}",
    "assertTrue": "{0}", "assertFalse": "not {0}", "assertIsNone": "{0} is None",
    "assertIsNotNone": "{0} is not None", "assertGreater": "{0} > {1}", "assertLess": "{0} < {1}",
    "assertGreaterEqual": "{0} >= {1}", "assertLessEqual": "{0} <= {1}",
}  # fmt: skip
"""Maps a method of `unittest.TestCase` to the expression of a plain assertion."""


def refactors(repository: str, commit: str, texts: Mapping[str, str]) -> Iterator[Draft]:
    """Yield instructions to rename a function in all files that use the function.

    The question shows the code with a meaningless name. The answer is the original code. A function is selected only if
    other files use it, and if its name has no other meaning in the repository.
    """
    python = {path: text for path, text in texts.items() if path.endswith(".py") and parse(text) is not None}
    lines_of: dict[str, dict[str, list[int]]] = defaultdict(dict)
    for path, text in python.items():
        for name, lines in _names(text).items():
            lines_of[name][path] = lines
    meaningless = next(name for number in range(1000) if (name := f"helper_{number}") not in lines_of)
    for path, text in sorted(python.items()):
        if is_test_file(path):
            continue
        for function in functions(path, text):
            name = function.qualname
            uses = {file: lines for file, lines in lines_of.get(name, {}).items() if not is_test_file(file)}
            if not _can_be_renamed(name, path, uses, python):
                continue
            before, after = [], []
            for file in sorted(uses, key=lambda item: (item != path, item)):
                code = _statements(python[file], uses[file])
                after.append(f"`{file}`:\n\n{code_block(code)}")
                before.append(f"`{file}`:\n\n{code_block(re.sub(rf'{chr(92)}b{name}{chr(92)}b', meaningless, code))}")
            if sum(map(len, before)) > MAX_CHARACTERS:
                continue
            files = listed([f"`{file}`" for file in sorted(uses)])
            ask = f"Rename the function `{meaningless}` to `{name}` in all of {files}."
            source = f"{repository}@{commit[:12]}:{path}:{name}"
            yield Draft("refactor", ask, "\n\n".join(before), "\n\n".join(after), source)


def _can_be_renamed(name: str, path: str, uses: Mapping[str, list[int]], python: Mapping[str, str]) -> bool:
    """Whether a name refers to nothing but one top-level function of the file `path`, and one to four other files use
    the name.
    """
    if "." in name or name.startswith("_") or len(name) < MIN_NAME or path not in uses:
        return False
    definitions = sum(len(re.findall(rf"\b(?:def|class)\s+{name}\b", python[file])) for file in uses)
    is_bound = any(re.search(rf"\b{name}\s*(?:=[^=]|:\s)|\bfor {name}\b|\bas {name}\b", python[file]) for file in uses)
    return 2 <= len(uses) <= MAX_FILES and definitions == 1 and not is_bound


def _names(text: str) -> dict[str, list[int]]:
    """Map each identifier of a file to the lines in which it occurs."""
    lines_of: dict[str, list[int]] = defaultdict(list)
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME:
                lines_of[token.string].append(token.start[0])
    except (tokenize.TokenError, SyntaxError):
        pass
    return lines_of


def _statements(text: str, lines: list[int]) -> str:
    """Return the top-level statements that contain one of the given lines. `# ...` replaces the code between them."""
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
    """Yield instructions to rewrite a `unittest` test method as a function for pytest.

    Methods that use `self` for more than assertions are left out.
    """
    for path, text in sorted(texts.items()):
        tree = parse(text) if path.endswith(".py") and is_test_file(path) else None
        for owner in tree.body if tree else []:
            if not isinstance(owner, ast.ClassDef):
                continue
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                    before = ast.get_source_segment(text, node, padded=True)
                    after = _as_function(node)
                    if before is not None and after is not None:
                        ask = f"Translate the test `{node.name}` from unittest to a plain function for pytest."
                        source = f"{repository}@{commit[:12]}:{path}:{owner.name}.{node.name}"
                        material, answer = code_block(textwrap.dedent(before)), code_block(after)
                        yield Draft("translate", ask, material, answer, source)


class _Assertions(ast.NodeTransformer):
    """Replaces calls of `self.assert...` methods by `assert` statements, and `self.assertRaises` by `pytest.raises`."""

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


def _as_function(method: ast.FunctionDef) -> str | None:
    """Rewrite a test method as a function. Return None if no assertion is translated, or the result uses `self`."""
    if method.decorator_list or len(method.args.args) != 1:
        return None
    assertions = _Assertions()
    function = assertions.visit(ast.parse(textwrap.dedent(ast.unparse(method))).body[0])
    function.args.args = []
    if not assertions.changed or any(_is_self(item) for item in ast.walk(function)):
        return None
    return ast.unparse(ast.fix_missing_locations(function))


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"
