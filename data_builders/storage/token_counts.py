"""Count the tokens of texts with a tokenizer, or estimate the number of tokens from the number of bytes."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex

BYTES_PER_TOKEN = 3.0
"""Number of bytes per token with which tokens are estimated. Qwen2.5's tokenizer has about 3.3 for Python code."""
MAX_PIECES = 1 << 20
"""Maximum number of pieces of text whose token counts are cached. If the cache is larger, it is cleared."""


class TokenCounter:
    """Counts the tokens of texts, exactly with a tokenizer or estimated from the number of bytes.

    The pattern of a byte-level BPE tokenizer splits a text into pieces, and tokens never cross the end of a piece. Most
    pieces occur often, so each distinct piece is encoded once. This is four times as fast as encoding whole texts and
    gives the same counts. With other kinds of tokenizers, whole texts are encoded.

    Args:
        tokenizer: a folder with `tokenizer.json`, or this file. With None, the number of tokens is estimated.

    Raises:
        ValueError: `tokenizer.json` does not exist.
    """

    def __init__(self, tokenizer: str | Path | None = None) -> None:
        self.exact = tokenizer is not None
        if tokenizer is None:
            return
        path = Path(tokenizer)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise ValueError(f"there is no tokenizer.json at {path}; give the folder of a model or tokenizer")
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(file))
        self.split = _piece_splitter(json.loads(file.read_text(encoding="utf-8")))
        self._added = [token.content for token in self.tokenizer.get_added_tokens_decoder().values()]
        self._lengths: dict[str, int] = {}

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text."""
        if not self.exact:
            return [max(1, round(len(text.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN)) for text in texts]
        return [self._length(text) for text in texts]

    def _length(self, text: str) -> int:
        if self.split is None or any(token in text for token in self._added) or _has_unassigned(text):
            return len(self._encode(text))
        if len(self._lengths) > MAX_PIECES:
            self._lengths.clear()
        pieces = self.split(text)
        lengths = self._lengths
        try:
            return sum(map(lengths.__getitem__, pieces))
        except KeyError:
            for piece in set(pieces):  # not `set(pieces) - lengths.keys()`: that iterates over all of `lengths`
                if piece not in lengths:
                    lengths[piece] = len(self._encode(piece))
            return sum(map(lengths.__getitem__, pieces))

    def _encode(self, text: str) -> list[int]:
        (encoded,) = self.tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoded.ids
        return ids


def _has_unassigned(text: str) -> bool:
    """Whether a text has characters that are unassigned in Python's version of Unicode.

    At these characters, `regex` and the tokenizer may split the text differently, because they may use different
    versions of Unicode.
    """
    return not text.isascii() and any(unicodedata.category(char) == "Cn" for char in set(text))


@lru_cache(maxsize=2)
def token_counter(tokenizer: str | Path | None = None) -> TokenCounter:
    """Return the `TokenCounter` of a tokenizer from a cache, because loading a tokenizer takes long."""
    return TokenCounter(tokenizer)


def _piece_splitter(tokenizer: dict[str, Any]) -> Callable[[str], list[str]] | None:
    """Make a function that splits a text into the pieces of a byte-level BPE tokenizer such as Qwen2.5's.

    Args:
        tokenizer: content of `tokenizer.json`.

    Returns:
        The function, or None for any other kind of tokenizer.
    """
    steps = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers") or []
    if [step.get("type") for step in steps] != ["Split", "ByteLevel"] or tokenizer["model"].get("type") != "BPE":
        return None
    split, level = steps
    expression = split.get("pattern", {}).get("Regex")
    if not expression or split.get("behavior") != "Isolated" or split.get("invert"):
        return None
    normalizer = tokenizer.get("normalizer")
    if level.get("use_regex") or level.get("add_prefix_space") or normalizer not in (None, {"type": "NFC"}):
        return None
    try:
        pattern = regex.compile(expression)
    except regex.error:
        return None
    if pattern.groups:
        return None
    if normalizer is None:
        return pattern.findall
    return lambda text: pattern.findall(text if text.isascii() else unicodedata.normalize("NFC", text))
