"""A source text parsed by tree-sitter. Offsets of tree-sitter are in bytes, all other offsets in this package in characters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any


@cache
def _parser(grammar: str) -> Any:
    try:
        from tree_sitter_language_pack import get_parser
    except ImportError:
        raise ValueError(
            f"tasks in {grammar.capitalize()} need grammars: pip install 'code-alignment[syntax]'"
        ) from None
    return get_parser(grammar)  # type: ignore[arg-type]


class SourceTree:
    """The syntax tree of a text."""

    def __init__(self, text: str, grammar: str) -> None:
        """Parse a text. `grammar` is the name of the grammar in tree-sitter-language-pack."""
        self.raw = text.encode("utf-8", "surrogatepass")
        self.is_ascii = len(self.raw) == len(text)
        self.root = _parser(grammar).parse(self.raw).root_node

    def character(self, byte: int) -> int:
        """Convert an offset in bytes to an offset in characters."""
        return byte if self.is_ascii else len(self.raw[:byte].decode("utf-8", "surrogatepass"))

    def text(self, node: Any) -> str:
        """Return the source text of a node."""
        return self.between(node.start_byte, node.end_byte)

    def between(self, first: int, last: int) -> str:
        """Return the text between two offsets in bytes."""
        return self.raw[first:last].decode("utf-8", "surrogatepass")


def descend(node: Any) -> Iterator[Any]:
    """Yield a node and all nodes below, in source order."""
    waiting = [node]
    while waiting:
        item = waiting.pop()
        yield item
        waiting += reversed(item.children)


def is_deeper(node: Any, depth: int) -> bool:
    """Whether the tree below a node has more than `depth` levels."""
    waiting = [(node, 0)]
    while waiting:
        item, level = waiting.pop()
        if level > depth:
            return True
        waiting += [(child, level + 1) for child in item.children]
    return False
