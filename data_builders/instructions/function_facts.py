"""State facts about a Python function in sentences. All facts are read from the syntax tree."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence

from data_builders.parsing.python_functions import Definition, parse
from data_builders.tasks.python.module_source import ModuleSource, global_names

MAX_EXPRESSION = 80
"""Maximum number of characters of an expression that a sentence quotes."""
MAX_STEPS = 5
"""Maximum number of conditions and handlers that are described."""


def listed(items: Sequence[str]) -> str:
    """Join items into an English list: `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def facts_of(node: Definition, text: str, *, is_method: bool) -> Iterator[str]:
    """Yield sentences about a function: parameters, steps, results, exceptions, and what the function uses.

    Args:
        node: the function.
        text: text of the function's file.
        is_method: whether the function is in a class.
    """
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    own = list(own_nodes(body))
    yield from _parameters(node, is_method)
    steps, told = _steps(body)
    yield from steps
    yield from _kind_of_call(node, own)
    raised = [name for name in raised_names(body) if name not in told]
    if raised:
        yield f"It can raise {listed([f'`{name}`' for name in raised])}."
    returns = [item for item in own if isinstance(item, ast.Return) and item.value is not None]
    changed = _changed_attributes(node, own) if is_method else []
    if changed:
        yield f"It sets {listed([f'`{name}`' for name in changed])}."
    elif not returns and not _yields(own) and not any(isinstance(item, ast.Raise) for item in own):
        yield "It returns nothing."
    helpers = sorted(_helpers(node, text))
    if helpers:
        yield f"It relies on {listed([f'`{name}`' for name in helpers[:5]])} of the same module."


def own_nodes(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body without those inside nested functions, lambdas and classes."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from own_nodes(list(ast.iter_child_nodes(node)))


def _yields(own: Sequence[ast.AST]) -> bool:
    return any(isinstance(item, ast.Yield | ast.YieldFrom) for item in own)


def _parameters(node: Definition, is_method: bool) -> Iterator[str]:
    """Yield a sentence that lists all parameters, with default values."""
    plain = [*node.args.posonlyargs, *node.args.args]
    defaults: list[ast.expr | None] = [*([None] * (len(plain) - len(node.args.defaults))), *node.args.defaults]
    pairs = list(zip(plain, defaults, strict=True))
    is_static = any(isinstance(item, ast.Name) and item.id == "staticmethod" for item in node.decorator_list)
    if is_method and not is_static:
        pairs = pairs[1:]
    names = [_parameter(argument.arg, default) for argument, default in pairs]
    if node.args.vararg:
        names.append(f"any number of further positional arguments (`*{node.args.vararg.arg}`)")
    keywords = [
        _parameter(argument.arg, default)
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    ]
    by_name = f"{listed(keywords)} by keyword" if keywords else ""
    if node.args.kwarg:
        more = f"any further keyword arguments (`**{node.args.kwarg.arg}`)"
        by_name = f"{by_name}, and {more}" if by_name else more
    if names or by_name:
        yield f"It takes {listed(names)}{', and ' + by_name if by_name else ''}." if names else f"It takes {by_name}."


def _parameter(name: str, default: ast.expr | None) -> str:
    if default is None:
        return f"`{name}`"
    value = _quoted(default)
    return f"`{name}` (default {value})" if value else f"`{name}` (optional)"


def _quoted(node: ast.expr) -> str:
    """Return an expression in backticks, or "" if the expression is long or contains a backtick."""
    text = ast.unparse(node)
    return f"`{text}`" if len(text) <= MAX_EXPRESSION and "`" not in text and "\n" not in text else ""


def _steps(body: Sequence[ast.stmt]) -> tuple[list[str], set[str]]:
    """Return sentences about the statements at the top level of a body, and the exceptions that they name."""
    sentences: list[str] = []
    told: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.If) and not statement.orelse and len(statement.body) == 1:
            condition, action = _quoted(statement.test), _action(statement.body[0])
            if condition and action and len(sentences) < MAX_STEPS:
                sentences.append(f"If {condition}, it {action}.")
                told |= _named_in(statement.body[0])
        elif isinstance(statement, ast.Try):
            last = statement.body[-1]
            if isinstance(last, ast.Return) and not statement.orelse and (action := _action(last)):
                sentences.append(f"If its `try` block runs without an exception, it {action}.")
            sentences += _handlers(statement, told)
        elif isinstance(statement, ast.Raise) and len(body) > 1 and (action := _action(statement)):
            sentences.append(f"In all other cases it {action}.")
            told |= _named_in(statement)
        elif isinstance(statement, ast.If) and statement.orelse:
            sentences += _cases(statement)
        elif isinstance(statement, ast.For) and (source := _quoted(statement.iter)):
            sentences.append(f"It loops over {source}{_early_end(statement, told)}.")
        elif isinstance(statement, ast.While) and (condition := _quoted(statement.test)):
            is_endless = condition in ("`True`", "`1`")
            sentences.append(
                "It runs a loop until it is left from inside."
                if is_endless
                else f"It runs a loop while {condition} holds."
            )
        elif isinstance(statement, ast.With):
            contexts = [text for item in statement.items if (text := _quoted(item.context_expr))]
            if len(contexts) == len(statement.items):
                sentences.append(f"It works inside of `with` for {listed(contexts)}.")
        elif isinstance(statement, ast.Return) and statement.value is not None and (value := _quoted(statement.value)):
            sentences.append(f"{_opening_of_result(body)} returns {value}.")
    return sentences, told


def _cases(statement: ast.If) -> Iterator[str]:
    """Yield a sentence that lists the conditions of an `if` statement with several branches."""
    conditions, branch = [_quoted(statement.test)], statement
    while len(branch.orelse) == 1 and isinstance(branch.orelse[0], ast.If):
        branch = branch.orelse[0]
        conditions.append(_quoted(branch.test))
    if all(conditions) and len(conditions) <= MAX_STEPS:
        cases = [*conditions, "all other cases"] if branch.orelse else conditions
        if len(conditions) == 1:
            yield f"What it does depends on whether {conditions[0]} holds."
            return
        yield f"It treats these cases differently: {listed(cases)}."


def _early_end(loop: ast.For, told: set[str]) -> str:
    """Describe the condition that ends a loop from inside, or return ""."""
    if action := _action(loop.body[0]):
        return f", and {action} for the first item"
    for item in loop.body:
        if isinstance(item, ast.If) and len(item.body) == 1 and not item.orelse:
            condition, action = _quoted(item.test), _action(item.body[0])
            if condition and action:
                told |= _named_in(item.body[0])
                return f", and {action} as soon as {condition} holds"
    return ""


def _opening_of_result(body: Sequence[ast.stmt]) -> str:
    """Return the first words of the sentence about the last statement of a body."""
    if len(body) == 1:
        return "It"
    return "Otherwise it" if _only_conditions(body) else "In the end it"


def _only_conditions(body: Sequence[ast.stmt]) -> bool:
    """Whether a body consists of guard clauses (`if` statements that return or raise) and one final statement."""
    return all(
        isinstance(item, ast.If) and not item.orelse and isinstance(item.body[-1], ast.Return | ast.Raise)
        for item in body[:-1]
    )


def _action(statement: ast.stmt) -> str:
    """Describe a statement that leaves a function, or return ""."""
    if isinstance(statement, ast.Return):
        value = _quoted(statement.value) if statement.value is not None else ""
        return f"returns {value}" if value else "returns" if statement.value is None else ""
    name = _exception_name(statement.exc) if isinstance(statement, ast.Raise) else ""
    return f"raises `{name}`" if name else ""


def _named_in(statement: ast.stmt) -> set[str]:
    return {_exception_name(statement.exc)} if isinstance(statement, ast.Raise) else set()


def _handlers(statement: ast.Try, told: set[str]) -> Iterator[str]:
    """Yield sentences about the exceptions that a `try` statement handles."""
    for handler in statement.handlers:
        caught = _quoted(handler.type) if handler.type is not None else "any exception"
        if not caught or len(handler.body) != 1:
            continue
        action = "ignores it" if isinstance(handler.body[0], ast.Pass) else _action(handler.body[0])
        if isinstance(handler.body[0], ast.Continue):
            action = "goes on with the next item"
        if action:
            told |= _named_in(handler.body[0])
            kinds = "one of " if isinstance(handler.type, ast.Tuple) else ""
            yield f"If {kinds}{caught} is raised inside of the `try` block, it {action}."


def _kind_of_call(node: Definition, own: Sequence[ast.AST]) -> Iterator[str]:
    """Yield a sentence about generators, coroutines and context managers."""
    decorators = {ast.unparse(item).rpartition(".")[2] for item in node.decorator_list}
    is_async = isinstance(node, ast.AsyncFunctionDef)
    if _yields(own):
        if decorators & {"contextmanager", "asynccontextmanager"}:
            yield (
                f"It is used in {'an `async with`' if is_async else 'a `with`'} statement: the code above `yield` runs on "
                "entry, and the code below it on exit."
            )
        elif is_async:
            yield "It is an asynchronous generator: its values are taken with `async for`."
        elif "fixture" not in decorators:
            yield "It is a generator: a call returns an iterator, which computes each value when it is asked for."
    elif is_async:
        yield "It is a coroutine, so its result has to be awaited."
    if decorators & {"property", "cached_property"}:
        yield "It is read like an attribute, without parentheses."
    if "classmethod" in decorators:
        yield "It is called on the class."


def raised_names(body: Sequence[ast.stmt]) -> list[str]:
    """Return the names of the exceptions that `raise` statements of a body let out of the function.

    Exceptions that a `try` statement of the body catches are left out, and so are those in nested functions.
    """
    return list(dict.fromkeys(_raised(body)))


def _raised(body: Sequence[ast.AST]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.Raise) and (name := _exception_name(node.exc)):
            yield name
        elif isinstance(node, ast.Try):
            caught = {name for handler in node.handlers for name in _caught(handler)}
            yield from (name for name in _raised(node.body) if not _is_caught(name, caught))
            for part in (*node.handlers, *node.orelse, *node.finalbody):
                yield from _raised([*part.body] if isinstance(part, ast.ExceptHandler) else [part])
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _raised(list(ast.iter_child_nodes(node)))


def _caught(handler: ast.ExceptHandler) -> list[str]:
    if handler.type is None:
        return ["BaseException"]
    items = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return [ast.unparse(item).rpartition(".")[2] for item in items]


def _is_caught(name: str, caught: set[str]) -> bool:
    """Whether one of the caught exceptions is the named one or a base class. An unknown name counts as caught."""
    if name in caught or caught & {"Exception", "BaseException"}:
        return True
    kind = getattr(builtins, name.rpartition(".")[2], None)
    if not isinstance(kind, type):
        return bool(caught)
    return any(isinstance(base := getattr(builtins, item, None), type) and issubclass(kind, base) for item in caught)


def _exception_name(node: ast.expr | None) -> str:
    """Return the name of a raised exception class, or "" for a variable or a bare `raise`."""
    node = node.func if isinstance(node, ast.Call) else node
    name = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
    return name if name.rpartition(".")[2][:1].isupper() else ""


def _changed_attributes(node: Definition, own: Sequence[ast.AST]) -> list[str]:
    """Return the attributes of the first parameter that a method assigns, in order."""
    arguments = [*node.args.posonlyargs, *node.args.args]
    if not arguments:
        return []
    first = arguments[0].arg
    names = [
        f"{first}.{item.attr}"
        for item in own
        if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store)
        and isinstance(item.value, ast.Name) and item.value.id == first
    ]  # fmt: skip
    return list(dict.fromkeys(names))


def _helpers(node: Definition, text: str) -> set[str]:
    """Return the functions and classes of the module that a function uses."""
    module = ModuleSource.parse(text)
    if module is None or parse(text) is None:
        return set()
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {
        name
        for name in global_names(node) - {node.name}
        if module.bindings.get(name) and all(isinstance(item.node, kinds) for item in module.bindings[name])
    }
