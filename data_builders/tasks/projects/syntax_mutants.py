"""Make mutants of functions in languages with braces: versions with one change of the syntax tree."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from alignment.grading.projects.project_language import ProjectFunction
from alignment.grading.source_tree import SourceTree, descend

SWAPS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "+": "-", "-": "+", "*": "/", "/": "*", "%": "*",
         "&&": "||", "||": "&&", "+=": "-=", "-=": "+=", "++": "--", "--": "++", "<<": ">>", ">>": "<<", "&": "|", "|": "&"}  # fmt: skip
_OPERATIONS = ("binary_expression", "assignment_statement", "inc_statement", "dec_statement", "update_expression",
               "compound_assignment_expr", "assignment_expression")  # fmt: skip
_INTEGERS = ("int_literal", "integer_literal", "decimal_integer_literal")
_STATEMENTS = ("expression_statement", "assignment_statement", "inc_statement", "dec_statement")


def definition(text: str, function: ProjectFunction, body: str | None = None) -> str:
    """Return the definition of a function in the form of a model's answer, with the original body or another body."""
    body = text[function.start : function.end] if body is None else body
    return f"{text[function.first : function.start]}{body}}}"


def mutants(text: str, function: ProjectFunction, count: int, grammar: str, constants: Mapping[str, str]) -> list[str]:
    """Return wrong versions of a function, with one change each.

    Args:
        text: text of the function's file.
        function: the original function. Its file and name are the seed for drawing changes.
        count: maximum number of changed definitions.
        grammar: name of the grammar of the language.
        constants: replacements of constants by the kind of their node, such as `true`.
    """
    tree = SourceTree(text, grammar)
    opening, closing = (len(text[:place].encode("utf-8", "surrogatepass")) for place in (function.start, function.end))
    changes = [
        change for change in _changes(tree, constants) if opening <= change[0] and change[1] <= closing
    ]  # fmt: skip
    random.Random(f"{function.file}:{function.name}").shuffle(changes)
    bodies = [
        (tree.raw[opening:begin] + new.encode() + tree.raw[end:closing]).decode("utf-8", "surrogatepass")
        for begin, end, new in changes[:count]
    ]
    return [definition(text, function, body) for body in bodies]


def _changes(tree: SourceTree, constants: Mapping[str, str]) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, new text) of every possible change. Offsets are in bytes."""
    for node in descend(tree.root):
        parent = node.parent
        if node.type in SWAPS and parent is not None and parent.type in _OPERATIONS:
            yield node.start_byte, node.end_byte, SWAPS[node.type]
        elif node.type in _INTEGERS:
            yield node.start_byte, node.end_byte, f"({tree.text(node)} + 1)"
        elif node.type in constants:
            yield node.start_byte, node.end_byte, constants[node.type]
        elif node.type in ("interpreted_string_literal", "string_literal") and _is_value(node):
            yield node.end_byte - 1, node.end_byte - 1, "?"
        elif node.type == "if_statement" or node.type == "if_expression":
            condition = node.child_by_field_name("condition")
            if condition is not None and "let" not in condition.type:
                yield condition.start_byte, condition.end_byte, f"!({tree.text(condition).strip()})"
        elif node.type in _STATEMENTS and parent is not None and parent.type in ("block", "statement_list"):
            yield node.start_byte, node.end_byte, ""


def _is_value(node: Any) -> bool:
    """Whether a text is a value of the program, not the path of an import or the tag of a field."""
    return node.parent is not None and node.parent.type not in ("import_spec", "field_declaration", "attribute")
