"""Make wrong versions of JavaScript functions (mutants and trivial bodies) with tree-sitter."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

from alignment.grading.node_syntax import JsFunction, Tree, js_functions

__all__ = ["JsFunction", "definition", "js_functions", "js_mutants"]
_SWAPS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "===": "!==", "!==": "===", "==": "!=", "!=": "==", "+": "-", "-": "+",
          "*": "/", "/": "*", "%": "*", "&&": "||", "||": "&&", "+=": "-=", "-=": "+=", "++": "--", "--": "++", "??": "&&"}  # fmt: skip


def definition(text: str, function: JsFunction, body: str | None = None) -> str:
    """Return the definition of a function in the form of a model's answer, with the original body or another body.

    Args:
        text: text of the function's file.
        function: the function.
        body: replacement of the function's body. With None, the original body is used.
    """
    body = text[function.start : function.end] if body is None else body
    head = text[function.first : function.start - 1].rstrip()
    name = function.name.rpartition(".")[2]
    unnamed = re.match(r"(?:async\s+)?function\b\s*\*?\s*\(|(?:async\b\s*)?(?:\(|[\w$]+\s*=>)", head)
    lead = f"const {name} = " if function.kind == "expression" and unnamed and re.fullmatch(r"[\w$]+", name) else ""
    return f"{lead}{head} {{{body}}}"


def js_mutants(text: str, function: JsFunction, count: int) -> list[str]:
    """Return wrong versions of a function: mutants with one change each, then versions with a trivial body.

    A trivial body returns undefined, or the first parameter.

    Args:
        text: text of the function's file.
        function: the original function. Its file and name are the seed for drawing changes.
        count: maximum number of changed definitions.
    """
    tree = Tree(text, function.file)
    opening, closing = (len(text[:place].encode("utf-8", "surrogatepass")) for place in (function.start, function.end))
    changes = [change for change in _changes(tree.root) if opening <= change[0] and change[1] <= closing]
    random.Random(f"{function.file}:{function.name}").shuffle(changes)
    bodies = [
        (tree.raw[opening:begin] + new.encode() + tree.raw[end:closing]).decode("utf-8", "surrogatepass")
        for begin, end, new in changes[:count]
    ]
    trivial = [" return undefined; ", *(f" return {name}; " for name in function.parameters[:1])]
    return [definition(text, function, body) for body in [*bodies, *trivial]]


def _changes(root: Any) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, new text) of every possible change. Offsets are in bytes."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.type.endswith("_type") or node.type == "type_annotation":
            continue  # a change of a type does not change what the program does
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
