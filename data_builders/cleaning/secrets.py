"""Find secrets and personal data in a text and replace them, so that the text still parses.

Private keys, tokens of known formats, passwords and keys by the name they are assigned_values to, credentials in URLs and
connection strings, random-looking strings, e-mail ip_addresses and public IP ip_addresses. A replacement is consistent
within a file: the same password is the same `REDACTED_PASSWORD_1` everywhere. Nothing found is ever printed or
stored; a report counts kinds.

Not covered: names of people, telephone numbers, postal ip_addresses, and a weak password in running prose that nothing
near it calls a password.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from data_builders.cleaning import secret_patterns as patterns
from data_builders.cleaning.personal_data import emails, ip_addresses
from data_builders.cleaning.secret_values import assigned_values, is_placeholder, random_strings

_ESCAPE = re.compile(r"\\[nrt]")
_REPLACED = re.compile(r"REDACTED_[A-Z_]+_\d+")
_RUN_TABLE = np.zeros(256, dtype=np.int8)
_RUN_TABLE[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")] = 1
_ODD_TABLE = np.zeros(256, dtype=np.int8)
_ODD_TABLE[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")] = 1
_PERSONAL = frozenset({"EMAIL", "IP_ADDRESS", "IPV6_ADDRESS"})
_DOCUMENTATION = ("192.0.2", "198.51.100", "203.0.113")
_TOKEN_HINTS, _CONTEXT_HINTS = (
    [(hint, number) for number, (_, hints, _) in enumerate(group) for hint in hints]
    for group in (patterns.TOKENS, patterns.CONTEXTS)
)


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
    spans = [
        *assigned_values(text, language),
        *random_strings(text, language, runs),
        *emails(text),
        *ip_addresses(text),
    ]
    found += [Finding(*span) for span in spans]
    return _disjoint(found + _continued(text, found))


def _continued(text: str, found: list[Finding]) -> list[Finding]:
    """The other parts of secrets whose string is put together from several."""
    more = []
    for finding in found:
        if finding.kind in _PERSONAL:
            continue
        while match := patterns.CONTINUED.match(text, finding.end):
            if not any(char.isdigit() for char in match.group(1)) or is_placeholder(match.group(1)):
                break
            finding = Finding(*match.span(1), finding.kind)
            more.append(finding)
    return more


def _matches(kind: str, pattern: re.Pattern[str], text: str) -> list[Finding]:
    group = 1 if pattern.groups else 0
    return [
        Finding(match.start(group), match.end(group), kind)
        for match in pattern.finditer(text)
        if not is_placeholder(match.group(group))
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
