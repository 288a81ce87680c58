"""The syntax tree of a file: spans of the nodes and function bodies around a position, in characters."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from data_builders.parsing.syntax_spans import Span, parser

if TYPE_CHECKING:
    from tree_sitter import Node

MIN_NODE = 16
"""Smallest size, in characters, of a node that `node_at` returns. Smaller nodes are single names."""
_FUNCTION = re.compile(r"function|method|func_literal|lambda|closure|constructor|singleton_method")


class SyntaxTree:
    """The syntax tree of one text. All positions and spans are in characters of the text.

    Args:
        text: the text that was parsed.
        root: the root node of its tree.
    """

    def __init__(self, text: str, root: Node) -> None:
        self.text, self.root = text, root
        self._bytes = b"" if text.isascii() else text.encode("utf-8", "surrogatepass")

    @classmethod
    def parse(cls, text: str, language: str) -> Self | None:
        """Parse a text.

        Args:
            text: the text of a file.
            language: its language, one of `languages.LANGUAGES`.

        Returns:
            The tree. None if the language has no grammar, or the extra `syntax` is not installed.
        """
        try:
            language_parser = parser(language)
        except ValueError:  # the extra is not installed
            return None
        if language_parser is None:
            return None
        return cls(text, language_parser.parse(text.encode("utf-8", "surrogatepass")).root_node)

    def node_at(self, position: int, longest: int, rng: random.Random) -> Span | None:
        """Draw a node around a position. Sizes are log-uniform, from `MIN_NODE` to `longest` characters.

        Args:
            position: offset of a character in the text.
            longest: size of the largest node that may be drawn.
            rng: random generator, from which one number is drawn.

        Returns:
            The span of the smallest node that has at least the drawn size, or else of the largest node. None if all
            nodes at the position are too small or too large.
        """
        target = math.exp(rng.uniform(math.log(MIN_NODE), math.log(max(longest, MIN_NODE))))
        spans = [self._span(node) for node in self._ancestors(position) if not node.is_error]
        fitting = [span for span in spans if MIN_NODE <= span[1] - span[0] <= longest]
        return next((span for span in fitting if span[1] - span[0] >= target), fitting[-1] if fitting else None)

    def body_at(self, position: int, rng: random.Random) -> Span | None:
        """Return the span of the body of the innermost function around a position, without braces.

        If the body begins with a docstring, the docstring is left out with probability 1/2.

        Args:
            position: offset of a character in the text.
            rng: random generator, from which a number is drawn if the body begins with a docstring.
        """
        for node in self._ancestors(position):
            body = node.child_by_field_name("body")
            if body is None or not _FUNCTION.search(node.type):
                continue
            start, end = self._span(body)
            statements = body.named_children
            if len(statements) > 1 and _is_docstring(statements[0]) and rng.random() < 0.5:
                start = self._span(statements[1])[0]
            start, end = self._inside_braces(start, end)
            return (start, end) if start < end else None
        return None

    def named_bodies(self) -> Iterator[tuple[str, Span]]:
        """Yield name and body of each named function that is not inside of another function, in the order of the text.

        A body has no braces around it. Empty bodies are left out.
        """
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            name, body = _name_of(node), node.child_by_field_name("body")
            if name is None or body is None or not _FUNCTION.search(node.type):
                waiting += reversed(node.children)
                continue
            start, end = self._inside_braces(*self._span(body))
            if start < end and not node.has_error:
                yield name.text.decode("utf-8", "replace") if name.text else "", (start, end)

    def _inside_braces(self, start: int, end: int) -> Span:
        """Return the span of a body without the braces around it, or the whole span if it has none."""
        if self.text[start : start + 1] != "{" or self.text[end - 1 : end] != "}":
            return start, end
        inner = self.text[start + 1 : end - 1]
        start += 1 + len(inner) - len(inner.lstrip())
        return start, start + len(inner.strip())

    def _ancestors(self, position: int) -> list[Node]:
        """Return the nodes that contain a character, from the innermost node to the outermost node, without the
        root.
        """
        offset = len(self.text[:position].encode("utf-8", "surrogatepass")) if self._bytes else position
        node = self.root.named_descendant_for_byte_range(offset, offset + 1)
        nodes = []
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes

    def _span(self, node: Node) -> Span:
        if not self._bytes:
            return node.start_byte, node.end_byte
        start = len(self._bytes[: node.start_byte].decode("utf-8", "replace"))
        return start, start + len(self._bytes[node.start_byte : node.end_byte].decode("utf-8", "replace"))


def _name_of(node: Node) -> Node | None:
    """Return the name of a function. In C and C++ the name is inside of the declarator."""
    while (name := node.child_by_field_name("name")) is None and (
        inner := node.child_by_field_name("declarator")
    ) is not None:
        node = inner
    return name if name is not None else node if "identifier" in node.type else None


def _is_docstring(node: Node) -> bool:
    inner = node.named_children[0] if node.type == "expression_statement" and node.named_children else node
    return inner.type == "string"
