"""Make wrong versions of a Python function's body: mutants and trivial bodies. Good tests fail with these bodies."""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Iterator, Sequence

from data_builders.parsing.python_functions import Function

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


def mutants(function: Function, count: int, seed: int = 0) -> list[str]:
    """Return different wrong bodies of a function, each with one change. The kinds of change are used in turn.

    Args:
        function: the original.
        count: maximum number of bodies.
        seed: seed for drawing changes, combined with the function's file and name.
    """
    body = ast.Module(list(function.body), [])
    original = ast.unparse(body)
    by_kind: dict[str, list[str]] = {}
    for kind, number in _places(body):
        changed = _changed(body, kind, number)
        if changed is not None and changed != original:
            by_kind.setdefault(kind, []).append(changed)
    generator = random.Random(f"{seed}:{function.file}:{function.qualname}")
    for texts in by_kind.values():
        generator.shuffle(texts)
    order = sorted(by_kind)
    chosen: list[str] = []
    while len(chosen) < count and any(by_kind.values()):
        for kind in order:
            if by_kind[kind] and len(chosen) < count:
                text = by_kind[kind].pop()
                if text not in chosen:
                    chosen.append(text)
    return [indented(text) for text in chosen]


CONSTANTS = ("True", "False", '""', "[]", "{}")
"""Results of trivial bodies. `True` and `False` also equal 1 and 0."""
MOST_CONSTANTS, MOST_ARGUMENTS, MOST_ERRORS = 3, 4, 2
"""Maximum number of trivial bodies with constants that the original returns, with arguments, and with exceptions."""


PROTOCOL_BODIES = {
    "__next__": ("raise StopIteration",), "__getitem__": ("raise IndexError", "raise KeyError"), "__iter__": ("return iter(())",),
    "__getattr__": ("raise AttributeError",), "__eq__": ("return NotImplemented",),
}  # fmt: skip
"""More trivial bodies of special methods: answers that end a loop, or that leave the question to another object."""


def trivial_bodies(function: Function) -> list[str]:
    """Return bodies that ignore the task: they do nothing, return a constant or an argument, or raise an exception.

    If the original returns no value, no constants and arguments are tried.
    """
    nodes = [part for item in function.body for part in ast.walk(item)]
    raised = [
        part.exc.func if isinstance(part.exc, ast.Call) else part.exc for part in nodes if isinstance(part, ast.Raise)
    ]
    errors = dict.fromkeys([ast.unparse(item) for item in raised if isinstance(item, ast.Name)] or ["ValueError"])
    answers = ["pass", *(f"raise {name}" for name in list(errors)[:MOST_ERRORS])]
    answers += PROTOCOL_BODIES.get(function.qualname.rpartition(".")[2], ())
    if any(isinstance(part, ast.Yield | ast.YieldFrom) for part in nodes):
        answers += ["return\nyield", *(f"yield from {name}" for name in _arguments(function)[:1])]
    returned = [part.value for part in nodes if isinstance(part, ast.Return) and part.value is not None]
    if returned:
        used = {part.id if isinstance(part, ast.Name) else type(part).__name__.lower() for part in nodes}
        empty = [f"{kind}()" for kind in ("tuple", "set", "frozenset") if kind in used]
        literals = [ast.unparse(value) for value in returned if _is_literal(value)][:MOST_CONSTANTS]
        arguments = _arguments(function)[:MOST_ARGUMENTS]
        answers += [f"return {text}" for text in dict.fromkeys([*CONSTANTS, *empty, *literals, *arguments])]
    return [indented(answer) for answer in dict.fromkeys(answers)]


def _arguments(function: Function) -> list[str]:
    """Return the names of the parameters of a function."""
    (node,) = ast.parse(f"{function.header}: pass").body
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    parts = [*node.args.posonlyargs, *node.args.args, node.args.vararg, *node.args.kwonlyargs, node.args.kwarg]
    return [part.arg for part in parts if part is not None and part.arg != "cls"]


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def indented(text: str) -> str:
    """Indent the lines of a body by four spaces, except blank lines."""
    return "\n".join(f"    {line}" if line else line for line in text.split("\n"))


def _places(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield (kind of change, index of the node in the order of `ast.walk`) for every possible change."""
    # Changes of error messages and assertions seldom change what a function does.
    skipped = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr)
        for part in ast.walk(node)
    }
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for kind in _kinds(node):
            yield kind, number


def _kinds(node: ast.AST) -> Sequence[str]:
    """Return the kinds of change that apply to a node."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        return ("comparison",)
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return ("arithmetic",)
    if isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
        return ("arithmetic", "delete")
    if isinstance(node, ast.BoolOp):
        return ("boolean",)
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        return ("negate",)
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return ("constant",)
    if isinstance(node, ast.Return | ast.Yield) and node.value is not None:
        return ("value",)
    if isinstance(node, ast.Assign | ast.Expr):
        return ("delete",)
    if isinstance(node, ast.Break | ast.Continue):
        return ("loop",)
    return ()


def _changed(tree: ast.Module, kind: str, number: int) -> str | None:
    """Return the code with one changed node, or None if the change is not possible."""
    tree = copy.deepcopy(tree)
    node = next(item for index, item in enumerate(ast.walk(tree)) if index == number)
    if kind == "comparison" and isinstance(node, ast.Compare):
        node.ops[0] = _COMPARISONS[type(node.ops[0])]()
    elif kind == "arithmetic" and isinstance(node, ast.BinOp | ast.AugAssign):
        node.op = _ARITHMETIC[type(node.op)]()
    elif kind == "boolean" and isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif kind == "negate" and isinstance(node, ast.If | ast.While | ast.IfExp):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif kind == "constant" and isinstance(node, ast.Constant):
        node.value = (not node.value) if isinstance(node.value, bool) else node.value + 1  # type: ignore[operator]
    elif kind == "value" and isinstance(node, ast.Return | ast.Yield):
        node.value = ast.Constant(None)
    else:
        replacement = {"delete": ast.Pass(), "loop": ast.Continue() if isinstance(node, ast.Break) else ast.Break()}[
            kind
        ]
        if not _replace(tree, node, replacement):
            return None
    try:
        return ast.unparse(ast.fix_missing_locations(tree))
    except (ValueError, RecursionError):
        return None


def _replace(tree: ast.AST, old: ast.AST, new: ast.stmt) -> bool:
    """Replace a statement in the block that contains the statement. Return False if no block contains it."""
    for node in ast.walk(tree):
        for _, value in ast.iter_fields(node):
            if isinstance(value, list):
                for index, item in enumerate(value):
                    if item is old:
                        value[index] = new
                        return True
    return False
