"""Make wrong versions of JavaScript functions (mutants, and functions with trivial bodies) with tree-sitter."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

from alignment.grading.node_syntax import JsFunction, Tree, js_functions

__all__ = ["JsFunction", "definition", "js_functions", "js_mutants", "js_trivial"]
_SWAPS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "===": "!==", "!==": "===", "==": "!=", "!=": "==", "+": "-", "-": "+",
          "*": "/", "/": "*", "%": "*", "&&": "||", "||": "&&", "+=": "-=", "-=": "+=", "++": "--", "--": "++", "??": "&&"}  # fmt: skip
CONSTANTS = ("null", "true", "false", "0", "1", '""', "[]", "{}")
"""Results of trivial bodies."""
MOST_PARAMETERS, MOST_ERRORS = 4, 2
"""Maximum number of trivial bodies that return a parameter, or throw an error."""


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
    """Return wrong versions of a function, with one change each.

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
    return [definition(text, function, body) for body in bodies]


def js_trivial(text: str, function: JsFunction) -> list[str]:
    """Return versions of a function with a trivial body: it does nothing, returns a constant or a parameter, or throws.

    If the original returns no value, no constants and parameters are tried.
    """
    body = text[function.start : function.end]
    errors = dict.fromkeys([*re.findall(r"throw\s+new\s+([\w$]*Error)\b", body), "TypeError"])
    bodies = [" ", *(f" throw new {name}(); " for name in list(errors)[:MOST_ERRORS])]
    if re.search(r"\breturn\s+[^\s;}]", body):
        values = [*CONSTANTS, *(["this"] if function.kind == "method" else []), *function.parameters[:MOST_PARAMETERS]]
        bodies += [f" return {value}; " for value in values]
    return [definition(text, function, item) for item in bodies]


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
