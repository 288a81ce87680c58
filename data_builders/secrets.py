"""Find secrets and personal data in a text and replace them, so that the text still parses.

Private keys, tokens of known formats, passwords and keys by the name they are assigned to, credentials in URLs and
connection strings, random-looking strings, e-mail addresses and public IP addresses. A replacement is consistent
within a file: the same password is the same `REDACTED_PASSWORD_1` everywhere. Nothing found is ever printed or
stored; a report counts kinds.

Not covered: names of people, telephone numbers, postal addresses, and a weak password in running prose that nothing
near it calls a password.
"""

from __future__ import annotations

import ipaddress
import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from data_builders import secret_patterns as patterns

_CONFIGURATION = frozenset({"", "text", "yaml", "json", "shell", "dockerfile", "makefile", "batchfile", "powershell",
                            "html", "markdown", "restructuredtext", "tcsh", "cmake", "jupyter-notebook",
                            "rmarkdown"})  # fmt: skip
"""Languages in which a value may stand without quotes."""

_EMAIL_DOMAIN = re.compile(r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![\w@(-]|\.[A-Za-z])")
_EMAIL_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-")
_SPARED_EMAIL = re.compile(
    r"(?:no-?reply|do-?not-?reply|git)@|@(?:\w+[.-])*(?:example|test|invalid|localhost|domain)\.|@users\.noreply\.|"
    r"\.(?:png|jpe?g|gif|svg|css|js|py|ts|html?|json|md|txt|local|internal)\Z",
    re.IGNORECASE,
)
_ESCAPE = re.compile(r"\\[nrt]")
_REPLACED = re.compile(r"REDACTED_[A-Z_]+_\d+")
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_IPV6_HINT = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IPV6 = re.compile(r"[0-9A-Fa-f:]{6,39}(?![\w:]|\.\d)")
_IPV6_CHARACTERS = frozenset("0123456789abcdefABCDEF:")
_JOINS = frozenset({"_", ".", "-"})
_QUOTES = "\"'`\\"
_BEFORE_BARE = "=: \t"
_BLOB_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-")
_RUN_TABLE = np.zeros(256, dtype=np.int8)
_RUN_TABLE[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")] = 1
_ODD_TABLE = np.zeros(256, dtype=np.int8)
_ODD_TABLE[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")] = 1
_VERSION_BEFORE = re.compile(
    r"(?:(?<![A-Za-z])(?:version|release|ver|build|v)_{0,2}|[<>~^=]=)[\s\"':=(]*\Z", re.IGNORECASE
)
_POPULAR_IPS = frozenset(
    [
        "8.8.8.8",
        "8.8.4.4",
        "1.1.1.1",
        "1.0.0.1",
        "9.9.9.9",
        "149.112.112.112",
        "208.67.222.222",
        "208.67.220.220",
        "4.2.2.2",
        "4.2.2.1",
        "8.26.56.26",
        "8.20.247.20",
        "76.76.19.19",
        "94.140.14.14",
        "94.140.15.15",
        "64.6.64.6",
        "64.6.65.6",
        "77.88.8.8",
        "77.88.8.1",
        "1.2.3.4",
        "2001:4860:4860::8888",
        "2001:4860:4860::8844",
        "2606:4700:4700::1111",
        "2606:4700:4700::1001",
        "2620:fe::fe",
    ]
)
_DOCUMENTATION = ("192.0.2", "198.51.100", "203.0.113")
_TOKEN_HINTS, _CONTEXT_HINTS = (
    [(hint, number) for number, (_, hints, _) in enumerate(group) for hint in hints]
    for group in (patterns.TOKENS, patterns.CONTEXTS)
)
_BASE64_ENTROPY = 4.5
_HEX_ENTROPY = 3.0
"""Bits a character, detect-secrets' limits."""


@dataclass(frozen=True)
class Redacted:
    """A text without secrets, and how many values of each kind were replaced."""

    text: str
    counts: Counter[str]


@dataclass(frozen=True, order=True)
class Finding:
    """Where a secret is, in characters."""

    start: int
    end: int
    kind: str


def redact(text: str, language: str = "") -> Redacted:
    """Replace every secret and personal datum. `language` says whether values without quotes are looked at."""
    findings = find(text, language)
    counts: Counter[str] = Counter()
    if not findings:
        return Redacted(text, counts)
    names: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    parts, position = [], 0
    for finding in findings:
        value = text[finding.start : finding.end]
        if value not in names:
            numbers[finding.kind] += 1
            names[value] = _replacement(finding.kind, numbers[finding.kind])
        counts[finding.kind] += 1
        parts += [text[position : finding.start], names[value]]
        position = finding.end
    parts.append(text[position:])
    return Redacted(_everywhere("".join(parts), names), counts)


def _replacement(kind: str, number: int) -> str:
    if kind == "EMAIL":
        return f"person{number}@example.com"
    if kind == "IP_ADDRESS":
        block, host = divmod(number - 1, 254)
        return f"{_DOCUMENTATION[block % 3]}.{host + 1}"
    if kind == "IPV6_ADDRESS":
        return f"2001:db8::{number:x}"
    return f"REDACTED_{kind}_{number}"


def _everywhere(text: str, names: dict[str, str]) -> str:
    """Replace what was recognised in one place in all the others, where it is too odd to be an ordinary word."""
    for value, name in names.items():
        odd = len(value) >= 6 and not value.isalpha() and not value.isdigit() and "\n" not in value
        if odd and value in text and "@" not in name and not name[0].isdigit():
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])", name, text)
    return text


def find(text: str, language: str = "") -> list[Finding]:
    """All findings, sorted, without overlap (of two that overlap the earlier, then the longer one stays)."""
    text = _masked(text)
    found: list[Finding] = []
    if "PRIVATE KEY" in text or "Private-Lines" in text:
        found += _private_keys(text)
    runs = _runs(text)
    pool = "\n".join(text[max(0, start - 8) : end + 10] for start, end in runs)
    for group, hints, place in ((patterns.TOKENS, _TOKEN_HINTS, pool), (patterns.CONTEXTS, _CONTEXT_HINTS, text)):
        for number in sorted({number for hint, number in hints if hint in place}):
            kind, _, pattern = group[number]
            found += _matches(kind, pattern, text)
    found += _assigned(text, language)
    found += _random_looking(text, language, runs)
    found += _emails(text)
    found += _addresses(text)
    return _disjoint(found)


def _matches(kind: str, pattern: re.Pattern[str], text: str) -> list[Finding]:
    group = 1 if pattern.groups else 0
    return [
        Finding(match.start(group), match.end(group), kind)
        for match in pattern.finditer(text)
        if not _is_placeholder(match.group(group))
    ]


def _runs(text: str) -> list[tuple[int, int]]:
    """Runs of at least 16 of `[A-Za-z0-9_-]` that hold a digit or a capital: where a token could be."""
    codes = np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8)
    inside = np.zeros(len(codes) + 2, dtype=np.int8)
    inside[1:-1] = _RUN_TABLE[codes]
    edges = np.diff(inside)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    long = ends - starts >= 16
    starts, ends = starts[long], ends[long]
    odd = np.concatenate([[0], np.cumsum(_ODD_TABLE[codes], dtype=np.int64)])
    telling = odd[ends] > odd[starts]
    return list(zip(starts[telling].tolist(), ends[telling].tolist(), strict=True))


def _masked(text: str) -> str:
    """The text to search, of the same length: escapes such as `\\n` and earlier replacements are blank.

    Without it, the `n` of a line break inside a string literal would look like the first letter of a token.
    """
    if "\\" in text:
        text = _ESCAPE.sub("  ", text)
    if "REDACTED_" in text:
        text = _REPLACED.sub(lambda match: "\x1f" * len(match.group()), text)  # no value, nor a gap before one
    return text


def _disjoint(found: list[Finding]) -> list[Finding]:
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda item: (item.start, -item.end)):
        if not kept or finding.start >= kept[-1].end:
            kept.append(finding)
    return kept


def _private_keys(text: str) -> list[Finding]:
    """The base64 runs inside a key, so that quotes, escapes and line breaks around them stay as they are."""
    found = []
    for pattern in (patterns.PRIVATE_KEY, patterns.PUTTY_KEY):
        for match in pattern.finditer(text):
            start = match.start("body")
            found += [
                Finding(start + run.start(), start + run.end(), "PRIVATE_KEY")
                for run in re.finditer(r"[A-Za-z0-9+/=]{4,}", match.group("body"))
            ]
    return found


def _lower(text: str) -> str:
    """Lower case without a change of length: positions must stay valid."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(char.lower() if char.isascii() else char for char in text)


def _assigned(text: str, language: str) -> list[Finding]:
    lowered = _lower(text)
    found = []
    bare = language in _CONFIGURATION
    places = {
        place: stem for stem in (*patterns.WEAK_STEMS, *patterns.STRONG_STEMS) for place in _places(lowered, stem)
    }
    for place, stem in sorted(places.items()):
        strong = stem in patterns.STRONG_STEMS
        tail = patterns.NAME_TAIL.match(text, place + len(stem))
        assert tail is not None
        end = tail.end()
        if text[end : end + 1] not in patterns.AFTER_NAME or text[end : end + 1] == "":
            continue
        before = lowered[max(0, place - 14) : place]
        if stem == "key" and not before.rstrip("_.-").endswith(patterns.BEFORE_KEY):
            continue
        if stem == "auth" and (before[-1:].isalnum() or lowered[place + 4 : place + 5].isalnum()):
            continue
        if span := _value(text, end, strong, bare, "-" in before[-1:]):
            found.append(Finding(*span, "PASSWORD" if strong else "SECRET"))
    return found


def _places(text: str, word: str) -> list[int]:
    places, place = [], text.find(word)
    while place >= 0:
        places.append(place)
        place = text.find(word, place + len(word))
    return places


def _value(text: str, end: int, strong: bool, bare: bool, dashed: bool) -> tuple[int, int] | None:
    """The span of the value that the name ending at `end` is given, if it looks like a secret."""
    if match := patterns.QUOTED_VALUE.match(text, end):
        loose = strong and "," not in text[end : match.start(2)] and "(" not in text[end : match.start(2)]
        return match.span(2) if _looks_secret(match.group(2), loose) else None
    for pattern in (patterns.XML_VALUE, patterns.XML_ATTRIBUTE_VALUE):
        if match := pattern.match(text, end):
            return match.span(1) if _looks_secret(match.group(1), strong) else None
    if bare and (match := patterns.BARE_VALUE.match(text, end)):
        return match.span(1) if _looks_secret(match.group(1), strong) else None
    if dashed and (match := patterns.ARGUMENT_VALUE.match(text, end)):
        return match.span(1) if _looks_secret(match.group(1), False) else None
    for pattern in (patterns.SENTENCE_VALUE, *((patterns.PROSE_VALUE,) if bare else ())):
        if strong and (match := pattern.match(text, end)) and _mixed(match.group(1)):
            return match.span(1)
    # `Server=db;Password=...;` inside a longer string
    if match := patterns.STRING_VALUE.match(text, end):
        return match.span(1) if _looks_secret(match.group(1), strong) else None
    return None


def _is_placeholder(value: str) -> bool:
    return bool(patterns.PLACEHOLDER.match(value) or patterns.TEMPLATE.search(value))


def _mixed(value: str) -> bool:
    """Letters with digits among them, as no word of a sentence has them."""
    return any(char.isdigit() for char in value) and _looks_secret(value, False)


def _looks_secret(value: str, strong: bool) -> bool:
    """`strong`: the name says password, so any word will do; else the value itself has to look random."""
    if _is_placeholder(value) or not any(char.isalnum() for char in value) or len(set(value)) < 3:
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
        and not re.fullmatch(r"[A-Za-z]?[a-z]*(?:[A-Z_. :/-]+[a-z]*)*|[A-Z_.-]+", value)
    )


def _random_looking(text: str, language: str, runs: list[tuple[int, int]]) -> list[Finding]:
    """Long strings between quotes (or alone at the end of a line of configuration) with much entropy."""
    found = []
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
            found.append(Finding(start, end, "RANDOM_STRING"))
    return found


def _is_sum(text: str, start: int, end: int) -> bool:
    """Whether what stands before a hexadecimal value calls it a checksum or a commit."""
    hexadecimal = all(char in "0123456789abcdefABCDEF" for char in text[start:end])
    return hexadecimal and patterns.SUM_BEFORE.search(text, max(0, start - 24), start) is not None


def _is_random(value: str) -> bool:
    if sum(left < right for left, right in itertools.pairwise(value)) > 0.85 * len(value):
        return False  # an alphabet
    if len(set(value)) < 8 or not patterns.BLOB.match(value) or patterns.NOT_A_BLOB.search(value):
        return False
    if re.fullmatch(r"[0-9a-fA-F]+", value):
        return not value.isdigit() and _entropy(value) > _HEX_ENTROPY and "0123456789" not in value
    return len(value) >= 20 and _entropy(value) > _BASE64_ENTROPY and "abcdefgh" not in value.lower()


def _entropy(value: str) -> float:
    """Shannon entropy in bits a character."""
    length = len(value)
    return -sum(count / length * math.log2(count / length) for count in Counter(value).values())


def _emails(text: str) -> list[Finding]:
    found = []
    for place in _places(text, "@"):
        start = place
        while start and place - start < 64 and text[start - 1] in _EMAIL_CHARACTERS:
            start -= 1
        while start < place and not text[start].isalnum():
            start += 1
        domain = _EMAIL_DOMAIN.match(text, place) if start < place else None
        if domain is None or (text[start - 1 : start] in {"/", "@", ":"} and "//" in text[max(0, start - 40) : start]):
            continue
        if not _SPARED_EMAIL.search(text, start, domain.end()):
            found.append(Finding(start, domain.end(), "EMAIL"))
    return found


def _addresses(text: str) -> list[Finding]:
    found = []
    for match in _IPV4.finditer(text):
        value = match.group()
        before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 2]
        if (
            before.isalnum()
            or before in _JOINS
            or after[:1].isalnum()
            or after[:1] in {"_", "-"}
            or (after[:1] == "." and after[1:].isdigit())
        ):
            continue
        if value in _POPULAR_IPS or _VERSION_BEFORE.search(text, max(0, match.start() - 16), match.start()):
            continue
        if _is_public(value) and not _is_version(value):
            found.append(Finding(*match.span(), "IP_ADDRESS"))
    for match in _IPV6_HINT.finditer(text):
        whole = _IPV6.match(text, _left(text, match.start()))
        if whole and whole.end() >= match.end() and whole.group().count(":") >= 3 and _is_public(whole.group()):
            found.append(Finding(*whole.span(), "IPV6_ADDRESS"))
    return found


def _is_version(address: str) -> bool:
    """Whether four numbers are a version rather than the address of a host: the last is 0, or all are small.

    Of all public addresses one in four thousand has only numbers below 32; of versions (`11.5.8.4`), nearly all have.
    """
    numbers = [int(number) for number in address.split(".")]
    return numbers[-1] == 0 or max(numbers) < 32


def _left(text: str, place: int) -> int:
    """The start of the run of hexadecimal digits and colons around `place`."""
    while place and text[place - 1] in _IPV6_CHARACTERS:
        place -= 1
    return place


def _is_public(value: str) -> bool:
    if value.lower() in _POPULAR_IPS:
        return False
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast
