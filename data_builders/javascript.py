"""The functions of JavaScript source that can become tasks, and wrong versions of them, by tree-sitter."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_builders.spans import parser

_SWAPS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "===": "!==", "!==": "===", "==": "!=", "!=": "==", "+": "-", "-": "+",
          "*": "/", "/": "*", "%": "*", "&&": "||", "||": "&&", "+=": "-=", "-=": "+=", "++": "--", "--": "++", "??": "&&"}  # fmt: skip


@dataclass(frozen=True)
class JsFunction:
    """A function at the top level of a file. Offsets count characters."""

    file: str
    name: str
    line: int
    first: int
    """Where the statement begins, `export` included."""
    last: int
    header: str
    """The definition up to its body, without `export`."""
    stub: str
    """The same, taking any arguments as `__a`."""
    export: str
    """``named``, ``default``, or "" where the statement exports nothing."""
    start: int
    """Of the body, between its braces."""
    end: int
    plain: bool
    """No generator."""
    parameters: tuple[str, ...] = ()
    doc: str = ""

    def target(self) -> dict[str, Any]:
        """What grading needs to know of it."""
        return {"file": self.file, "name": self.name, "start": self.first, "end": self.last, "header": self.header,
                "stub": self.stub, "export": self.export}  # fmt: skip


class Tree:
    """A parsed file; tree-sitter counts bytes, we count characters."""

    def __init__(self, text: str) -> None:
        self.raw = text.encode("utf-8", "surrogatepass")
        self.ascii = len(self.raw) == len(text)
        tool = parser("javascript")
        assert tool is not None
        self.root = tool.parse(self.raw).root_node

    def at(self, byte: int) -> int:
        return byte if self.ascii else len(self.raw[:byte].decode("utf-8", "surrogatepass"))

    def text(self, node: Any) -> str:
        return self.raw[node.start_byte : node.end_byte].decode("utf-8", "surrogatepass")


def js_functions(file: str, text: str) -> list[JsFunction]:
    """Functions that are declared, or assigned to a name, at the top level; nothing for a file that does not parse."""
    tree = Tree(text)
    if tree.root.has_error:
        return []
    found = []
    above = ""
    for node in tree.root.children:
        if node.type == "comment":
            above = tree.text(node)
            continue
        export, inner = "", node
        if node.type == "export_statement":
            export = "default" if any(child.type == "default" for child in node.children) else "named"
            inner = node.child_by_field_name("declaration")
        made = _function(tree, file, node, inner, export, above) if inner is not None else None
        if made is not None:
            found.append(made)
        above = ""
    return found


def _function(tree: Tree, file: str, outer: Any, node: Any, export: str, above: str) -> JsFunction | None:
    function, name, lead = node, node.child_by_field_name("name"), ""
    if node.type in ("lexical_declaration", "variable_declaration"):
        declared = [child for child in node.children if child.type == "variable_declarator"]
        if len(declared) != 1 or declared[0].child_by_field_name("value") is None:
            return None
        name, function = (declared[0].child_by_field_name(field) for field in ("name", "value"))
        lead = f"{tree.text(node.children[0])} {tree.text(name)} = "
    kinds = (
        "function_declaration",
        "generator_function_declaration",
        "arrow_function",
        "function_expression",
        "function",
    )
    if function.type not in kinds or name is None or name.type != "identifier":
        return None
    body, given = (function.child_by_field_name(field) for field in ("body", "parameters"))
    if body is None or body.type != "statement_block" or given is None or not body.named_child_count:
        return None
    header = lead + tree.raw[function.start_byte : body.start_byte].decode("utf-8", "surrogatepass").rstrip()
    before = lead + tree.raw[function.start_byte : given.start_byte].decode("utf-8", "surrogatepass")
    between = tree.raw[given.end_byte : body.start_byte].decode("utf-8", "surrogatepass").rstrip()
    return JsFunction(
        file, tree.text(name), outer.start_point[0] + 1, tree.at(outer.start_byte), tree.at(outer.end_byte), header,
        f"{before}(...__a){between}", export, tree.at(body.start_byte) + 1, tree.at(body.end_byte) - 1,
        "generator" not in function.type and not any(child.type == "*" for child in function.children),
        tuple(tree.text(child) for child in given.named_children if child.type == "identifier"),
        above if above.startswith("/**") else "",
    )  # fmt: skip


def js_mutants(text: str, function: JsFunction, most: int) -> list[str]:
    """At most `most` definitions with one change each, and answers that need no thought; always the same."""
    tree = Tree(text)
    opening, closing = (len(text[:place].encode("utf-8", "surrogatepass")) for place in (function.start, function.end))
    changes = [change for change in _changes(tree.root) if opening <= change[0] and change[1] <= closing]
    random.Random(f"{function.file}:{function.name}").shuffle(changes)
    bodies = [
        (tree.raw[opening:begin] + new.encode() + tree.raw[end:closing]).decode("utf-8", "surrogatepass")
        for begin, end, new in changes[:most]
    ]
    trivial = [" return undefined; ", *(f" return {name}; " for name in function.parameters[:1])]
    return [f"{function.header} {{{body}}}" for body in [*bodies, *trivial]]


def _changes(root: Any) -> Iterator[tuple[int, int, str]]:
    """(begin, end, text) in bytes."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        waiting += node.children
        if node.type in _SWAPS and node.parent is not None and node.parent.type in (
            "binary_expression", "augmented_assignment_expression", "update_expression"
        ):  # fmt: skip
            yield node.start_byte, node.end_byte, _SWAPS[node.type]
        elif node.type == "number":
            yield node.start_byte, node.end_byte, f"({node.text.decode()} + 1)"
        elif node.type in ("true", "false"):
            yield node.start_byte, node.end_byte, "false" if node.type == "true" else "true"
        elif node.type == "return_statement" and node.named_child_count:
            yield node.start_byte, node.end_byte, "return undefined;"
        elif node.type == "expression_statement":
            yield node.start_byte, node.end_byte, ";"
