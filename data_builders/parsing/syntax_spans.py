"""Where to cut a file for fill-in-the-middle: at random characters, or around a node of its syntax tree."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import Any

Span = tuple[int, int]
"""Start and end of the middle, in characters."""

MIN_MIDDLE = 4
MAX_SYNTAX_MIDDLE = 4000
"""Bytes of the smallest and the largest node that is cut out; smaller ones are names, larger ones are files."""

# Our language names that tree-sitter-language-pack spells differently.
_GRAMMARS = {
    "c#": "csharp", "c++": "cpp", "assembly": "asm", "common-lisp": "commonlisp", "emacs-lisp": "elisp",
    "f#": "fsharp", "makefile": "make", "protocol-buffer": "proto", "restructuredtext": "rst", "shell": "bash",
    "systemverilog": "verilog", "tex": "latex", "objectc++": "objc", "java-server-pages": "", "tcsh": "",
}  # fmt: skip


@cache
def parser(language: str) -> Any | None:
    """A tree-sitter parser for one of our languages, or None where the bundle has no grammar."""
    name = _GRAMMARS.get(language, language)
    if not name:
        return None
    try:
        from tree_sitter_language_pack import get_parser
    except ImportError:
        raise ValueError(
            "syntax-tree spans need grammars: pip install 'code-alignment[syntax]', or cut at random characters"
        ) from None
    try:
        return get_parser(name)  # type: ignore[arg-type]
    except (LookupError, ValueError):
        return None


def random_span(text: str, rng: random.Random, min_characters: int = 3) -> Span | None:
    """Two cuts, uniform over all characters (arXiv 2207.14255, section 3).

    Args:
        text: the text to cut.
        rng: one draw is taken from it, none where the text is too short.
        min_characters: texts with fewer characters are not cut.

    Returns:
        Start and end of the middle, or None where the text is too short.
    """
    if len(text) < min_characters:
        return None
    start, end = sorted(rng.sample(range(len(text) + 1), 2))
    return start, end


def syntax_span(text: str, language: str, rng: random.Random) -> Span | None:
    """A whole node of the syntax tree: a random place, and above it the node nearest to a random size.

    Sizes are drawn log-uniformly, so that expressions, statements and whole functions come about equally often.
    None where there is no grammar, or the place lies in no suitable node.
    """
    found = parser(language)
    if found is None:
        return None
    raw = text.encode("utf-8", "surrogatepass")
    largest = min(MAX_SYNTAX_MIDDLE, int(len(raw) * 0.8))
    if largest <= MIN_MIDDLE:
        return None
    root = found.parse(raw).root_node
    for _ in range(4):
        place = rng.randrange(len(raw))
        target = math.exp(rng.uniform(math.log(MIN_MIDDLE), math.log(largest)))
        node = root.named_descendant_for_byte_range(place, place + 1)
        while node is not None and node.end_byte - node.start_byte < target and node.parent is not None:
            if node.parent.end_byte - node.parent.start_byte > largest:
                break
            node = node.parent
        if (
            node is None
            or node.is_error
            or node == root
            or not MIN_MIDDLE <= node.end_byte - node.start_byte <= largest
        ):
            continue
        try:
            start = len(raw[: node.start_byte].decode("utf-8", "surrogatepass"))
            return start, start + len(raw[node.start_byte : node.end_byte].decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            continue
    return None
