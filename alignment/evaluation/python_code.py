"""Python code as text: what of it parses, which names it binds, which imports it forgot, what a script would run."""

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


PARSED = 1_000_000
"""Characters of one answer that are parsed in search of its code: an answer that repeats itself must not stall a run."""


def longest_valid(code: str, budget: int = PARSED) -> str:
    """`code` up to the last line with which it still parses; empty when no line does, or none within the budget."""
    code = code.rstrip()
    if parses(code):
        return code
    lines = code.split("\n")
    low = 0
    # Every cut is tried from the end, but a syntax error names a line past which no cut can help.
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
    """As much of a left-to-right completion as parses behind its prefix; all of it where nothing does."""
    if parses(prefix + completion):
        return completion
    lines = completion.split("\n")
    for end in range(len(lines) - 1, 0, -1):
        candidate = "\n".join(lines[:end])
        if parses(prefix + candidate):
            return candidate + "\n"
    return completion


def add_imports(code: str) -> str:
    """Put imports of the standard library before code that uses their names and forgot them."""
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
    """Names that the top level of Python code binds."""
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
    """Drop what a file of definitions runs beside them: examples of use, input, checks, `if __name__`.

    Imports, definitions and assignments stay, also inside of `try` and `if`; so do settings such as
    `sys.setrecursionlimit`. An assignment goes where it reads input, or calls the entry point for nobody's use.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    wanted = {name for node in tree.body if isinstance(node, _DEFINITIONS) for name in _names_in(node)}
    dropped = [node for node in tree.body if _is_script(node, entry_point, wanted)]
    if not dropped:
        return code
    gone = {number for node in dropped for number in _lines_of(node)}
    if any(gone & set(_lines_of(node)) for node in tree.body if node not in dropped):  # several statements on a line
        return "\n\n".join(ast.unparse(node) for node in tree.body if node not in dropped)
    lines = ["" if number in gone else line for number, line in enumerate(code.split("\n"), 1)]
    return re.sub(r"\n{3,}", "\n\n\n", "\n".join(lines)).rstrip() + "\n"


def _lines_of(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _names_in(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _is_script(node: ast.stmt, entry_point: str, wanted: set[str]) -> bool:
    if isinstance(node, ast.Assert | ast.For | ast.AsyncFor | ast.While | ast.Raise | ast.With):
        return not _names_in(node) & wanted - {entry_point} or isinstance(node, ast.Assert | ast.Raise)
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
        return "input" in called or (entry_point in called and not bound & wanted)
    return False


_KEPT_INSIDE = _DEFINITIONS | ast.Import | ast.ImportFrom


def dedent(code: str) -> str:
    """Remove common indentation; also where only the first line lost its own."""
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
    return _syntax_error(code) is None


def _syntax_error(code: str) -> int | None:
    """The line of the first syntax error, 0 where it has none, or None for code that parses."""
    try:
        ast.parse(code)
    except SyntaxError as error:
        return error.lineno or 0
    except (ValueError, RecursionError, MemoryError):
        return 0
    return None
