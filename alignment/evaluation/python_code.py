"""Analysis and repair of Python source text: what parses, which names it defines, missing imports, script statements."""

from __future__ import annotations

import ast
import re
import textwrap

_TYPING = [
    "Any",
    "Callable",
    "Counter",
    "DefaultDict",
    "Deque",
    "Dict",
    "FrozenSet",
    "Generator",
    "Iterable",
    "Iterator",
    "List",
    "Mapping",
    "NamedTuple",
    "Optional",
    "Sequence",
    "Set",
    "Tuple",
    "Type",
    "TypeVar",
    "Union",
]
_MODULES = [
    "bisect",
    "collections",
    "copy",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "os",
    "random",
    "re",
    "statistics",
    "string",
    "sys",
    "time",
    "datetime",
]
_FROM = {
    "defaultdict": "collections", "deque": "collections", "OrderedDict": "collections", "Counter": "collections",
    "lru_cache": "functools", "cache": "functools", "reduce": "functools", "cmp_to_key": "functools",
    "heappush": "heapq", "heappop": "heapq", "heapify": "heapq",
    "bisect_left": "bisect", "bisect_right": "bisect", "insort": "bisect",
    "permutations": "itertools", "combinations": "itertools", "product": "itertools", "accumulate": "itertools",
    "groupby": "itertools", "zip_longest": "itertools", "chain": "itertools",
    "sqrt": "math", "gcd": "math", "ceil": "math", "floor": "math", "deepcopy": "copy", "dataclass": "dataclasses",
    "Fraction": "fractions", "Decimal": "decimal", "ascii_lowercase": "string", "ascii_uppercase": "string",
}  # fmt: skip


PARSE_BUDGET = 1_000_000
"""Characters that are parsed at most while searching one answer for code; without a limit, repetitive answers would stall
an evaluation."""


def longest_valid(code: str, budget: int = PARSE_BUDGET) -> str:
    """Return the longest beginning of the code, in whole lines, that parses. Empty if there is none.

    Args:
        code: source text.
        budget: characters to parse at most; the search ends with an empty result beyond it.
    """
    code = code.rstrip()
    if parses(code):
        return code
    lines = code.split("\n")
    low = 0
    # Lines are removed from the end one by one, but never fewer than up to the line of the first syntax error.
    end = len(lines)
    while end > low:
        end -= 1
        candidate = "\n".join(lines[:end]).rstrip()
        budget -= len(candidate)
        if not candidate.strip() or budget < 0:
            return ""
        error = _syntax_error(candidate)
        if error is None:
            return candidate
        if error < end and error > 0:
            end = min(end, error)
    return ""


def trim_continuation(prefix: str, completion: str) -> str:
    """Return the longest beginning of a left-to-right completion that parses after its prefix; all of it if none does."""
    if parses(prefix + completion):
        return completion
    lines = completion.split("\n")
    for end in range(len(lines) - 1, 0, -1):
        candidate = "\n".join(lines[:end])
        if parses(prefix + candidate):
            return candidate + "\n"
    return completion


def add_imports(code: str) -> str:
    """Add imports of the standard library, numpy and pandas for names that the code uses without defining them."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    bound = _bound_names(tree)
    free = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)} - bound
    lines = [f"import {name}" for name in _MODULES if name in free]
    if "np" in free:
        lines.append("import numpy as np")
    if "pd" in free:
        lines.append("import pandas as pd")
    typing = [name for name in _TYPING if name in free and name not in _FROM]
    if typing:
        lines.append(f"from typing import {', '.join(typing)}")
    lines += [f"from {module} import {name}" for name, module in _FROM.items() if name in free]
    if not lines:
        return code
    head = "\n".join(lines)
    future = re.match(r"(?:from __future__ import [^\n]*\n)+", code)
    if future:
        return code[: future.end()] + head + "\n" + code[future.end() :]
    return f"{head}\n\n{code}"


def defined_names(code: str) -> set[str]:
    """Names that the top level of the code binds; if it does not parse, those of its functions and classes."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"^(?:async\s+)?(?:def|class)\s+(\w+)", code, re.MULTILINE))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def used_names(code: str) -> set[str]:
    """Return all names in the code; all words if it does not parse."""
    try:
        return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"\b[A-Za-z_]\w*\b", code))


def _bound_names(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def without_scripts(code: str, entry_point: str) -> str:
    """Remove top-level statements that would run when the file is imported: examples, input, checks, `if __name__`.

    Imports, definitions and assignments stay, inside `try` and `if` too, and so do settings such as
    `sys.setrecursionlimit`. An assignment is removed if it reads input, or if it calls the entry point and no definition
    uses the result.

    Args:
        code: source text.
        entry_point: the function that the code is for.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    used = {name for node in tree.body if isinstance(node, _DEFINITIONS) for name in _names_in(node)}
    scripts = [node for node in tree.body if _is_script(node, entry_point, used)]
    if not scripts:
        return code
    removed = {number for node in scripts for number in _lines_of(node)}
    if any(removed & set(_lines_of(node)) for node in tree.body if node not in scripts):  # statements share a line
        return "\n\n".join(ast.unparse(node) for node in tree.body if node not in scripts)
    lines = ["" if number in removed else line for number, line in enumerate(code.split("\n"), 1)]
    return re.sub(r"\n{3,}", "\n\n\n", "\n".join(lines)).rstrip() + "\n"


def _lines_of(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _names_in(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _is_script(node: ast.stmt, entry_point: str, used: set[str]) -> bool:
    """Whether `without_scripts` removes a statement; `used`: names that the definitions of the file use."""
    if isinstance(node, ast.Assert | ast.For | ast.AsyncFor | ast.While | ast.Raise | ast.With):
        return not _names_in(node) & used - {entry_point} or isinstance(node, ast.Assert | ast.Raise)
    if isinstance(node, ast.Expr):
        if isinstance(node.value, ast.Constant):
            return False
        setting = isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute)
        return not (setting and re.match(r"set|seed|append|update|add|register|insert", node.value.func.attr))  # type: ignore[attr-defined]
    if isinstance(node, ast.If):
        guard = any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test))
        return guard or not any(isinstance(part, _KEPT_INSIDE) for part in ast.walk(node))
    if isinstance(node, ast.Try):
        return not any(isinstance(part, _KEPT_INSIDE) for part in ast.walk(node))
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        called = {
            part.func.id for part in ast.walk(node) if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)
        }
        bound = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
        return "input" in called or (entry_point in called and not bound & used)
    return False


_KEPT_INSIDE = _DEFINITIONS | ast.Import | ast.ImportFrom


def dedent(code: str) -> str:
    """Remove common indentation, also if only the first line has lost its own."""
    code = textwrap.dedent(code.strip("\n"))
    if parses(code):
        return code
    first, _, rest = code.partition("\n")
    if rest and not first[:1].isspace() and first.rstrip()[-1:] != ":":
        repaired = f"{first}\n{textwrap.dedent(rest)}"
        if parses(repaired):
            return repaired
    return code


def parses(code: str) -> bool:
    """Whether text is valid Python."""
    return _syntax_error(code) is None


def _syntax_error(code: str) -> int | None:
    """Return the line of the first syntax error, 0 if it names no line, or None for code that parses."""
    try:
        ast.parse(code)
    except SyntaxError as error:
        return error.lineno or 0
    except (ValueError, RecursionError, MemoryError):
        return 0
    return None
