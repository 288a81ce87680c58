"""Parses JavaScript and TypeScript to find the functions of a file, and the function in a model's answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from alignment.grading.source_tree import SourceTree

METHOD = "method_definition"
DECLARED = ("function_declaration", "generator_function_declaration")
FUNCTIONS = (*DECLARED, "arrow_function", "function_expression", "function", "generator_function", METHOD)
CLASSES = ("class_declaration", "class", "abstract_class_declaration")
TYPESCRIPT = (".ts", ".mts", ".cts", ".tsx")
MAX_DEPTH = 200
"""Maximum nesting depth at which functions are searched. Real code is not nested more deeply."""


@dataclass(frozen=True)
class JsFunction:
    """A function that a file defines outside of other functions. Offsets are counted in characters."""

    file: str
    name: str
    """Name of the function, including its class or object: `Basket.total`."""
    line: int
    first: int
    """Offset at which the function begins: at `function`, `async`, its parameters or its name."""
    opening: int
    """Offset at which the parameters begin."""
    closing: int
    """Offset at which the parameters end."""
    start: int
    """Offset of the beginning of the body, after the opening brace."""
    end: int
    """Offset of the end of the body, before the closing brace."""
    last: int
    """Offset of the end of the statement that contains the function."""
    header: str
    """Source text of the definition, up to the body."""
    kind: str
    """Kind of definition: `declared`, `unnamed` (a default export without a name), `expression` or `method`."""
    plain: bool
    """Whether the function may exchange only plain data with its callers: it is neither a method nor a generator, and
    does not use `this`."""
    simple: bool
    """Whether a stub can have the same parameters: all of them are plain names, and the function is not an arrow
    function, so that it has the object `arguments`."""
    parameters: tuple[str, ...] = ()
    doc: str = ""
    """The comment above the function, if the comment begins with `/**`. Otherwise empty."""

    def target(self) -> dict[str, Any]:
        """Return the fields by which grading finds this function in its file. They become `RepositoryTests.target`."""
        return {key: value for key, value in asdict(self).items() if key not in ("doc", "line", "parameters")}


class Tree(SourceTree):
    """A parsed source text in JavaScript or TypeScript."""

    def __init__(self, text: str, file: str = "") -> None:
        """Parse a text. The suffix of the path `file` determines the language; the default is JavaScript."""
        language = "tsx" if file.endswith(".tsx") else "typescript" if file.endswith(TYPESCRIPT) else "javascript"
        super().__init__(text, language)


def js_functions(file: str, text: str) -> list[JsFunction]:
    """Return the functions of a file that have a body in braces, in source order.

    Nested functions are not returned separately. The result is empty if the file cannot be parsed.

    Args:
        file: the path of the file. The suffix determines the language.
        text: the content of the file.
    """
    tree = Tree(text, file)
    if tree.root.has_error:
        return []
    stem = file.rpartition("/")[2].partition(".")[0]
    functions = [_function(tree, file, stem, *item) for item in functions_of(tree)]
    return sorted((item for item in functions if item is not None), key=lambda item: item.start)


def functions_of(tree: Tree) -> Iterator[tuple[Any, tuple[str, ...], Any]]:
    """Yield (function, names around it, statement that contains it) for each function outside of other functions.

    The body of a function that is called immediately (a module wrapper) is searched like the top level.
    """
    stack: list[tuple[Any, tuple[str, ...], Any, int]] = [(node, (), node, 0) for node in tree.root.children]
    while stack:
        node, names, statement, depth = stack.pop()
        if node.type in FUNCTIONS:
            body = node.child_by_field_name("body")
            if body is not None and _is_called(node) and body.type == "statement_block":
                stack += [(child, (), child, depth + 1) for child in body.children]
            else:
                yield node, names, statement
            continue
        inner = (*names, name) if (name := _name(tree, node)) else names
        if depth < MAX_DEPTH:
            stack += [(child, inner, statement, depth + 1) for child in node.children]


def _is_called(node: Any) -> bool:
    outer = node.parent
    inner = node
    while outer is not None and outer.type == "parenthesized_expression":
        inner, outer = outer, outer.parent
    return outer is not None and outer.type == "call_expression" and outer.child_by_field_name("function") == inner


def _name(tree: Tree, node: Any) -> str:
    """Return the name of the class, object or variable that a node defines, or "" if the node defines no name."""
    field = {"variable_declarator": "name", "pair": "key", "assignment_expression": "left", "public_field_definition": "name",
             "field_definition": "property"}.get(node.type, "name" if node.type in CLASSES else "")  # fmt: skip
    name = node.child_by_field_name(field) if field else None
    if name is None:
        return ""
    if name.type == "member_expression":
        text = tree.text(name).removeprefix("module.").removeprefix("exports").lstrip(".").replace(".prototype.", ".")
        return text if re.fullmatch(r"[\w$.]*", text) else ""
    return tree.text(name) if name.type.endswith("identifier") else ""


def _function(tree: Tree, file: str, stem: str, node: Any, names: tuple[str, ...], statement: Any) -> JsFunction | None:
    body, parameters, name = (node.child_by_field_name(field) for field in ("body", "parameters", "name"))
    parameters = parameters or node.child_by_field_name("parameter")
    if body is None or body.type != "statement_block" or parameters is None or not body.named_child_count:
        return None
    exported = statement.type == "export_statement"
    if node.type == METHOD:
        if not name.type.endswith("identifier"):
            return None  # a computed name
        names = (*names, tree.text(name))
    elif name is not None and not names:
        names = (tree.text(name),)
    if not names:
        if not exported and "=" not in tree.between(statement.start_byte, node.start_byte):
            return None  # a callback without a name
        names = (stem,)
    kind = _kind(node, statement, name)
    entries = [child for child in parameters.named_children if child.type != "comment"] or (
        [parameters] if parameters.type == "identifier" else []
    )
    identifiers = [identifier for child in entries if (identifier := _identifier(child)) is not None]
    is_generator = any(child.type == "*" for child in node.children) or "generator" in node.type
    return JsFunction(
        file=file,
        name=".".join(names),
        line=node.start_point[0] + 1,
        first=tree.character(node.start_byte),
        opening=tree.character(parameters.start_byte),
        closing=tree.character(parameters.end_byte),
        start=tree.character(body.start_byte) + 1,
        end=tree.character(body.end_byte) - 1,
        last=tree.character(statement.end_byte),
        header=tree.between(node.start_byte, body.start_byte).rstrip(),
        kind=kind,
        plain=kind != "method" and not is_generator and not _uses_this(node),
        simple=len(identifiers) == len(entries) and node.type != "arrow_function",
        parameters=tuple(tree.text(identifier) for identifier in identifiers),
        doc=_comment_above(tree, node, statement),
    )


def _kind(node: Any, statement: Any, name: Any | None) -> str:
    """Return the value of `JsFunction.kind` for a function node."""
    if node.type == METHOD:
        return "method"
    if node.type in DECLARED:
        return "declared" if name is not None else "unnamed"
    exported = statement.type == "export_statement" and node.parent == statement
    # `export default function () {}`
    return "unnamed" if exported and name is None and "arrow" not in node.type else "expression"


def _identifier(parameter: Any) -> Any | None:
    """Return the name of a parameter. None if the parameter has a default value or is a pattern."""
    if parameter.type in ("required_parameter", "optional_parameter"):
        if parameter.child_by_field_name("value") is not None:
            return None
        parameter = parameter.child_by_field_name("pattern")
    return parameter if parameter is not None and parameter.type == "identifier" else None


def _uses_this(function: Any) -> bool:
    stack = list(function.children)
    while stack:
        node = stack.pop()
        if node.type in ("this", "super", "meta_property"):
            return True
        if node.type not in FUNCTIONS or node.type == "arrow_function":
            stack += [child for child in node.children if child.type not in CLASSES]
    return False


def _comment_above(tree: Tree, node: Any, statement: Any) -> str:
    above = (node if node.type == METHOD else statement).prev_sibling
    text = tree.text(above) if above is not None and above.type == "comment" else ""
    return text if text.startswith("/**") else ""


@dataclass(frozen=True)
class Answer:
    """The function from a model's answer, in the form in which it is inserted into the file."""

    parameters: str | None
    """The parameters, including the parentheses. None if the answer contains only a body."""
    body: str


def read_answer(program: str, target: Mapping[str, Any]) -> Answer | None:
    """Find the function in a model's answer.

    The answer may be code that contains the function, a single method, one function without a name, or a body. Code
    beside the function (helpers) is moved into the body, so that no code runs before the function is called.

    Args:
        program: the code of the answer.
        target: the requested function: the result of `JsFunction.target()`.

    Returns:
        The function, or None if the answer has none of these four forms.
    """
    name = target["name"].rpartition(".")[2]
    for before, after in (("", ""), ("class Answer__ {\n", "\n}"), ("(", ")")):
        tree = Tree(before + program.rstrip().rstrip(";" if before == "(" else "") + after, target["file"])
        if tree.root.has_error:
            continue
        matches = [item for item in functions_of(tree) if _own_name(tree, item) == name]
        if not matches and before == "(":
            matches = [item for item in functions_of(tree) if len(tree.root.named_children) == 1]
        if matches:
            node, _, statement = matches[-1] if before else matches[0]
            return _answer(tree, node, statement)
    body = Tree(f"async function* answer() {{{program}\n}}", target["file"]).root
    # More than one node: the answer closes the function and continues outside of it.
    is_body = not body.has_error and body.named_child_count == 1
    return Answer(None, program) if is_body else None


def _own_name(tree: Tree, item: tuple[Any, tuple[str, ...], Any]) -> str:
    node, names, _ = item
    name = node.child_by_field_name("name")
    if name is not None:
        return tree.text(name)
    return names[-1].rpartition(".")[2] if names else ""


def _answer(tree: Tree, node: Any, statement: Any) -> Answer:
    body = node.child_by_field_name("body")
    parameters = tree.text(node.child_by_field_name("parameters") or node.child_by_field_name("parameter"))
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
        helper = tree.text(other) if other is not None else ""
        if helper and not re.match(r"(?:module\.)?exports\b", helper):
            helpers.append(helper)
    return Answer(parameters, "\n".join([*helpers, text]))
