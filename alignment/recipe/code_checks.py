"""Check the user's code that a recipe names: the file exists, and defines a function or class with the given name.

The file is parsed but not executed, so that `align check` is quick and has no side effects. A name that the file
assigns or imports can therefore not be checked before the stage runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from alignment.extensions import ExtensionError, ExtensionReference
from alignment.wording import did_you_mean, display

_BLOCKS = (ast.If, ast.Try, ast.With, ast.For, ast.While)
_LITERALS = (ast.Constant, ast.List, ast.Dict, ast.Set, ast.Tuple, ast.JoinedStr)


def check_code(reference: ExtensionReference, parameters: int | None = None) -> Iterator[str]:
    """Yield a message for each mistake in a reference to a function or class in the user's code.

    Args:
        reference: the reference, as a recipe's setting.
        parameters: number of positional arguments with which the function is called. None skips this check.
    """
    extension = reference.extension()
    try:
        file = extension.file()
    except ExtensionError as error:
        yield f"{error}{_near_file(extension.path)}"
        return
    if file.suffix != ".py":
        return  # a compiled module
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        line = getattr(error, "lineno", None)
        reason = getattr(error, "msg", None) or getattr(error, "strerror", None) or error
        yield f"{display(file)}{f':{line}' if line else ''}: not valid Python: {reason}"
        return
    definitions = dict(_definitions(tree.body))
    if extension.name in definitions:
        if message := _not_callable(extension.name, definitions[extension.name], parameters):
            yield f"{display(file)}: {message}"
    elif "*" not in definitions:
        names = [name for name in definitions if not name.startswith("_")]
        hint = did_you_mean(extension.name, names) or (f" It defines {', '.join(names)}." if names else "")
        yield f"{display(file)} defines no {extension.name!r}.{hint}".rstrip(".")


def _near_file(path: Path | None) -> str:
    if path is None or not path.parent.is_dir():
        return ""
    hint = did_you_mean(path.name, [file.name for file in path.parent.glob("*.py")])
    return f".{hint}" if hint else ""


def _definitions(body: list[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    """Yield (name, defining syntax node) for every top-level name of a module. `import *` yields the name `*`."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name.partition(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.Assign):
            yield from ((name.id, node.value) for target in node.targets for name in _names(target))
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from ((name.id, node.value) for name in _names(node.target))
        elif isinstance(node, _BLOCKS):
            handlers = node.handlers if isinstance(node, ast.Try) else []
            for block in (node.body, *(handler.body for handler in handlers), getattr(node, "orelse", [])):
                yield from _definitions(block)


def _names(target: ast.expr) -> Iterator[ast.Name]:
    return (node for node in ast.walk(target) if isinstance(node, ast.Name))


def _not_callable(name: str, node: ast.AST, parameters: int | None) -> str:
    """Return a message if a definition can't be called with this number of positional arguments.

    Return "" if it can be called, or if that is unknown.
    """
    if isinstance(node, _LITERALS):
        return f"{name} is a value, not a function"
    if isinstance(node, ast.AsyncFunctionDef):
        return f"{name} is an async function: define it with `def`"
    if not isinstance(node, ast.FunctionDef) or parameters is None:
        return ""
    positional = [*node.args.posonlyargs, *node.args.args]
    required = len(positional) - len(node.args.defaults)
    named = [
        argument.arg
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        if default is None
    ]
    if required > parameters or named or (len(positional) < parameters and node.args.vararg is None):
        count = "1 argument" if parameters == 1 else f"{parameters} arguments"
        return f"{name}({ast.unparse(node.args)}) can't be called with {count}"
    return ""
