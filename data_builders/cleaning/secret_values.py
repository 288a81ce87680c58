"""Find secrets without a known format: values assigned to names such as `password`, and random strings."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from data_builders.cleaning import secret_patterns as patterns
from data_builders.cleaning.findings import Finding, find_all
from data_builders.cleaning.secret_judgement import entropy, is_mixed, looks_secret
from data_builders.cleaning.text_index import TextIndex, WordSet

CONFIGURATION = frozenset({"", "text", "yaml", "json", "shell", "dockerfile", "makefile", "batchfile", "powershell",
                           "html", "markdown", "restructuredtext", "tcsh", "cmake", "jupyter-notebook",
                           "rmarkdown", "tcl"})  # fmt: skip
"""Languages in which values may be written without quotes."""
_SHELLS = frozenset({"shell", "dockerfile", "makefile", "batchfile", "powershell", "tcsh"})
_HEX_PARTS = re.compile(r"[0-9a-f]{32,64}(?:-[0-9a-f]{6,32}){1,3}")
_NO_BARE = re.compile(r"\d+\Z|/(?:[\w.-]+/)+[\w.-]*\Z|[a-z]+(?:_[a-z]+)+\Z|[A-Za-z_][\w.]*[(\[]|[a-z]+\[")
"""Values without quotes that are numbers, paths, variables or calls, which a string must not replace."""
_QUOTES = "\"'`\\"
_BEFORE_BARE = re.compile(r"[=:][ \t]*\Z|^[ \t]*(?:- )?\Z", re.MULTILINE)
_BLOB_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-")
_BASE64_ENTROPY = 4.5
_HEX_ENTROPY = 3.0
"""Minimum entropy of random strings in bits per character; the limits are from detect-secrets."""
_SHORTEST_HEX = 32
"""Number of digits of the shortest keys in hexadecimal."""
_ENCODED_DATA = re.compile(
    r"1f8b08|789c|504b0304|89504e47|ffd8ff|47494638|25504446|7f454c46|cafebabe|(?:[2-7][0-9a-f]){16,}\Z", re.IGNORECASE
)
"""Hexadecimal digits of compressed data, of pictures and other files, and of ASCII text."""
_NAME_START = re.compile(r"[\w.-]*\Z")
_HELP = re.compile(r"\b(?:usage|echo|help|print|printf)\b", re.IGNORECASE)
_STEMS = WordSet([*patterns.SHORT_STEMS[:1], *patterns.WEAK_STEMS, *patterns.STRONG_STEMS])


def assigned_values(index: TextIndex, language: str) -> list[Finding]:
    """Find values that are assigned to names such as `password` and `api_key`.

    Args:
        index: the text to search.
        language: language of the text. In configuration languages, values without quotes are found too.
    """
    text, lowered = index.text, index.lowered
    findings = []
    stems = {_STEMS.words[number] for number in _STEMS.candidates(index)}
    ordered = (*patterns.SHORT_STEMS, *patterns.WEAK_STEMS, *patterns.STRONG_STEMS)
    places = {place: stem for stem in ordered if stem in stems or len(stem) < 3 for place in find_all(lowered, stem)}
    for place, stem in sorted(places.items()):
        name = _name(text, lowered, place, stem)
        if name is None:
            continue
        if span := _value(text, name, language):
            findings.append(Finding(*span, "PASSWORD" if name.strong or stem in patterns.SHORT_STEMS else "SECRET"))
    return findings


@dataclass(frozen=True)
class _Name:
    """The name of a variable or setting that can hold a secret."""

    start: int
    end: int
    strong: bool
    """Whether the name stands for a password. If so, any word that is assigned is a secret."""
    phrase: bool
    """Whether the name stands for a secret that people choose, for example `JWT_SECRET`."""


def _name(text: str, lowered: str, place: int, stem: str) -> _Name | None:
    """Return the name around a stem such as `password`, or None if no secret can be assigned to the name."""
    tail = place + len(stem)
    match = patterns.NAME_TAIL.match(text, tail)
    assert match is not None
    end = match.end()
    if text[end : end + 1] not in patterns.AFTER_NAME or text[end : end + 1] == "":
        return None
    short = stem in patterns.SHORT_STEMS
    if short and not (end == tail and _starts_word(text, lowered, place)):
        return None
    if _is_about_a_secret(text, lowered, place, tail, end):
        return None
    before = lowered[max(0, place - 14) : place]
    if stem == "key" and not before.rstrip("_.-").endswith(patterns.BEFORE_KEY):
        return None
    if stem == "auth" and (before[-1:].isalnum() or lowered[tail : tail + 1].isalnum()):
        return None
    phrase = stem == "secret" and before.rstrip("_-.").endswith(patterns.BEFORE_PHRASE) and end - tail <= 4
    start = _NAME_START.search(text, max(0, place - 60), place)
    return _Name(start.start() if start else place, end, stem in patterns.STRONG_STEMS, phrase)


def _starts_word(text: str, lowered: str, place: int) -> bool:
    """Whether a word starts at an offset: after a sign, after an underscore, or with a capital after a small letter."""
    before = text[place - 1 : place]
    if not before.isalnum() or (before.islower() and text[place].isupper()):
        return True
    return lowered.endswith(patterns.BEFORE_PASS, max(0, place - 12), place)


def _is_about_a_secret(text: str, lowered: str, place: int, tail: int, end: int) -> bool:
    """Whether a name stands for something about a secret, such as `password_file` and `password.encode(`.

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


def _value(text: str, name: _Name, language: str) -> tuple[int, int] | None:
    """Return the span of the secret that is assigned to a name, or None if no secret is assigned."""
    bare = language in CONFIGURATION
    if match := patterns.NAMED_VALUE.match(text, name.end):
        return _span(match, 1, name)
    if match := patterns.TRIPLE_VALUE.match(text, name.end):
        return _span(match, 2, name)
    if match := patterns.FALLBACK_VALUE.match(text, name.end):
        return match.span(2) if is_mixed(match.group(2)) else None
    if match := patterns.QUOTED_VALUE.match(text, name.end):
        return match.span("value") if _is_quoted_secret(text, match, name) else None
    for pattern in (patterns.XML_VALUE, patterns.XML_ATTRIBUTE_VALUE):
        if match := pattern.match(text, name.end):
            return _span(match, 1, name)
    if bare and (span := _bare_value(text, name, language)):
        return span
    return _value_in_text(text, name, bare)


def _span(match: re.Match[str], group: int, name: _Name) -> tuple[int, int] | None:
    """Return the span of a group if the group is a secret."""
    return match.span(group) if _is_secret(match.group(group), name) else None


def _is_secret(value: str, name: _Name) -> bool:
    if looks_secret(value, name.strong):
        return True
    return name.phrase and len(value) >= 8 and not value.isalpha() and " " not in value and looks_secret(value, True)


def _is_quoted_secret(text: str, match: re.Match[str], name: _Name) -> bool:
    """Whether a string literal after a name is a secret that is assigned to the name."""
    value, sign = match.group("value"), match.group("sign")
    if sign in {"||", "??", "or", "?:"}:
        return is_mixed(value)
    if sign == "," and not _is_pair(text, match, name):
        return False
    if sign == "," or "(" in text[match.start() : match.start("value")]:
        return looks_secret(value, False) or (name.strong and is_mixed(value))
    return _is_secret(value, name)


def _is_pair(text: str, match: re.Match[str], name: _Name) -> bool:
    """Whether `"name", "value"` are the arguments of a call, or the only two elements of a tuple or list."""
    quote = text[name.start - 1 : name.start]
    if not quote or quote not in "\"'`":
        return True
    before = text[max(0, name.start - 40) : name.start - 1].rstrip(" \t\r\n:bru")
    if before[-1:] not in {"(", "[", "{"}:
        return before[-1:] != ","
    called = before[-1:] == "(" and (before[-2:-1].isalnum() or before[-2:-1] in {"_", "!", "]"})
    return called or text[match.end() : match.end() + 1] in {")", "]", "}"}


def _bare_value(text: str, name: _Name, language: str) -> tuple[int, int] | None:
    """Return the span of the secret without quotes that is assigned to a name, or None."""
    if match := patterns.BARE_VALUE.match(text, name.end):
        return None if _NO_BARE.match(match.group(1)) else _span(match, 1, name)
    for pattern in (patterns.NAMED_BARE_VALUE, patterns.BLOCK_VALUE):
        if match := pattern.match(text, name.end):
            return _span(match, 1, name)
    line = text.rfind("\n", 0, name.end) + 1
    if text.startswith("ENV ", line) and (match := patterns.ENV_VALUE.match(text, name.end)):
        return _span(match, 1, name)
    if language in _SHELLS and name.strong and not _HELP.search(text, line, name.start):
        dashed = text[name.start : name.start + 2] == "--" or text[name.start - 1 : name.start] == "-"
        for pattern in (patterns.SHELL_ASSIGNED, *((patterns.SHELL_OPTION,) if dashed else ())):
            if (match := pattern.match(text, name.end)) and not _NO_BARE.match(match.group(1)):
                return _span(match, 1, name)
    return None


def _value_in_text(text: str, name: _Name, bare: bool) -> tuple[int, int] | None:
    """Return the span of the secret after a name in an argument list, in a sentence or in a connection string."""
    dashed = text[name.start : name.start + 1] == "-"
    if dashed and (match := patterns.ARGUMENT_VALUE.match(text, name.end)):
        return match.span(1) if looks_secret(match.group(1), False) else None
    line = text.rfind("\n", 0, name.end) + 1
    prose = name.strong and (
        bare or (name.end - line < 300 and patterns.COMMENT.search(text[line : name.end]) is not None)
    )
    for pattern in (patterns.SENTENCE_VALUE, *((patterns.PROSE_VALUE,) if prose else ())):
        if name.strong and (match := pattern.match(text, name.end)) and is_mixed(match.group(1)):
            return match.span(1)
    # `Server=db;Password=...;` inside a longer string
    if (match := patterns.STRING_VALUE.match(text, name.end)) and (bare or _inside_string(text[line : name.end])):
        return _span(match, 1, name)
    return None


def _inside_string(before: str) -> bool:
    """Whether a line that starts with `before` continues inside a string literal."""
    return any(before.count(quote) % 2 for quote in "\"'`")


def random_strings(index: TextIndex, language: str) -> list[Finding]:
    """Find long strings of high entropy: in quotes or, in configuration languages, also at the end of a line.

    Args:
        index: the text to search.
        language: language of the text.
    """
    text, findings = index.text, []
    bare = language in CONFIGURATION
    last = 0
    for start, end in index.runs:
        if start < last:
            continue
        while start and text[start - 1] in "+/":
            start -= 1
        while end < len(text) and text[end] in _BLOB_CHARACTERS:
            end += 1
        last = end
        before, after = text[start - 1 : start], text[end : end + 1]
        quoted = before in _QUOTES and after in _QUOTES and before != "" and after != ""
        alone = bare and end - start >= 24 and after in "\r\n" and _BEFORE_BARE.search(text, max(0, start - 4), start)
        if (quoted or alone) and _is_random(text[start:end]) and not _is_sum(text, start, end):
            findings.append(Finding(start, end, "RANDOM_STRING"))
    return findings


def _is_sum(text: str, start: int, end: int) -> bool:
    """Whether the text before a value shows that the value is a checksum or a commit. Go's checksums follow `h1:`."""
    if text.startswith("h1:", start - 3):
        return True
    hexadecimal = all(char in "0123456789abcdefABCDEF" for char in text[start:end])
    return hexadecimal and patterns.SUM_BEFORE.search(text, max(0, start - 60), start) is not None


def _is_random(value: str) -> bool:
    if sum(left < right for left, right in itertools.pairwise(value)) > 0.85 * len(value):
        return False  # an alphabet
    if len(set(value)) < 8 or not patterns.BLOB.match(value) or patterns.NOT_A_BLOB.search(value):
        return False
    if re.fullmatch(r"[0-9a-fA-F]+", value):
        return (
            len(value) >= _SHORTEST_HEX
            and not value.isdigit()
            and not _ENCODED_DATA.match(value)
            and entropy(value) > _HEX_ENTROPY
            and "0123456789" not in value
        )
    if _HEX_PARTS.fullmatch(value):
        return entropy(value) > _HEX_ENTROPY
    return len(value) >= 20 and entropy(value) > _BASE64_ENTROPY and "abcdefgh" not in value.lower()
