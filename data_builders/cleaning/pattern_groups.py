"""Groups of patterns that find secrets in a text, searched only where one of their words occurs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from data_builders.cleaning.findings import Finding
from data_builders.cleaning.placeholders import is_placeholder
from data_builders.cleaning.text_index import TextIndex, WordSet


@dataclass(frozen=True)
class Pattern:
    """A format of a secret."""

    kind: str
    """Kind of the secret in upper case."""
    hints: tuple[str, ...]
    """Words of at least three characters. The expression is applied to texts that contain one of the words."""
    expression: re.Pattern[str]
    """The secret is group 1 of a match, or the whole match if the expression has no groups."""

    @classmethod
    def of(cls, kind: str, hints: str, expression: str) -> Pattern:
        """Make a pattern. The hints are separated by spaces; a space inside a hint is written as `~`."""
        return cls(kind, tuple(hint.replace("~", " ") for hint in hints.split()), re.compile(expression))


class PatternGroup:
    """Patterns that are searched together.

    Args:
        patterns: the patterns.
    """

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self._owners = [(hint, number) for number, pattern in enumerate(self.patterns) for hint in pattern.hints]
        self._hints = WordSet([hint for hint, _ in self._owners])

    def find(self, index: TextIndex, searched: str | None = None) -> list[Finding]:
        """Find the secrets in a text, except placeholders.

        Args:
            index: the text.
            searched: the parts of the text that contain the hints of all secrets; the whole text by default.
        """
        parts = index.text if searched is None else searched
        owners = (self._owners[number] for number in self._hints.candidates(index))
        numbers = sorted({number for hint, number in owners if hint in parts})
        return [finding for number in numbers for finding in _matches(self.patterns[number], index.text)]


def _matches(pattern: Pattern, text: str) -> list[Finding]:
    group = 1 if pattern.expression.groups else 0
    return [
        Finding(match.start(group), match.end(group), pattern.kind)
        for match in pattern.expression.finditer(text)
        if not is_placeholder(match.group(group))
    ]
