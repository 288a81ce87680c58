"""JavaScript and TypeScript by tree-sitter: the functions of a file, and the function in what a model answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

METHOD = "method_definition"
DECLARED = ("function_declaration", "generator_function_declaration")
FUNCTIONS = (*DECLARED, "arrow_function", "function_expression", "function", "generator_function", METHOD)
CLASSES = ("class_declaration", "class", "abstract_class_declaration")
TYPESCRIPT = (".ts", ".mts", ".cts", ".tsx")
DEEPEST = 200  # levels of nesting outside of functions; only answers that mean harm have more


@dataclass(frozen=True)
class JsFunction:
    """A function that a file defines outside of other functions. Offsets count characters."""

    file: str
    name: str
    """With its class or object: ``Basket.total``."""
    line: int
    first: int
    """Where the function itself begins: ``function``, ``async``, its parameters or its name."""
    opening: int
    """Of its parameters."""
    closing: int
    start: int
    """Of its body, between the braces."""
    end: int
    last: int
    """Where the statement ends that holds it."""
    header: str
    """The definition up to its body."""
    kind: str
    """``declared``, ``unnamed`` (a default export without a name), ``expression`` or ``method``."""
    plain: bool
    """Neither method nor generator, and without `this`: it may exchange plain data alone."""
    simple: bool
    """Its parameters are names, and it has `arguments`: it can pass them on and keep their number."""
    parameters: tuple[str, ...] = ()
    doc: str = ""

    def target(self) -> dict[str, Any]:
        """What grading needs to know of it."""
        return {key: value for key, value in asdict(self).items() if key not in ("doc", "line", "parameters")}


@cache
def _parser(language: str) -> Any:
    try:
        from tree_sitter_language_pack import get_parser
    except ImportError:
        raise ValueError("tasks in JavaScript need grammars: pip install 'code-alignment[syntax]'") from None
    return get_parser(language)  # type: ignore[arg-type]


class Tree:
    """A parsed text; tree-sitter counts bytes, we count characters."""

    def __init__(self, text: str, file: str = "") -> None:
        self.raw = text.encode("utf-8", "surrogatepass")
        self.ascii = len(self.raw) == len(text)
        language = "tsx" if file.endswith(".tsx") else "typescript" if file.endswith(TYPESCRIPT) else "javascript"
        self.root = _parser(language).parse(self.raw).root_node

    def at(self, byte: int) -> int:
        return byte if self.ascii else len(self.raw[:byte].decode("utf-8", "surrogatepass"))

    def text(self, node: Any) -> str:
        return self.between(node.start_byte, node.end_byte)

    def between(self, first: int, last: int) -> str:
        return self.raw[first:last].decode("utf-8", "surrogatepass")


def js_functions(file: str, text: str) -> list[JsFunction]:
    """Functions with a body in braces, in order; functions inside functions belong to the outer one. Nothing for a
    file that does not parse."""
    tree = Tree(text, file)
    if tree.root.has_error:
        return []
    stem = file.rpartition("/")[2].partition(".")[0]
    found = [_function(tree, file, stem, *item) for item in functions_of(tree)]
    return sorted((item for item in found if item is not None), key=lambda item: item.start)


def functions_of(tree: Tree) -> Iterator[tuple[Any, tuple[str, ...], Any]]:
    """(function, names around it, statement that holds it), outside of other functions; a function that is called
    where it stands is a module's own wrapper, and opened."""
    waiting: list[tuple[Any, tuple[str, ...], Any, int]] = [(node, (), node, 0) for node in tree.root.children]
    while waiting:
        node, names, statement, depth = waiting.pop()
        if node.type in FUNCTIONS:
            body = node.child_by_field_name("body")
            if body is not None and _is_called(node) and body.type == "statement_block":
                waiting += [(child, (), child, depth + 1) for child in body.children]
            else:
                yield node, names, statement
            continue
        inner = (*names, named) if (named := _name(tree, node)) else names
        if depth < DEEPEST:
            waiting += [(child, inner, statement, depth + 1) for child in node.children]


def _is_called(node: Any) -> bool:
    outer = node.parent
    inner = node
    while outer is not None and outer.type == "parenthesized_expression":
        inner, outer = outer, outer.parent
    return outer is not None and outer.type == "call_expression" and outer.child_by_field_name("function") == inner


def _name(tree: Tree, node: Any) -> str:
    """What a node calls the things inside it, or ""."""
    field = {"variable_declarator": "name", "pair": "key", "assignment_expression": "left", "public_field_definition": "name",
             "field_definition": "property"}.get(node.type, "name" if node.type in CLASSES else "")  # fmt: skip
    named = node.child_by_field_name(field) if field else None
    if named is None:
        return ""
    if named.type == "member_expression":
        text = tree.text(named).removeprefix("module.").removeprefix("exports").lstrip(".").replace(".prototype.", ".")
        return text if re.fullmatch(r"[\w$.]*", text) else ""
    return tree.text(named) if named.type.endswith("identifier") else ""


def _function(tree: Tree, file: str, stem: str, node: Any, names: tuple[str, ...], statement: Any) -> JsFunction | None:
    body, given, named = (node.child_by_field_name(field) for field in ("body", "parameters", "name"))
    given = given or node.child_by_field_name("parameter")
    if body is None or body.type != "statement_block" or given is None or not body.named_child_count:
        return None
    if node.type == METHOD:
        if not named.type.endswith("identifier"):
            return None  # a computed name: nobody could say which
        names = (*names, tree.text(named))
    elif named is not None and not names:
        names = (tree.text(named),)
    exported = statement.type == "export_statement"
    kind = "method" if node.type == METHOD else "expression"
    if node.type in DECLARED:
        kind = "declared" if named is not None else "unnamed"
    if exported and kind == "expression" and node.parent == statement and named is None and "arrow" not in node.type:
        kind = "unnamed"  # `export default function () {}`
    if not names:
        if not exported and "=" not in tree.between(statement.start_byte, node.start_byte):
            return None  # a callback without a name of its own
        names = (stem,)
    parameters = [child for child in given.named_children if child.type != "comment"] or (
        [given] if given.type == "identifier" else []
    )
    plain = [name for child in parameters if (name := _identifier(child)) is not None]
    generator = any(child.type == "*" for child in node.children) or "generator" in node.type
    return JsFunction(
        file, ".".join(names), node.start_point[0] + 1, tree.at(node.start_byte), tree.at(given.start_byte), tree.at(given.end_byte),
        tree.at(body.start_byte) + 1, tree.at(body.end_byte) - 1, tree.at(statement.end_byte),
        tree.between(node.start_byte, body.start_byte).rstrip(), kind,
        kind != "method" and not generator and not _uses_this(node), len(plain) == len(parameters) and node.type != "arrow_function",
        tuple(tree.text(name) for name in plain), _comment_above(tree, node, statement),
    )  # fmt: skip


def _identifier(parameter: Any) -> Any | None:
    if parameter.type in ("required_parameter", "optional_parameter"):
        if parameter.child_by_field_name("value") is not None:
            return None
        parameter = parameter.child_by_field_name("pattern")
    return parameter if parameter is not None and parameter.type == "identifier" else None


def _uses_this(function: Any) -> bool:
    waiting = list(function.children)
    while waiting:
        node = waiting.pop()
        if node.type in ("this", "super", "meta_property"):
            return True
        if node.type not in FUNCTIONS or node.type == "arrow_function":
            waiting += [child for child in node.children if child.type not in CLASSES]
    return False


def _comment_above(tree: Tree, node: Any, statement: Any) -> str:
    above = (node if node.type == METHOD else statement).prev_sibling
    text = tree.text(above) if above is not None and above.type == "comment" else ""
    return text if text.startswith("/**") else ""


@dataclass(frozen=True)
class Answer:
    """A model's answer, cut to what goes into the file."""

    parameters: str | None
    """In their parentheses; None where the answer is a body alone."""
    body: str


def read_answer(program: str, target: dict[str, Any]) -> Answer | None:
    """The function in what a model wrote: code that has it, a method alone, one function without a name, or a body; None
    where it is none of these.

    What stands beside the function (helpers) goes into the body, so that nothing runs before the function is called.
    """
    name = target["name"].rpartition(".")[2]
    for before, after in (("", ""), ("class Answer__ {\n", "\n}"), ("(", ")")):
        tree = Tree(before + program.rstrip().rstrip(";" if before == "(" else "") + after, target["file"])
        if tree.root.has_error:
            continue
        found = [item for item in functions_of(tree) if _called(tree, item) == name]
        if not found and before == "(":
            found = [item for item in functions_of(tree) if len(tree.root.named_children) == 1]
        if found:
            node, _, statement = found[-1] if before else found[0]
            return _taken(tree, node, statement)
    body = Tree(f"async function* answer() {{{program}\n}}", target["file"]).root
    whole = not body.has_error and body.named_child_count == 1  # or it would end the function, and go on outside
    return Answer(None, program) if whole else None


def _called(tree: Tree, item: tuple[Any, tuple[str, ...], Any]) -> str:
    node, names, _ = item
    named = node.child_by_field_name("name")
    if named is not None:
        return tree.text(named)
    return names[-1].rpartition(".")[2] if names else ""


def _taken(tree: Tree, node: Any, statement: Any) -> Answer:
    body = node.child_by_field_name("body")
    given = node.child_by_field_name("parameters") or node.child_by_field_name("parameter")
    parameters = tree.text(given)
    if not parameters.startswith("("):
        parameters = f"({parameters})"
    if body.type == "statement_block":
        text = tree.between(body.start_byte + 1, body.end_byte - 1)
    else:
        text = f" return {tree.text(body)}; "
    helpers = []
    for other in tree.root.children:
        if other == statement or other.type in ("import_statement", "comment", "hash_bang_line"):
            continue
        if other.type == "export_statement":
            other = other.child_by_field_name("declaration")
        shown = tree.text(other) if other is not None else ""
        if shown and not re.match(r"(?:module\.)?exports\b", shown):
            helpers.append(shown)
    return Answer(parameters, "\n".join([*helpers, text]))
