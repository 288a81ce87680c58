"""Replaces the body of a function in a loaded repository by a candidate's body.

The candidate supplies statements only. They are compiled under the original signature and run with the original
module's globals. The new code object replaces the code object of the existing functions, so everything that refers to
the function (decorators, other modules, partial applications) runs the new body. The replacement happens in a sandboxed
process, before any code of the candidate runs.
"""

from __future__ import annotations
import __future__

import ast
import ctypes
import gc
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

Target = dict[str, Any]
"""The function to replace: ``qualname``, ``header`` (the signature without defaults and annotations) and ``names``
(restricted words that a body may use, see `guard`), as `data_builders.parsing.python_functions` writes them."""
FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
PRELUDE = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
"""Kinds of statements that an answer may have beside the function. They are moved into the function's body."""


class BadBody(Exception):
    """Raised if the candidate's text contains no usable body: it is not Python, or the signature differs."""


def body_of(text: str, target: Target) -> list[ast.stmt]:
    """Return the statements that a candidate's text has for the body of the function `target`.

    Args:
        text: A body alone, or code that contains the function. Imports and helpers beside the function are moved into
            the body.
        target: The function to replace.

    Raises:
        BadBody: The text is not valid Python, is empty, or changes the signature.
    """
    first = next((line for line in text.split("\n") if line.strip()), "")
    if first[:1] in " \t":
        wrapped = _parsed(f"{target['header']}:\n{text}\n")
        if wrapped is not None and len(wrapped.body) == 1 and isinstance(wrapped.body[0], SCOPES):
            inner = wrapped.body[0].body
            return _inner_body(inner, target) if _defines(inner, target) else inner
    tree = _parsed(text)
    if tree is None:
        raise BadBody("the body is not valid Python")
    if not tree.body:
        raise BadBody("the body is empty")
    return _inner_body(tree.body, target)


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _inner_body(statements: list[ast.stmt], target: Target) -> list[ast.stmt]:
    """Return the body of the function to replace if `statements` define it (maybe in classes), else `statements`."""
    name = target["qualname"].rpartition(".")[2]
    prelude: list[ast.stmt] = []
    for place, node in enumerate(statements):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            check_signature(node, target)
            later = [item for item in statements[place + 1 :] if isinstance(item, PRELUDE)]
            return [*prelude, *later, *node.body]
        if isinstance(node, ast.ClassDef) and node.name in target["qualname"].split(".")[:-1]:
            if _defines(node.body, target):
                return [*prelude, *_inner_body(node.body, target)]
        elif isinstance(node, PRELUDE):
            prelude.append(node)
    return statements


def _defines(statements: list[ast.stmt], target: Target) -> bool:
    path = target["qualname"].split(".")
    return any(isinstance(node, SCOPES) and node.name in path for node in statements)


def check_signature(node: ast.FunctionDef | ast.AsyncFunctionDef, target: Target) -> None:
    """Raise BadBody if a candidate's function has other parameters than the function to replace, `target`."""
    header = bare_header(node)
    if header != target["header"]:
        raise BadBody(f"the signature must stay {target['header']!r}, not {header!r}")


def bare_header(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return ``def name(parameters)`` without defaults and annotations: the original function object keeps these."""
    parameters = node.args
    parts = [item.arg for item in parameters.posonlyargs] + (["/"] if parameters.posonlyargs else [])
    parts += [item.arg for item in parameters.args]
    if parameters.vararg:
        parts.append(f"*{parameters.vararg.arg}")
    elif parameters.kwonlyargs:
        parts.append("*")
    parts += [item.arg for item in parameters.kwonlyargs]
    if parameters.kwarg:
        parts.append(f"**{parameters.kwarg.arg}")
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{word} {node.name}({', '.join(parts)})"


def compiled(body: list[ast.stmt], target: Target, original: types.CodeType) -> types.CodeType:
    """Compile a body to a code object that can replace `original`.

    Raises:
        BadBody: The body does not compile, or uses variables of the enclosing scope that the original does not use.
    """
    code = _compile(body, target, original)
    if code.co_freevars != original.co_freevars and original.co_freevars == ("__class__",):
        code = _compile([*ast.parse("if 0:\n    __class__").body, *body], target, original)
    elif code.co_freevars == ("__class__",) and not original.co_freevars:
        code = _compile([_ExplicitSuper(target).visit(node) for node in body], target, original)
    if code.co_freevars != original.co_freevars:
        raise BadBody(
            f"the body uses {code.co_freevars} of the enclosing scope, the original uses {original.co_freevars}"
        )
    return code


class _ExplicitSuper(ast.NodeTransformer):
    """Rewrites ``super()`` as ``super(Class, self)``: the original function has no cell for the short form."""

    def __init__(self, target: Target) -> None:
        self.owner = target["qualname"].rpartition(".")[0]
        self.first = target["header"].partition("(")[2].partition(",")[0].strip("() ")

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "super" and not node.args:
            node.args = [ast.parse(self.owner, mode="eval").body, ast.Name(self.first, ast.Load())]
        return node


def _compile(body: list[ast.stmt], target: Target, original: types.CodeType) -> types.CodeType:
    *owners, _ = target["qualname"].split(".")
    (function,) = ast.parse(f"{target['header']}: pass").body
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    function.body = body
    node: ast.stmt = function
    for owner in reversed(owners):
        node = ast.ClassDef(owner, [], [], [node], [])
        if hasattr(ast, "type_param"):
            node.type_params = []  # type: ignore[attr-defined]
    tree = ast.fix_missing_locations(ast.Module([node], []))
    try:
        code = compile(tree, original.co_filename, "exec", flags=original.co_flags & FUTURE, dont_inherit=True)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, OverflowError) as error:
        raise BadBody(f"{type(error).__name__}: {error}") from None
    for _ in range(len(owners) + 1):
        code = next(item for item in code.co_consts if isinstance(item, types.CodeType))
    return code


def functions_at(places: set[tuple[str, int]]) -> dict[tuple[str, int], list[types.FunctionType]]:
    """Return a mapping: (file, line) -> all function objects of this process whose code begins there."""
    functions: dict[tuple[str, int], list[types.FunctionType]] = {place: [] for place in places}
    for item in gc.get_objects():
        if type(item) is types.FunctionType:
            place = item.__code__.co_filename, item.__code__.co_firstlineno
            if place in functions:
                functions[place].append(item)
    return functions


def swap(functions: list[types.FunctionType], body: list[ast.stmt], target: Target) -> None:
    """Replace the body of the functions with the candidate's body, and erase the original code from memory.

    Raises:
        BadBody: The body cannot replace the original. Nothing was changed.
    """
    codes = {id(function.__code__): function.__code__ for function in functions}
    replacements = {key: compiled(body, target, code) for key, code in codes.items()}
    for function in functions:
        function.__code__ = replacements[id(function.__code__)]
    del function
    for code in codes.values():
        if sys.getrefcount(code) <= ALONE:  # no running generator uses this code object
            wipe(code)


ALONE = 3
"""Value of `sys.getrefcount` for a code object that is referenced only by a container, a variable and the argument of
`getrefcount`."""


def wipe(code: types.CodeType) -> None:
    """Overwrite the instructions of a code object that will not run again, and of its nested code objects.

    The candidate must not find the original code in its process, not even in freed memory. Nested functions to which
    other objects, for example a decorator, still refer are not overwritten.
    """
    for item in code.co_consts:
        if isinstance(item, types.CodeType) and sys.getrefcount(item) <= ALONE:
            wipe(item)
    ctypes.memset(id(code) + types.CodeType.__basicsize__, 0, len(code.co_code))


def trampoline(functions: list[types.FunctionType], call: Callable[[tuple[Any, ...], dict[str, Any]], Any]) -> None:
    """Make the functions pass their arguments to `call`. `inspect.signature` still returns the original signatures."""

    def stub(*arguments: Any, **keywords: Any) -> Any:
        return call(arguments, keywords)

    for function in functions:
        # Keep the signature for libraries that inspect signatures, for example to curry functions.
        function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        # The new code runs with the original module's globals, so it holds the function that it calls as a constant.
        old = function.__code__
        new = _caller_code(old.co_freevars)
        consts = tuple(stub if item == "STUB" else item for item in new.co_consts)
        function.__code__ = new.replace(
            co_consts=consts, co_name=old.co_name, co_filename=old.co_filename, co_firstlineno=old.co_firstlineno
        )
        function.__defaults__ = None
        function.__kwdefaults__ = None


def _caller_code(free: tuple[str, ...]) -> types.CodeType:
    """Return code that passes its arguments to the constant "STUB", for a function with these variables of outer scopes."""
    names = ", ".join(free)
    text = f"""
def outer({names}):
    def caller(*arguments, **keywords):
        stub = "STUB"
        if 0: ({names})
        return stub(*arguments, **keywords)
"""
    code = compile(text, "stub", "exec")
    for name in ("outer", "caller"):
        code = next(item for item in code.co_consts if isinstance(item, types.CodeType) and item.co_name == name)
    return code
