"""Find secrets without a known format: values assigned to names such as `password`, and random strings."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter

from data_builders.cleaning import secret_patterns as patterns
from data_builders.cleaning.findings import Finding, find_all

_CONFIGURATION = frozenset({"", "text", "yaml", "json", "shell", "dockerfile", "makefile", "batchfile", "powershell",
                            "html", "markdown", "restructuredtext", "tcsh", "cmake", "jupyter-notebook",
                            "rmarkdown"})  # fmt: skip
"""Languages in which values may be written without quotes."""
_HEX_PARTS = re.compile(r"[0-9a-f]{32,64}(?:-[0-9a-f]{6,32}){1,3}")
_NO_BARE = re.compile(r"\d+\Z|/(?:[\w.-]+/)+[\w.-]*\Z|[a-z]+(?:_[a-z]+)+\Z|[A-Za-z_][\w.]*[(\[]|[a-z]+\[")
"""Matches values without quotes that are numbers, paths, variables or calls. Replacing them by a string would break the
code."""
_QUOTES = "\"'`\\"
_BEFORE_BARE = "=: \t"
_BLOB_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-")
_BASE64_ENTROPY = 4.5
_HEX_ENTROPY = 3.0
"""Minimum entropy of random strings in bits per character; the limits are from detect-secrets."""


def _lower(text: str) -> str:
    """Convert a text to lower case without changing its length, so that offsets stay valid."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(char.lower() if char.isascii() else char for char in text)


def assigned_values(text: str, language: str) -> list[Finding]:
    """Find values that are assigned to names such as `password` and `api_key`.

    Args:
        text: the text to search.
        language: language of the text. In configuration languages, values without quotes are found too.
    """
    lowered = _lower(text)
    findings = []
    bare = language in _CONFIGURATION
    places = {
        place: stem
        for stem in (*patterns.SHORT_STEMS, *patterns.WEAK_STEMS, *patterns.STRONG_STEMS)
        for place in find_all(lowered, stem)
    }
    for place, stem in sorted(places.items()):
        strong, short = stem in patterns.STRONG_STEMS, stem in patterns.SHORT_STEMS
        tail = patterns.NAME_TAIL.match(text, place + len(stem))
        assert tail is not None
        end = tail.end()
        if text[end : end + 1] not in patterns.AFTER_NAME or text[end : end + 1] == "":
            continue
        before = lowered[max(0, place - 14) : place]
        if short and not (end == place + len(stem) and _starts_word(text, place)):
            continue
        if _is_about_a_secret(text, lowered, place, place + len(stem), end):
            continue
        if stem == "key" and not before.rstrip("_.-").endswith(patterns.BEFORE_KEY):
            continue
        if stem == "auth" and (before[-1:].isalnum() or lowered[place + 4 : place + 5].isalnum()):
            continue
        if span := _value(text, end, strong, bare, "-" in before[-1:]):
            findings.append(Finding(*span, "PASSWORD" if strong or short else "SECRET"))
    return findings


def _starts_word(text: str, place: int) -> bool:
    """Whether a word starts at an offset: after a sign, after an underscore, or with a capital after a small letter."""
    before = text[place - 1 : place]
    return not before.isalnum() or (before.islower() and text[place].isupper())


def _is_about_a_secret(text: str, lowered: str, place: int, tail: int, end: int) -> bool:
    """Whether a name describes a property of a secret instead of the secret, such as `password_file` and
    `password.encode(`.

    Args:
        text: the text to search.
        lowered: the text in lower case.
        place: offset of the stem of the name.
        tail: offset after the stem.
        end: offset after the name.
    """
    if patterns.NO_SECRET_TAIL.match(lowered, tail, end) or patterns.NO_SECRET_BEFORE.search(
        lowered, max(0, place - 14), place
    ):
        return True
    method = text[end : end + 1] == "(" and "." in text[tail:end]
    attribute = text[place - 1 : place] == "=" and text[end : end + 1] == ">"
    return method or attribute


def _value(text: str, end: int, strong: bool, bare: bool, dashed: bool) -> tuple[int, int] | None:
    """Return the span of the secret that is assigned to a name, or None if no secret is assigned.

    Args:
        text: the text to search.
        end: offset after the name.
        strong: whether the value is assigned to the name of a password. If so, any word is a secret.
        bare: whether the value may be written without quotes.
        dashed: whether the name follows a dash, as an option on a command line.
    """
    if match := patterns.NAMED_VALUE.match(text, end):
        return match.span(1) if _looks_secret(match.group(1), strong) else None
    if match := patterns.QUOTED_VALUE.match(text, end):
        loose = strong and "," not in text[end : match.start(2)] and "(" not in text[end : match.start(2)]
        return match.span(2) if _looks_secret(match.group(2), loose) else None
    for pattern in (patterns.XML_VALUE, patterns.XML_ATTRIBUTE_VALUE):
        if match := pattern.match(text, end):
            return match.span(1) if _looks_secret(match.group(1), strong) else None
    if bare and (match := patterns.BARE_VALUE.match(text, end)):
        return match.span(1) if _looks_secret(match.group(1), strong) and not _NO_BARE.match(match.group(1)) else None
    for pattern in (patterns.NAMED_BARE_VALUE, patterns.BLOCK_VALUE) if bare else ():
        if match := pattern.match(text, end):
            return match.span(1) if _looks_secret(match.group(1), strong) else None
    line = text.rfind("\n", 0, end) + 1
    if bare and text.startswith("ENV ", line) and (match := patterns.ENV_VALUE.match(text, end)):
        return match.span(1) if _looks_secret(match.group(1), strong) else None
    if dashed and (match := patterns.ARGUMENT_VALUE.match(text, end)):
        return match.span(1) if _looks_secret(match.group(1), False) else None
    prose = strong and (bare or patterns.COMMENT.search(text[line:end]) is not None)
    for pattern in (patterns.SENTENCE_VALUE, *((patterns.PROSE_VALUE,) if prose else ())):
        if strong and (match := pattern.match(text, end)) and _mixed(match.group(1)):
            return match.span(1)
    # `Server=db;Password=...;` inside a longer string
    if (match := patterns.STRING_VALUE.match(text, end)) and (bare or _inside_string(text[line:end])):
        return match.span(1) if _looks_secret(match.group(1), strong) else None
    return None


def _inside_string(before: str) -> bool:
    """Whether a line that starts with `before` continues inside a string literal."""
    return any(before.count(quote) % 2 for quote in "\"'`")


def is_placeholder(value: str) -> bool:
    """Whether a value is a placeholder for a secret, such as `changeme` and `${TOKEN}`."""
    return bool(patterns.PLACEHOLDER.match(value) or patterns.TEMPLATE.search(value))


def _mixed(value: str) -> bool:
    """Whether a value contains a digit and looks random, so that it is no word of a sentence."""
    return any(char.isdigit() for char in value) and _looks_secret(value, False)


def _looks_secret(value: str, strong: bool) -> bool:
    """Whether a value is a secret.

    If `strong` is true, the value is assigned to the name of a password, and any word is a secret. Otherwise, a secret
    must look random.
    """
    if is_placeholder(value) or not any(char.isalnum() for char in value) or len(set(value)) < 3:
        return False
    if patterns.VERSION.match(value) or patterns.EXPRESSION.match(value):
        return False
    if strong:
        return len(value) >= 4 and not (" " in value and (value.count(" ") > 6 or value.endswith((":", "?", "!", "."))))
    if len(value) < 6 or " " in value or "/" in value[:2] or patterns.NO_TOKEN.search(value):
        return False
    has_digit = any(char.isdigit() for char in value)
    has_letter = any(char.isalpha() for char in value)
    if has_digit and has_letter:
        return not re.fullmatch(r"[a-z]+(?:[_.-][a-z]+)*[_.-]?\d{1,2}|v\d+[\w.]*|[\w.]+\.\w{2,4}|\w+\[\w+\]", value)
    return (
        has_letter
        and len(value) >= 12
        and _entropy(value) > 3.3
        and not re.fullmatch(r"[A-Za-z]?[a-z]*(?:[A-Z_. :/-][a-z]*)*|[A-Z_.-]+", value)
    )


def random_strings(text: str, language: str, runs: list[tuple[int, int]]) -> list[Finding]:
    """Find long strings of high entropy: in quotes or, in configuration languages, also at the end of a line.

    Args:
        text: the text to search.
        language: language of the text.
        runs: start and end of each run of token characters in the text.
    """
    findings = []
    bare = language in _CONFIGURATION
    last = 0
    for start, end in runs:
        if start < last:
            continue
        while start and text[start - 1] in "+/":
            start -= 1
        while end < len(text) and text[end] in _BLOB_CHARACTERS:
            end += 1
        last = end
        before, after = text[start - 1 : start], text[end : end + 1]
        quoted = before in _QUOTES and after in _QUOTES and before != "" and after != ""
        alone = bare and end - start >= 24 and before in _BEFORE_BARE and before != "" and after in "\r\n"
        if (quoted or alone) and _is_random(text[start:end]) and not _is_sum(text, start, end):
            findings.append(Finding(start, end, "RANDOM_STRING"))
    return findings


def _is_sum(text: str, start: int, end: int) -> bool:
    """Whether the text before a value shows that the value is a checksum or a commit. Go's checksums follow `h1:`."""
    if text.startswith("h1:", start - 3):
        return True
    hexadecimal = all(char in "0123456789abcdefABCDEF" for char in text[start:end])
    return hexadecimal and patterns.SUM_BEFORE.search(text, max(0, start - 24), start) is not None


def _is_random(value: str) -> bool:
    if sum(left < right for left, right in itertools.pairwise(value)) > 0.85 * len(value):
        return False  # an alphabet
    if len(set(value)) < 8 or not patterns.BLOB.match(value) or patterns.NOT_A_BLOB.search(value):
        return False
    if re.fullmatch(r"[0-9a-fA-F]+", value):
        return not value.isdigit() and _entropy(value) > _HEX_ENTROPY and "0123456789" not in value
    if _HEX_PARTS.fullmatch(value):
        return _entropy(value) > _HEX_ENTROPY
    return len(value) >= 20 and _entropy(value) > _BASE64_ENTROPY and "abcdefgh" not in value.lower()


def _entropy(value: str) -> float:
    """Compute the Shannon entropy in bits per character."""
    length = len(value)
    return -sum(count / length * math.log2(count / length) for count in Counter(value).values())
