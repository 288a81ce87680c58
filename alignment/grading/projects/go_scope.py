"""Names in Go code: which identifiers of a function refer to declarations outside of the function."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from alignment.grading.source_tree import SourceTree, descend

FUNCTIONS = ("function_declaration", "method_declaration")
_SCOPES = frozenset(
    ["block", "if_statement", "for_statement", "expression_switch_statement", "type_switch_statement", "select_statement",
     "expression_case", "type_case", "default_case", "communication_case", "func_literal", "function_type", "method_elem",
     *FUNCTIONS]
)  # fmt: skip
_NAMES = ("identifier", "type_identifier", "package_identifier")
PREDECLARED = frozenset(
    [
        "any",
        "bool",
        "byte",
        "comparable",
        "complex64",
        "complex128",
        "error",
        "float32",
        "float64",
        "int",
        "int8",
        "int16",
        "int32",
        "int64",
        "rune",
        "string",
        "uint",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "uintptr",
        "true",
        "false",
        "iota",
        "nil",
        "append",
        "cap",
        "clear",
        "close",
        "complex",
        "copy",
        "delete",
        "imag",
        "len",
        "make",
        "max",
        "min",
        "new",
        "panic",
        "print",
        "println",
        "real",
        "recover",
        "_",
    ]
)


def free_names(tree: SourceTree, function: Any) -> list[Any]:
    """Return the identifiers in a function that refer to declarations outside of it, in source order.

    The rules of scopes of the language apply: a name that is declared in a block is free before the declaration and
    after the block.
    """
    return list(_free(tree, function, [set()]))


def _free(tree: SourceTree, node: Any, scopes: list[set[str]]) -> Iterator[Any]:
    kind = node.type
    if kind in _NAMES:
        name = tree.text(node)
        if name not in PREDECLARED and not any(name in scope for scope in scopes):
            yield node
        return
    inner = [*scopes, set()] if kind in _SCOPES else scopes
    if kind in FUNCTIONS:
        parts = [
            node.child_by_field_name(field) for field in ("type_parameters", "receiver", "parameters", "result", "body")
        ]
        for part in parts:
            if part is not None:
                yield from _free(tree, part, inner)
        return
    declared: list[Any] = []
    skipped: list[Any] = []
    if kind in ("short_var_declaration", "range_clause", "receive_statement"):
        left = node.child_by_field_name("left")
        if left is not None and any(child.type == ":=" for child in node.children):
            declared = left.named_children
            skipped = [left]
    elif kind in ("var_spec", "const_spec", "parameter_declaration", "variadic_parameter_declaration", "type_parameter_declaration"):  # fmt: skip
        declared = skipped = node.children_by_field_name("name")
    elif kind in ("type_spec", "type_alias"):
        declared = skipped = node.children_by_field_name("name")
        inner[-1].update(tree.text(item) for item in declared)
    elif kind == "type_switch_statement":
        alias = node.child_by_field_name("alias")
        if alias is not None:
            inner[-1].update(tree.text(item) for item in alias.named_children)
            skipped = [alias]
    elif kind == "keyed_element":
        key = node.named_children[0]
        if key.named_child_count == 1 and key.named_children[0].type == "identifier":
            skipped = [key]  # usually the name of a field
    elif kind == "selector_expression":
        skipped = [node.child_by_field_name("field")]
    elif kind == "qualified_type":
        skipped = [node.child_by_field_name("name")]  # a type of another package, such as `Reader` in `io.Reader`
    ids = {item.id for item in skipped if item is not None}
    for child in node.children:
        if child.id not in ids and child.is_named:
            yield from _free(tree, child, inner)
    inner[-1].update(tree.text(item) for item in declared)


def imports_of(tree: SourceTree) -> dict[str, str]:
    """Return the path of each import of a file, keyed by the name that the file uses. Dot imports have names like `.1`."""
    imports: dict[str, str] = {}
    for spec in _import_specs(tree):
        path = tree.text(spec.child_by_field_name("path")).strip('"`')
        name = spec.child_by_field_name("name")
        used = tree.text(name) if name is not None else package_name(path)
        imports[f".{len(imports)}" if used == "." else used] = path
    return imports


def _import_specs(tree: SourceTree) -> Iterator[Any]:
    for child in tree.root.children:
        if child.type == "import_declaration":
            yield from (node for node in descend(child) if node.type == "import_spec")


def package_name(path: str) -> str:
    """Return the name of a package, guessed from its import path: `yaml` for `gopkg.in/yaml.v3`."""
    parts = [part for part in path.split("/") if not re.fullmatch(r"v\d+", part)]
    last = (parts or [path])[-1]
    return re.sub(r"\.v\d+$", "", last).removeprefix("go-").replace("-", "_")


def without_unused_imports(text: str) -> str:
    """Return a file in which imports that no code uses are blank (`_ "path"`), so that the compiler accepts them."""
    tree = SourceTree(text, "go")
    used = {
        tree.text(node) for item in tree.root.children if item.type != "import_declaration" for node in descend(item)
        if node.type in ("identifier", "package_identifier")
    }  # fmt: skip
    places = []
    for spec in _import_specs(tree):
        name, path = spec.child_by_field_name("name"), spec.child_by_field_name("path")
        known = tree.text(name) if name is not None else package_name(tree.text(path).strip('"`'))
        if known not in used and known not in ("_", "."):
            places.append((spec.start_byte, path.start_byte))
    raw = tree.raw
    for start, end in reversed(places):
        raw = raw[:start] + b"_ " + raw[end:]
    return raw.decode("utf-8", "surrogatepass")


def declared_names(tree: SourceTree) -> dict[str, set[str]]:
    """Return the names that a file declares at its top level: `variable`, `function`, `type`, `constant`, and `member` for
    the methods and fields of its types.
    """
    names: dict[str, set[str]] = {kind: set() for kind in ("variable", "function", "type", "constant", "member")}
    for child in tree.root.children:
        if child.type == "function_declaration":
            names["function"].add(tree.text(child.child_by_field_name("name")))
        elif child.type == "method_declaration":
            names["member"].add(tree.text(child.child_by_field_name("name")))
        elif child.type in ("var_declaration", "const_declaration", "type_declaration"):
            kind = {"var": "variable", "const": "constant", "type": "type"}[child.type.split("_")[0]]
            for node in descend(child):
                if node.type in ("var_spec", "const_spec", "type_spec", "type_alias"):
                    names[kind].update(tree.text(item) for item in node.children_by_field_name("name"))
                elif kind == "type" and node.type in ("field_declaration", "method_elem"):
                    names["member"].update(tree.text(item) for item in node.children_by_field_name("name"))
    return names
