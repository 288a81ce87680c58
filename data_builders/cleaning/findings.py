"""Positions of secrets and personal data in a text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
    """A span of text with a secret or personal data, which has to be replaced."""

    start: int
    """Offset of the first character of the span."""
    end: int
    """Offset after the last character of the span."""
    kind: str
    """Kind of secret or personal data in upper case, for example `PASSWORD` or `EMAIL`."""


def find_all(text: str, word: str) -> list[int]:
    """Return the offsets of all non-overlapping occurrences of a word."""
    places, place = [], text.find(word)
    while place >= 0:
        places.append(place)
        place = text.find(word, place + len(word))
    return places
