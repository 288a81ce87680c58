"""The place of a secret or of personal data in a text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
    """A span of a text that has to be replaced."""

    start: int
    """Offset of the first character."""
    end: int
    """Offset after the last character."""
    kind: str
    """What it is, in upper case: `PASSWORD`, `EMAIL`, ..."""


def find_all(text: str, word: str) -> list[int]:
    """Offsets of all occurrences of a word, without overlap."""
    places, place = [], text.find(word)
    while place >= 0:
        places.append(place)
        place = text.find(word, place + len(word))
    return places
