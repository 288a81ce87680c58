"""Remove top-level statements that are not part of the solution: they run an example, read input or check the code."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable

_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_KEPT_INSIDE = _DEFINITIONS | ast.Import | ast.ImportFrom
_SETTINGS = re.compile(r"set|seed|append|update|add|register|insert|filterwarnings|simplefilter|stack_size")
_OUTPUT = {"print", "pprint", "display", "repr", "str", "len", "exit", "quit", "help", "type", "isinstance", "assert_"}
_READERS = {"input", "raw_input"}


def without_scripts(code: str, entry_point: str) -> str:
    """Remove top-level statements that would run when the file is imported: examples, input, checks, `if __name__`.

    These statements are kept: imports, definitions and assignments (also inside `try` and `if`), settings such as
    `sys.setrecursionlimit`, and calls and loops that change something the entry point uses, for example fill a table or
    add a method to a class.

    An assignment is removed if it reads input. It is also removed if it calls the entry point and the entry point does
    not need the result. Statements that use a removed variable are removed too.

    Args:
        code: source text.
        entry_point: the function or class that the code must define.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    scripts = _Program(tree, entry_point).scripts()
    if not scripts:
        return code
    removed = {number for node in scripts for number in _lines_of(node)}
    if any(removed & set(_lines_of(node)) for node in tree.body if node not in scripts):  # statements share a line
        return "\n\n".join(ast.unparse(node) for node in tree.body if node not in scripts)
    lines = ["" if number in removed else line for number, line in enumerate(code.split("\n"), 1)]
    return re.sub(r"\n{3,}", "\n\n\n", "\n".join(lines)).rstrip() + "\n"


def reads_input(code: str) -> bool:
    """Whether code reads standard input or the command line, at the top level or in a function."""
    try:
        return _reads(ast.parse(code), set())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return bool(re.search(r"\binput\(|\bstdin\b", code))


def _lines_of(node: ast.stmt) -> range:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return range(min([node.lineno, *(part.lineno for part in decorators)]), (node.end_lineno or node.lineno) + 1)


def names_in(tree: ast.AST) -> set[str]:
    """Return all variable names in a syntax tree."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _root(node: ast.expr) -> str | None:
    """Return the variable with which an expression starts, for example `a` for `a.b[0].c`.

    None if the expression does not start with a variable.
    """
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def _stored(node: ast.AST) -> set[str]:
    """Return the variables that code binds, or changes through an index, an attribute or `del`."""
    roots = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load)}
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute | ast.Subscript) and not isinstance(part.ctx, ast.Load):
            root = _root(part)
            roots |= {root} if root else set()
    return roots


def _reads(node: ast.AST, readers: set[str]) -> bool:
    """Whether code reads input (`input()`, `sys.stdin`, `sys.argv`, `parse_args()`) or calls one of `readers`."""
    for part in ast.walk(node):
        if isinstance(part, ast.Subscript) and ast.unparse(part.value) == "sys.argv":
            return True
        if isinstance(part, ast.For) and ast.unparse(part.iter) in ("sys.stdin", "stdin"):
            return True
        if not isinstance(part, ast.Call):
            continue
        name = ast.unparse(part.func)
        if name in _READERS | readers or name.startswith(("sys.stdin.", "stdin.", "sys.stdin.buffer.")):
            return True
        if name.endswith(".parse_args") and not part.args:
            return True
        if any(ast.unparse(argument) in ("sys.stdin", "sys.argv") for argument in part.args):
            return True
    return False


class _Program:
    """The top-level statements of a file, and the names that the entry point needs."""

    def __init__(self, tree: ast.Module, entry_point: str):
        self.body = tree.body
        self.entry_point = entry_point
        self.functions = {node.name: node for node in ast.walk(tree) if isinstance(node, _DEFINITIONS)}
        self.modules = {
            (alias.asname or alias.name).split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        self.needed = self._needed()
        self.readers = self._closure(lambda node, known: _reads(node, known))
        self.changers = self._closure(self._changes)

    def _needed(self) -> set[str]:
        """Return the names that the entry point uses, directly or through other definitions and variables."""
        uses: dict[str, set[str]] = {}
        for node in self.body:
            if isinstance(node, _DEFINITIONS):
                uses.setdefault(node.name, set()).update(names_in(node))
            elif not isinstance(node, ast.Expr | ast.Assert):
                for name in _stored(node):
                    uses.setdefault(name, set()).update(names_in(node))
        if self.entry_point not in uses:
            return set().union(*(names_in(node) for node in self.body if isinstance(node, _DEFINITIONS)))
        needed: set[str] = set()
        waiting = [self.entry_point]
        while waiting:
            for name in uses.get(waiting.pop(), set()) - needed:
                needed.add(name)
                waiting.append(name)
        return needed - {self.entry_point}

    def _closure(self, holds: Callable[[ast.AST, set[str]], bool]) -> set[str]:
        """Collect names of functions: repeatedly add each function for which `holds(function, names so far)` is true,
        until nothing is added.
        """
        names: set[str] = set()
        while more := {name for name, node in self.functions.items() if name not in names and holds(node, names)}:
            names |= more
        return names

    def _changes(self, node: ast.AST, changers: set[str]) -> bool:
        """Whether code changes a variable or class that the entry point needs."""
        local: set[str] = set()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            shared = {name for part in ast.walk(node) if isinstance(part, ast.Global) for name in part.names}
            bound = {
                part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            }
            local = (bound | {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}) - shared
        changeable = self.needed - local - self.modules
        if _stored(node) & changeable:
            return True
        return any(
            self._call_changes(part, changeable, changers) for part in ast.walk(node) if isinstance(part, ast.Call)
        )

    def _call_changes(self, call: ast.Call, changeable: set[str], changers: set[str]) -> bool:
        if isinstance(call.func, ast.Name):
            if call.func.id in changers:
                return True
            if call.func.id in _OUTPUT or call.func.id.startswith("test") or call.func.id == self.entry_point:
                return False
            variables = changeable - self.functions.keys() | (changeable & self._classes())
            passed = [*call.args, *(keyword.value for keyword in call.keywords)]
            is_own = call.func.id in self.functions
            return any(isinstance(part, ast.Name) and part.id in variables for part in passed) and (
                is_own or call.func.id in ("setattr", "delattr", "next", "exec", "list", "deque", "map", "any", "all")
                or (not hasattr(builtins, call.func.id) and not self._calls_entry(call))
            )  # fmt: skip
        root = _root(call.func)
        if root in changeable and root not in self.functions.keys() - self._classes():
            return True
        passed_names = {part.id for part in call.args if isinstance(part, ast.Name)}
        return root in self.modules and bool(passed_names & (changeable - self.functions.keys()))

    def _classes(self) -> set[str]:
        return {name for name, node in self.functions.items() if isinstance(node, ast.ClassDef)}

    def _calls_entry(self, node: ast.AST) -> bool:
        return any(
            isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == self.entry_point
            for part in ast.walk(node)
        )

    def scripts(self) -> list[ast.stmt]:
        """Return the top-level statements that a program is graded without: script code such as calls and prints, and
        statements that use a variable which only such code sets.
        """
        scripts: list[ast.stmt] = []
        lost: set[str] = set()
        available: set[str] = set()
        for node in self.body:
            uses_lost = (
                not isinstance(node, _DEFINITIONS | ast.Import | ast.ImportFrom) and names_in(node) & lost - available
            )
            if (uses_lost and not _stored(node) & self.needed) or self._is_script(node):
                scripts.append(node)
                lost |= _stored(node)
            else:
                available |= _stored(node)
        return scripts

    def _is_script(self, node: ast.stmt) -> bool:
        if isinstance(node, _KEPT_INSIDE):
            return False
        if isinstance(node, ast.Assert | ast.Raise):
            return True
        if isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Constant):
                return False
            return _reads(node, self.readers) or not (
                self._is_setting(node.value) or self._changes(node, self.changers)
            )
        if isinstance(node, ast.If) and "__name__" in names_in(node.test):
            return True
        if isinstance(
            node, ast.If | ast.Try | ast.For | ast.AsyncFor | ast.While | ast.With | ast.AsyncWith | ast.Match
        ):
            if isinstance(node, ast.If | ast.Try) and any(isinstance(part, _KEPT_INSIDE) for part in ast.walk(node)):
                return False
            return _reads(node, self.readers) or not self._changes(node, self.changers)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            value = node.value
            return value is not None and (
                _reads(value, self.readers) or (self._calls_entry(value) and not _stored(node) & self.needed)
            )
        return False

    def _is_setting(self, value: ast.expr) -> bool:
        """Whether an expression changes a setting (`sys.setrecursionlimit(...)`) without calling the entry point."""
        if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute)):
            return False
        return bool(_SETTINGS.match(value.func.attr)) and not self._calls_entry(value)
