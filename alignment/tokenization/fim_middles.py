"""Choose middles of fill-in-the-middle samples as editors request them: rest of a line, lines, blocks, bodies.

Middles that are nodes of the syntax tree are from AST-FIM (arXiv 2506.00204). Without a grammar for the language,
blocks and bodies are found by indentation.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from alignment.recipe.stage_parts import FimMiddles
from data_builders.parsing.syntax_spans import Span
from data_builders.parsing.syntax_tree import SyntaxTree

KINDS = 4
"""Number of attempts to find a middle in a region. Each attempt draws a kind of middle. If all attempts fail, the
region gets no middle."""
POSITIONS = 4
"""Number of positions that are tried in each attempt."""
LINES = (1, 2, 3, 4, 5, 6)
"""Possible numbers of lines in a middle that consists of whole lines. The number n is drawn with weight 1/n."""
CURSOR_CHARACTERS = 240
"""Largest number of characters in a middle of the kind `cursor`, which starts and ends at any character."""
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class FileText:
    """The text of a file, with its syntax tree and its lines."""

    text: str
    language: str
    """One of `languages.LANGUAGES`, or an empty string."""

    @cached_property
    def tree(self) -> SyntaxTree | None:
        """The syntax tree, or None if there is no grammar for the language."""
        return SyntaxTree.parse(self.text, self.language) if self.language else None

    @cached_property
    def line_starts(self) -> list[int]:
        """The offset of the first character of each line."""
        return [0, *(match.end() for match in re.finditer("\n", self.text))]

    def line_at(self, position: int) -> int:
        """Return the index of the line that contains a character."""
        return bisect_right(self.line_starts, position) - 1

    def line_end(self, line: int) -> int:
        """Return the offset of the end of a line, before the newline."""
        end = self.line_starts[line + 1] - 1 if line + 1 < len(self.line_starts) else len(self.text)
        return end - 1 if self.text[end - 1 : end] == "\r" else end

    def first_character(self, line: int) -> int:
        """Return the offset of the first character after a line's indentation."""
        start, end = self.line_starts[line], self.line_end(line)
        return end - len(self.text[start:end].lstrip())

    def indentation(self, line: int) -> int:
        """Return the number of characters of a line's indentation, or -1 for a blank line."""
        start = self.first_character(line)
        return -1 if start == self.line_end(line) else start - self.line_starts[line]


def choose_middle(
    file: FileText, region: Span, longest: int, weights: FimMiddles, rng: random.Random
) -> tuple[Span, str] | None:
    """Choose a middle inside a region of a file.

    Args:
        file: the file.
        region: start and end of the characters that the middle must lie in.
        longest: largest number of characters of the middle.
        weights: weights with which the kinds of middles are drawn.
        rng: random generator of all draws.

    Returns:
        Start and end of the middle, and its kind. None if no middle was found, for example because the region is blank.
    """
    shares: Mapping[str, float] = weights.model_dump()
    for _ in range(KINDS):
        kind = rng.choices(list(shares), list(shares.values()))[0]
        for _ in range(POSITIONS):
            span = _MAKERS[kind](file, rng.randrange(*region), longest, region, rng)
            if span is None or not region[0] <= span[0] < span[1] <= region[1]:
                continue
            if span[1] - span[0] <= longest and file.text[span[0] : span[1]].strip():
                return span, kind
    return None


def _rest_of_line(file: FileText, position: int, longest: int, region: Span, rng: random.Random) -> Span | None:
    """Return a span from the start or end of a word to the end of the line."""
    line = file.line_at(position)
    start, end = file.line_starts[line], file.line_end(line)
    edges = {edge for match in _WORD.finditer(file.text, start, end) for edge in match.span()} - {end}
    return (rng.choice(sorted(edges)), end) if edges else None


def _lines(file: FileText, position: int, longest: int, region: Span, rng: random.Random) -> Span | None:
    """Return a span of one to six whole lines."""
    line = file.line_at(position)
    count = rng.choices(LINES, [1 / number for number in LINES])[0]
    last = min(line + count, len(file.line_starts)) - 1
    while last > line and file.indentation(last) < 0:
        last -= 1
    return _from_line_start(file, (file.first_character(line), file.line_end(last)), rng)


def _block(file: FileText, position: int, longest: int, region: Span, rng: random.Random) -> Span | None:
    """Return the span of a syntax node or, without a tree, of a line and the more indented lines below it."""
    if file.tree is not None:
        span = file.tree.node_at(position, longest, rng)
        return _from_line_start(file, span, rng) if span is not None else None
    line = file.line_at(position)
    last = _last_line_of_block(file, line + 1, file.indentation(line))
    return _from_line_start(file, (file.first_character(line), file.line_end(last)), rng)


def _body(file: FileText, position: int, longest: int, region: Span, rng: random.Random) -> Span | None:
    """Return the span of a function's body or, without a tree, of the more indented lines below a line."""
    if file.tree is not None:
        span = file.tree.body_at(position, rng)
        return _from_line_start(file, span, rng) if span is not None else None
    line = file.line_at(position)
    last = _last_line_of_block(file, line + 1, file.indentation(line))
    if last == line:
        return None
    return _from_line_start(file, (file.first_character(line + 1), file.line_end(last)), rng)


def _cursor(file: FileText, position: int, longest: int, region: Span, rng: random.Random) -> Span:
    """Return a span that starts and ends at any character, even inside a word. Lengths are log-uniform."""
    return position, position + round(math.exp(rng.uniform(0, math.log(CURSOR_CHARACTERS))))


def _edge(file: FileText, position: int, longest: int, region: Span, rng: random.Random) -> Span | None:
    """Return the span of the first or the last lines of the file, so that the prefix or the suffix is empty."""
    sides = [side for side, touched in (("start", region[0] == 0), ("end", region[1] == len(file.text))) if touched]
    if not sides:
        return None
    count, lines = rng.choices(LINES, [1 / number for number in LINES])[0], len(file.line_starts)
    if rng.choice(sides) == "start":
        return 0, file.line_end(min(count, lines) - 1)
    if file.text.endswith("\n"):
        count += 1  # the empty line after the last newline
    return file.first_character(max(lines - count, 0)), len(file.text)


_Maker = Callable[[FileText, int, int, Span, random.Random], Span | None]
_MAKERS: Mapping[str, _Maker] = {
    "line": _rest_of_line, "lines": _lines, "block": _block, "body": _body, "cursor": _cursor, "edge": _edge,
}  # fmt: skip


def _last_line_of_block(file: FileText, line: int, indentation: int) -> int:
    """Return the index of the last line of an indented block.

    The block starts at `line` and continues while lines are indented by more than `indentation`. Blank lines inside the
    block belong to it. If `line` is not indented that far, the block is empty: return `line - 1`.
    """
    last = line - 1
    while line < len(file.line_starts):
        width = file.indentation(line)
        if 0 <= width <= indentation:
            break
        last = line if width >= 0 else last
        line += 1
    return last


def _from_line_start(file: FileText, span: Span, rng: random.Random) -> Span:
    """Vary the start of a span of whole lines, since cursors stand at different places.

    Half of the spans start after the indentation. A quarter start at the line's first column, and include the newline
    at the end. A quarter start at the end of the previous line. A span that starts inside a line is not changed.
    """
    start, end = span
    line_start = file.line_starts[file.line_at(start)]
    draw = rng.random()
    if draw < 0.5 or file.text[line_start:start].strip():
        return span
    if draw < 0.75 and line_start:
        return line_start - 1, end
    return line_start, end + 1 if file.text[end : end + 1] == "\n" else end
