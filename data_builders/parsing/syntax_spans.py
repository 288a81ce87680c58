"""Choose the middle of a fill-in-the-middle document: a random span or a node of the syntax tree."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Parser

Span = tuple[int, int]
"""Start and end of the middle, in characters."""

MIN_MIDDLE = 4
MAX_SYNTAX_MIDDLE = 4000
"""Maximum size, in bytes, of a node that becomes a middle. The minimum is `MIN_MIDDLE`. Smaller nodes are single names,
and larger nodes are nearly whole files."""
ATTEMPTS = 4
"""Number of random positions that `syntax_span` tries in one file."""

# Languages with another name in tree-sitter-language-pack. "" means that the package has no grammar of the language.
_GRAMMARS = {
    "c#": "csharp", "c++": "cpp", "assembly": "asm", "common-lisp": "commonlisp", "emacs-lisp": "elisp",
    "f#": "fsharp", "makefile": "make", "protocol-buffer": "proto", "restructuredtext": "rst", "shell": "bash",
    "systemverilog": "verilog", "tex": "latex", "objectc++": "objc", "java-server-pages": "", "tcsh": "",
}  # fmt: skip


@cache
def parser(language: str) -> Parser | None:
    """Return the tree-sitter parser of a language, or None if tree-sitter-language-pack has no grammar for it.

    Raises:
        ValueError: the optional dependencies `syntax` are not installed.
    """
    name = _GRAMMARS.get(language, language)
    if not name:
        return None
    try:
        from tree_sitter_language_pack import get_parser
    except ImportError:
        raise ValueError(
            "tree-sitter grammars are not installed: pip install 'code-alignment[syntax]', or use spans that need no "
            "syntax tree (`spans: characters` in a recipe, `syntax_rate: 0` in a builder)"
        ) from None
    try:
        return get_parser(name)  # type: ignore[arg-type]
    except (LookupError, ValueError):
        return None


def random_span(text: str, rng: random.Random, min_characters: int = 3) -> Span | None:
    """Draw the span between two random positions. All positions are equally likely (arXiv 2207.14255, section 3).

    Args:
        text: the text to cut.
        rng: random generator. One number is drawn from it, unless the text is too short.
        min_characters: texts with fewer characters are not cut.

    Returns:
        Start and end of the middle, or None if the text is too short.
    """
    if len(text) < min_characters:
        return None
    start, end = sorted(rng.sample(range(len(text) + 1), 2))
    return start, end


def syntax_span(text: str, language: str, rng: random.Random) -> Span | None:
    """Draw a node of the syntax tree, and return its span.

    A position and a size are drawn. Starting from the node at this position, the function goes to parent nodes until a
    node has this size. Sizes are log-uniform, so that expressions, statements and functions are about equally frequent.

    Args:
        text: the text to cut.
        language: language of the text, one of `languages.LANGUAGES`.
        rng: random generator, from which two numbers are drawn for each attempt.

    Returns:
        Start and end of the node, or None if the language has no grammar or no attempt finds a suitable node.
    """
    language_parser = parser(language)
    if language_parser is None:
        return None
    raw = text.encode("utf-8", "surrogatepass")
    largest = min(MAX_SYNTAX_MIDDLE, int(len(raw) * 0.8))
    if largest <= MIN_MIDDLE:
        return None
    root = language_parser.parse(raw).root_node
    for _ in range(ATTEMPTS):
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
