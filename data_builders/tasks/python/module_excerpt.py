"""Excerpts of a Python module: the definitions of some names, and outlines of classes, as source text."""

from __future__ import annotations

import ast
import copy
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from data_builders.parsing.python_functions import Definition
from data_builders.tasks.python.module_source import (
    Detail,
    ModuleBinding,
    ModuleSource,
    global_names,
    imported_as,
    is_shown_whole,
    loaded_names,
    short_doc,
    shown_function,
    shown_value,
    signature_names,
)

SHORT_VALUE = 300
"""Maximum size, in characters, of an assignment that is shown because another shown assignment reads its name."""
MAX_DEPTH = 2
"""Maximum number of definitions, each read by the one before, that are shown because a needed definition reads them."""
MOST_BINDINGS = 3
"""Maximum number of statements that are shown for a name that is bound several times."""
CONSTRUCTORS = ("__init__", "__new__", "__post_init__")


@dataclass
class Excerpt:
    """Definitions from one module."""

    imports: dict[int, tuple[ast.Import | ast.ImportFrom, list[ast.alias]]] = field(default_factory=dict)
    """Import statements, each with the aliases that are needed, keyed by line."""
    parts: dict[int, str] = field(default_factory=dict)
    """Source of other definitions, keyed by line."""
    missing: set[str] = field(default_factory=set)
    """Names that the module does not bind."""

    def text(self) -> str:
        """Return the excerpt as code: imports, then the other definitions in the order of the module."""
        imports = [ast.unparse(self._restricted(*self.imports[line])) for line in sorted(self.imports)]
        parts = [self.parts[line].strip("\n") for line in sorted(self.parts)]
        return "\n\n".join(filter(None, ["\n".join(imports), joined(parts)]))

    @staticmethod
    def _restricted(node: ast.Import | ast.ImportFrom, aliases: list[ast.alias]) -> ast.stmt:
        short = copy.copy(node)
        short.names = [alias for alias in node.names if alias in aliases]
        return short


def joined(parts: Sequence[str]) -> str:
    """Join definitions: with a blank line between them, but none between two of one line."""
    text = ""
    for before, part in pairwise(["", *parts]):
        gap = "\n" if before and "\n" not in before + part else "\n\n"
        text += f"{gap}{part}" if before else part
    return text


def excerpt(
    module: ModuleSource, names: Iterable[str], attributes: set[str], detail: Detail, skip: Iterable[ast.stmt] = ()
) -> Excerpt:
    """Collect the statements of a module that bind some names.

    Imports and short assignments that a collected assignment or function reads are collected too.

    Args:
        module: the module.
        names: the names.
        attributes: names of the attributes that the code uses, by which members of classes are chosen.
        detail: how much of each definition is shown.
        skip: statements that are left out.
    """
    result = Excerpt()
    skipped = {id(node) for node in skip}
    waiting, seen = [(name, 0) for name in sorted(names)], set(names)
    while waiting:
        name, depth = waiting.pop(0)
        bindings = [item for item in module.bindings.get(name, []) if id(item.node) not in skipped]
        if not bindings and depth == 0 and name not in module.bindings:
            result.missing.add(name)
        for binding in _shown_bindings(bindings):
            _add(result, module, name, binding, bindings, attributes, detail)
            inner = {
                other for other in _names_of(module, binding.node, detail) - seen if _is_short(module, other, detail)
            }
            seen |= inner
            waiting += [(other, depth + 1) for other in sorted(inner) if depth < MAX_DEPTH]
    return result


def _shown_bindings(bindings: list[ModuleBinding]) -> list[ModuleBinding]:
    """Return the bindings that are shown. Of the overloads of a function, only the implementation is shown."""
    functions = [item for item in bindings if isinstance(item.node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if functions and len(functions) == len(bindings) and all(item.outer is item.node for item in functions):
        return functions[-1:]
    return bindings[:MOST_BINDINGS]


def _names_of(module: ModuleSource, node: ast.stmt, detail: Detail) -> set[str]:
    """Return the names that a definition reads, if the definition is shown whole."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return loaded_names([node.value]) if node.value is not None else set()
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return global_names(node) | signature_names(node) if is_shown_whole(module, node, detail) else set()
    return set()


def _is_short(module: ModuleSource, name: str, detail: Detail) -> bool:
    """Whether the definition of a name that another definition reads is shown."""
    bindings = module.bindings.get(name, [])
    return bool(bindings) and all(
        isinstance(item.node, ast.Import | ast.ImportFrom)
        or (detail.documented and isinstance(item.node, ast.FunctionDef | ast.AsyncFunctionDef))
        or (isinstance(item.node, ast.Assign | ast.AnnAssign) and len(module.source(item.node)) <= SHORT_VALUE)
        for item in bindings
    )


def _add(
    result: Excerpt, module: ModuleSource, name: str, binding: ModuleBinding, bindings: list[ModuleBinding],
    attributes: set[str], detail: Detail,
) -> None:  # fmt: skip
    node, outer = binding.node, binding.outer
    if sum(item.outer is outer for item in bindings) > 1 and len(source := module.source(outer)) <= detail.value:
        result.parts[outer.lineno] = source  # for example `try: import x` and `except ImportError: x = None`
    elif isinstance(node, ast.Import | ast.ImportFrom):
        _, aliases = result.imports.setdefault(node.lineno, (node, []))
        aliases += [alias for alias in node.names if imported_as(alias, node) == name and alias not in aliases]
    else:
        result.parts[node.lineno] = shown_statement(module, node, attributes, detail)


def shown_statement(module: ModuleSource, node: ast.stmt, attributes: set[str], detail: Detail) -> str:
    """Return a definition as `detail` demands: a function or its stub, the outline of a class, or an assignment."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return shown_function(module, node, detail)
    if isinstance(node, ast.ClassDef):
        source = module.source(node)
        return source if len(source) <= detail.body else class_outline(module, node, attributes, detail)
    return shown_value(module, node, detail)


def class_outline(
    module: ModuleSource, node: ast.ClassDef, attributes: set[str], detail: Detail, without: ast.stmt | None = None
) -> str:
    """Return the head of a class, its annotated fields, and the members that code uses.

    For an attribute of instances, the statement of the constructor (or of another method) that sets the attribute is
    shown.

    Args:
        module: the class's module.
        node: the class.
        attributes: names of the attributes that the code uses.
        detail: how much of each member is shown.
        without: the method whose body is masked. It is left out, as are the constructor's other statements. With None,
            the code is outside of the class, and the constructor's signature is shown too.
    """
    head = copy.copy(node)
    doc = short_doc(node)
    head.body = [ast.Expr(ast.Constant(doc))] if doc else [ast.Pass()]
    lines = ast.unparse(ast.fix_missing_locations(head))
    parts = list(_members(module, node, attributes, detail, without))
    if not parts:
        return lines if doc or without is None else lines.removesuffix("\n    pass")
    lines = lines if doc else lines.removesuffix("\n    pass")
    return "\n".join([lines, textwrap.indent("\n\n".join(parts), "    ")])


def _members(
    module: ModuleSource, node: ast.ClassDef, attributes: set[str], detail: Detail, without: ast.stmt | None
) -> Iterator[str]:
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
    wanted = attributes - {method.name for method in methods}
    values = []
    for item in node.body:
        if isinstance(item, ast.Assign | ast.AnnAssign):
            names = {
                part.id for part in ast.walk(item) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            }
            if isinstance(item, ast.AnnAssign) or names & attributes:
                values.append(shown_value(module, item, detail))
            wanted -= names
    if values:
        yield "\n".join(values)
    # Constructors first, because most attributes are set there.
    for method in sorted(methods, key=lambda item: item.name not in CONSTRUCTORS):
        if method is without:
            continue
        setters = list(_setters(method, wanted))
        if setters:
            wanted -= {name for name, _ in setters}
            yield _setting(module, method, [statement for _, statement in setters], detail)
        elif method.name in attributes or (without is None and method.name in CONSTRUCTORS):
            yield shown_function(module, method, detail)


def _setters(method: Definition, names: set[str]) -> Iterator[tuple[str, ast.stmt]]:
    """Yield (attribute, statement) for each statement of a method that sets one of the attributes of `self`."""
    arguments = [*method.args.posonlyargs, *method.args.args]
    if not arguments:
        return
    for item in ast.walk(method):
        if isinstance(item, ast.Assign | ast.AnnAssign):
            targets: list[ast.expr] = [*item.targets] if isinstance(item, ast.Assign) else [item.target]
            for part in (part for target in targets for part in ast.walk(target)):
                if isinstance(part, ast.Attribute) and part.attr in names and _is_name(part.value, arguments[0].arg):
                    yield part.attr, item


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _setting(module: ModuleSource, method: Definition, statements: list[ast.stmt], detail: Detail) -> str:
    """Return a constructor, or only the statements of a method that set attributes if the method is long."""
    source = module.source(method)
    if len(source) <= (detail.value if method.name in CONSTRUCTORS else detail.body if detail.documented else 0):
        return source
    short = copy.copy(method)
    ordered = sorted({id(item): item for item in statements}.values(), key=lambda item: item.lineno)
    short.body = [ast.Expr(ast.Constant(...)), *ordered]
    return ast.unparse(ast.fix_missing_locations(short))


def member_names(node: ast.ClassDef) -> set[str]:
    """Return the names of the attributes that a class defines: methods, class attributes, attributes of instances."""
    names: set[str] = set()
    for item in node.body:
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(item.name)
            names |= {
                part.attr
                for part in ast.walk(item)
                if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store)
            }
        elif isinstance(item, ast.Assign | ast.AnnAssign):
            names |= {
                part.id for part in ast.walk(item) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            }
    return names


def stubs_of(module: ModuleSource, names: Iterable[str], attributes: set[str], detail: Detail) -> str:
    """Return the definitions of some names of another module, without imports. Unknown names are left out."""
    parts: dict[int, str] = {}
    for name in names:
        for binding in _shown_bindings(module.bindings.get(name, [])):
            if not isinstance(binding.node, ast.Import | ast.ImportFrom):
                parts[binding.node.lineno] = shown_statement(module, binding.node, attributes, detail)
    return joined([parts[line] for line in sorted(parts)])
