"""A parsed Python module: its top-level bindings, the names that code uses, and source text or outlines of definitions."""

from __future__ import annotations

import ast
import builtins
import copy
import symtable
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from data_builders.parsing.python_functions import Definition, parse

MODULE_NAMES = frozenset(
    (
        "__name__",
        "__file__",
        "__doc__",
        "__spec__",
        "__loader__",
        "__package__",
        "__path__",
        "__class__",
        "__builtins__",
    )
)
BUILTIN_NAMES = frozenset(dir(builtins)) | MODULE_NAMES | {"WindowsError", "ExceptionGroup", "BaseExceptionGroup"}
"""Names that need no definition in a module."""
WHOLE_STATEMENT = 300
"""Maximum size, in characters, of an `if` or `try` statement that a prompt shows whole, because the body needs a name bound in it."""
DOC_CHARACTERS = 200
"""Maximum number of characters of a docstring in a stub or outline."""
COMPOUND = (ast.If, ast.Try, ast.With, ast.For, ast.While)


@dataclass(frozen=True)
class Detail:
    """How much of a definition is shown."""

    value: int
    """Maximum number of characters of an assignment. A longer one is shortened."""
    body: int
    """Maximum number of characters of a function that is shown whole. Of a longer function, the stub is shown."""
    documented: bool = False
    """Whether functions with a docstring are shown whole too. By default their stub is shown."""


@dataclass(frozen=True)
class ModuleBinding:
    """A statement that binds a name."""

    node: ast.stmt
    outer: ast.stmt
    """The top-level statement that contains `node`, or `node`."""


@dataclass
class ModuleSource:
    """A parsed module."""

    text: str
    tree: ast.Module
    lines: list[str]
    bindings: dict[str, list[ModuleBinding]] = field(default_factory=dict)
    """Statements at module level that bind each name, inside of `if`, `try`, `with` and loops too."""

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, text: str) -> ModuleSource | None:
        """Parse a module. Return None if the text is not valid Python."""
        tree = parse(text)
        if tree is None:
            return None
        module = cls(text, tree, text.split("\n"))
        for outer in tree.body:
            for node in leaf_statements(outer):
                for name in bound_names(node):
                    module.bindings.setdefault(name, []).append(ModuleBinding(node, outer))
        return module

    @property
    def star_imports(self) -> list[ast.ImportFrom]:
        """The statements `from ... import *`."""
        return [node for node in self.tree.body if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]

    def source(self, node: ast.stmt) -> str:
        """Return the dedented source of a statement, with decorators."""
        first = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])
        assert node.end_lineno is not None
        lines = self.lines[first - 1 : node.end_lineno]
        before = self.lines[node.lineno - 1].encode("utf-8", "surrogatepass")[: node.col_offset]
        after = lines[-1].encode("utf-8", "surrogatepass")[node.end_col_offset :].decode("utf-8", "replace").strip()
        if before.strip() or (after and not after.startswith("#")):  # another statement is on the same line
            return ast.unparse(node)
        return textwrap.dedent("\n".join(lines))

    def path_to(self, line: int) -> list[ast.ClassDef | Definition]:
        """Return the definition that begins at a line (of `def`, or of the first decorator), after its classes."""
        return next(_paths(self.tree.body, (), line), [])


def leaf_statements(node: ast.stmt) -> Iterator[ast.stmt]:
    """Yield the statements inside a compound statement, or the statement. A loop or `with` also yields itself."""
    if not isinstance(node, COMPOUND):
        yield node
        return
    if isinstance(node, ast.For | ast.With):
        yield node
    for part in ("body", "orelse", "finalbody"):
        for child in getattr(node, part, []):
            yield from leaf_statements(child)
    for handler in getattr(node, "handlers", []):
        for child in handler.body:
            yield from leaf_statements(child)


def bound_names(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement binds in the scope that contains the statement."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from (imported_as(alias, node) for alias in node.names if alias.name != "*")
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    else:
        parts: list[ast.AST] = [node]
        if isinstance(node, ast.For):
            parts = [node.target]
        elif isinstance(node, ast.With):
            parts = [item.optional_vars for item in node.items if item.optional_vars is not None]
        for part in parts:
            for item in ast.walk(part):
                if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
                    yield item.id


def imported_as(alias: ast.alias, node: ast.Import | ast.ImportFrom) -> str:
    """Return the name that an imported name or module gets in the importing module."""
    if alias.asname:
        return alias.asname
    return alias.name.partition(".")[0] if isinstance(node, ast.Import) else alias.name


def _paths(
    body: Sequence[ast.stmt], owners: tuple[ast.ClassDef, ...], line: int
) -> Iterator[list[ast.ClassDef | Definition]]:
    for outer in body:
        for node in leaf_statements(outer):
            if isinstance(node, ast.ClassDef):
                yield from _paths(node.body, (*owners, node), line)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and line in (
                node.lineno, *(item.lineno for item in node.decorator_list)
            ):  # fmt: skip
                yield [*owners, node]


def global_names(node: Definition) -> set[str]:
    """Return the names that the body of a function takes from its module or from Python's builtins."""
    bare = copy.copy(node)
    bare.decorator_list, bare.returns = [], None
    bare.args = copy.deepcopy(node.args)
    bare.args.defaults = [ast.Constant(None) for _ in bare.args.defaults]
    bare.args.kw_defaults = [item and ast.Constant(None) for item in bare.args.kw_defaults]
    for argument in ast.walk(bare.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    names: set[str] = set()
    try:
        table = symtable.symtable(ast.unparse(ast.Module([bare], [])), "", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
    waiting = list(table.get_children())
    while waiting:
        scope = waiting.pop()
        names |= {item.get_name() for item in scope.get_symbols() if item.is_global()}
        waiting += scope.get_children()
    return names


def signature_names(node: Definition) -> set[str]:
    """Return the names in the decorators, annotations and default values of a function."""
    return loaded_names([*node.decorator_list, node.args, *([node.returns] if node.returns else [])])


def declared_globals(node: ast.AST) -> Iterator[str]:
    """Yield the names that a function declares with `global`."""
    for item in ast.walk(node):
        if isinstance(item, ast.Global):
            yield from item.names


def loaded_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that expressions read, those in annotations that are written as text included."""
    names: set[str] = set()
    for node in nodes:
        for item in ast.walk(node):
            if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Load):
                names.add(item.id)
            elif isinstance(item, ast.arg) and isinstance(item.annotation, ast.Constant):
                names |= _names_in_text(item.annotation.value)
    return names


def _names_in_text(annotation: object) -> set[str]:
    tree = parse(annotation) if isinstance(annotation, str) else None
    return {item.id for item in ast.walk(tree) if isinstance(item, ast.Name)} if tree else set()


def attribute_names(nodes: Iterable[ast.AST], of: str | None = None) -> set[str]:
    """Return the names of attributes that code uses: of all objects, or only of the variable `of`."""
    return {
        item.attr
        for node in nodes
        for item in ast.walk(node)
        if isinstance(item, ast.Attribute)
        and (of is None or (isinstance(item.value, ast.Name) and item.value.id == of))
    }


def short_doc(node: Definition | ast.ClassDef) -> str:
    """Return the first paragraph of a docstring, or "" if there is no docstring."""
    paragraph = (ast.get_docstring(node) or "").split("\n\n", 1)[0]
    return paragraph if len(paragraph) <= DOC_CHARACTERS else paragraph[:DOC_CHARACTERS].rpartition(" ")[0] + " ..."


def stub(node: Definition) -> str:
    """Return a function without its body: decorators, signature and the first paragraph of the docstring."""
    short = copy.copy(node)
    text = short_doc(node)
    short.body = [*([ast.Expr(ast.Constant(text))] if text else []), ast.Expr(ast.Constant(...))]
    return ast.unparse(ast.fix_missing_locations(short))


def shown_function(module: ModuleSource, node: Definition, detail: Detail) -> str:
    """Return a function whole if `detail` allows that, else its stub."""
    return module.source(node) if is_shown_whole(module, node, detail) else stub(node)


def is_shown_whole(module: ModuleSource, node: Definition, detail: Detail) -> bool:
    """Whether a function is shown whole and not as a stub."""
    return (detail.documented or not ast.get_docstring(node)) and len(module.source(node)) <= detail.body


def shown_value(module: ModuleSource, node: ast.stmt, detail: Detail) -> str:
    """Return the source of an assignment. A long value is replaced by its first items, or by `...`."""
    source = module.source(node)
    value = getattr(node, "value", None)
    if len(source) <= detail.value or not isinstance(node, ast.Assign | ast.AnnAssign) or value is None:
        return source
    short = copy.deepcopy(node)
    kept = 0
    if isinstance(short.value, ast.List | ast.Tuple | ast.Set):
        short.value.elts = short.value.elts[:2]
        kept = len(short.value.elts)
    elif isinstance(short.value, ast.Dict):
        short.value.keys, short.value.values = short.value.keys[:2], short.value.values[:2]
        kept = len(short.value.keys)
    text = ast.unparse(short)
    if not kept or len(text) > detail.value:
        short.value = ast.Constant(...)
        return ast.unparse(short)
    size = len(value.keys if isinstance(value, ast.Dict) else value.elts)
    return f"{text}  # and {size - kept} more" if size > kept else text
