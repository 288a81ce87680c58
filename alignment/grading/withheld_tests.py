"""Removes tests from the text of test files, so that a model that reads and runs the other tests does not see them."""

from __future__ import annotations

import ast
from collections.abc import Iterable

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def withheld_by_file(withheld: Iterable[str], kept: Iterable[str]) -> dict[str, set[str]]:
    """Return the functions to remove from each file, as `function` or `Class::function`.

    A parametrized function is kept if one of its cases is among `kept`.

    Args:
        withheld: node ids of the tests to remove.
        kept: node ids of the tests to keep.
    """
    names = {name.partition("[")[0] for name in withheld} - {name.partition("[")[0] for name in kept}
    files: dict[str, set[str]] = {}
    for name in names:
        file, _, function = name.partition("::")
        files.setdefault(file, set()).add(function)
    return files


def without_tests(source: str, functions: Iterable[str]) -> str:
    """Return the source of a test file without some functions. A file that is not valid Python becomes empty.

    Args:
        source: the source.
        functions: the functions to remove, as `function` or `Class::function`.
    """
    wanted = set(functions)
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    lines = source.split("\n")
    removed: list[tuple[int, int, str]] = []
    for prefix, body, top in _bodies(module):
        cut = [item for item in body if isinstance(item, Definition) and f"{prefix}{item.name}" in wanted]
        for item in cut:
            start = min([item.lineno, *(decorator.lineno for decorator in item.decorator_list)])
            assert item.end_lineno is not None
            is_rest = not top and len(cut) == len(body) and item is cut[-1]
            removed.append((start, item.end_lineno, " " * item.col_offset + "pass" if is_rest else ""))
    for start, end, instead in sorted(removed, reverse=True):
        lines[start - 1 : end] = [instead] if instead else []
    return "\n".join(lines)


def _bodies(module: ast.Module) -> Iterable[tuple[str, list[ast.stmt], bool]]:
    """Yield the body of the module and of each class: prefix of names, statements, whether it is the module."""
    waiting: list[tuple[str, list[ast.stmt], bool]] = [("", module.body, True)]
    while waiting:
        prefix, body, top = waiting.pop()
        yield prefix, body, top
        waiting += [(f"{prefix}{item.name}::", item.body, False) for item in body if isinstance(item, ast.ClassDef)]
