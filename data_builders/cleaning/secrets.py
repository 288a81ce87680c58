"""Find secrets and personal data in a text and replace them so that the text still parses.

The module finds private keys, tokens of known formats, values that are assigned to names such as `password` or
`api_key`, credentials in URLs and connection strings, random-looking strings, e-mail addresses and public IP addresses.
Within a file, a value always gets the same replacement, for example `REDACTED_PASSWORD_1`. The values are never printed
or stored. Reports only count the values of each kind.

The module does not find names of people, telephone numbers, postal addresses, or weak passwords in prose without a
word like "password" next to the value.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from data_builders.cleaning import secret_patterns as patterns
from data_builders.cleaning.findings import Finding
from data_builders.cleaning.personal_data import account_numbers, emails, ip_addresses
from data_builders.cleaning.secret_values import assigned_values, is_placeholder, random_strings

_ESCAPE = re.compile(r"\\[nrt]")
_IDENTIFIER = re.compile(r"[a-z]+(?:_[a-z]+)*_?\d{0,3}")
"""Matches values that could be the name of a variable in another place of the file."""
_REPLACED = re.compile(r"REDACTED_[A-Z_]+_\d+")
_RUN_TABLE = np.zeros(256, dtype=np.int8)
_RUN_TABLE[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")] = 1
_TELLING_TABLE = np.zeros(256, dtype=np.int8)
_TELLING_TABLE[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")] = 1
_PERSONAL = frozenset({"EMAIL", "IP_ADDRESS", "IPV6_ADDRESS", "IBAN", "CARD"})
_DOCUMENTATION = ("192.0.2", "198.51.100", "203.0.113")
"""Address blocks that are reserved for documentation (RFC 5737)."""
_TOKEN_HINTS, _CONTEXT_HINTS = (
    [(hint, number) for number, (_, hints, _) in enumerate(group) for hint in hints]
    for group in (patterns.TOKENS, patterns.CONTEXTS)
)


@dataclass(frozen=True)
class Redacted:
    """A text in which secrets and personal data were replaced."""

    text: str
    counts: Counter[str]
    """Number of replaced values by kind."""


def redact(text: str, language: str = "") -> Redacted:
    """Replace all secrets and personal data in a text.

    Args:
        text: a text of any kind.
        language: language of the text. In configuration languages and shell, values without quotes are searched too.
    """
    findings = find_secrets(text, language)
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
    return Redacted(_replace_elsewhere("".join(parts), names), counts)


def _replacement(kind: str, number: int) -> str:
    if kind == "EMAIL":
        return f"person{number}@example.com"
    if kind == "IP_ADDRESS":
        block, host = divmod(number - 1, 254)
        return f"{_DOCUMENTATION[block % 3]}.{host + 1}"
    if kind == "IPV6_ADDRESS":
        return f"2001:db8::{number:x}"
    if kind == "CARD":
        return f"1{number:015d}"  # digits, because the value may be a number
    return f"REDACTED_{kind}_{number}"


def _replace_elsewhere(text: str, names: dict[str, str]) -> str:
    """Replace each key of `names` by its value in the whole text. Keys that may be ordinary words are skipped."""
    for value, name in names.items():
        unusual = (
            not _IDENTIFIER.fullmatch(value)
            and len(value) >= 6
            and not value.isalpha()
            and not value.isdigit()
            and "\n" not in value
        )
        if unusual and value in text and "@" not in name and not name[0].isdigit():
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])", name, text)
    return text


def find_secrets(text: str, language: str = "") -> list[Finding]:
    """Find secrets and personal data.

    Args:
        text: a text of any kind.
        language: language of the text, see `redact`.

    Returns:
        Findings in the order of the text, without overlap. Of overlapping findings, only the first is returned. Of
        findings that start at the same place, only the longest is returned.
    """
    text = _masked(text)
    findings: list[Finding] = []
    if "PRIVATE KEY" in text or "Private-Lines" in text:
        findings += _private_keys(text)
    runs = _runs(text)
    around_runs = "\n".join(text[max(0, start - 8) : end + 10] for start, end in runs)
    groups = ((patterns.TOKENS, _TOKEN_HINTS, around_runs), (patterns.CONTEXTS, _CONTEXT_HINTS, text))
    for group, hints, searched in groups:
        for number in sorted({number for hint, number in hints if hint in searched}):
            kind, _, pattern = group[number]
            findings += _matches(kind, pattern, text)
    findings += [*assigned_values(text, language), *random_strings(text, language, runs)]
    findings += [*emails(text), *ip_addresses(text), *account_numbers(text)]
    return _disjoint(findings + _continued(text, findings))


def _continued(text: str, findings: list[Finding]) -> list[Finding]:
    """Find the remaining literals of secrets that are split into several concatenated string literals, of which
    `findings` holds the first.
    """
    parts = []
    for finding in findings:
        if finding.kind in _PERSONAL:
            continue
        while match := patterns.CONTINUED.match(text, finding.end):
            if not any(char.isdigit() for char in match.group(1)) or is_placeholder(match.group(1)):
                break
            finding = Finding(*match.span(1), finding.kind)
            parts.append(finding)
    return parts


def _matches(kind: str, pattern: re.Pattern[str], text: str) -> list[Finding]:
    group = 1 if pattern.groups else 0
    return [
        Finding(match.start(group), match.end(group), kind)
        for match in pattern.finditer(text)
        if not is_placeholder(match.group(group))
    ]


def _runs(text: str) -> list[tuple[int, int]]:
    """Find the places where tokens can be: runs of at least 16 characters `[A-Za-z0-9_-]` with a digit or a capital."""
    codes = np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8)
    inside = np.zeros(len(codes) + 2, dtype=np.int8)
    inside[1:-1] = _RUN_TABLE[codes]
    edges = np.diff(inside)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    long = ends - starts >= 16
    starts, ends = starts[long], ends[long]
    telling_before = np.concatenate([[0], np.cumsum(_TELLING_TABLE[codes], dtype=np.int64)])
    telling = telling_before[ends] > telling_before[starts]
    return list(zip(starts[telling].tolist(), ends[telling].tolist(), strict=True))


def _masked(text: str) -> str:
    """Mask escapes such as `\\n` and earlier replacements. The length of the text does not change.

    Otherwise, the `n` of an escaped line break would look like the first letter of a token.
    """
    if "\\" in text:
        text = _ESCAPE.sub("  ", text)
    if "REDACTED_" in text:
        text = _REPLACED.sub(lambda match: "\x1f" * len(match.group()), text)  # neither a value nor white space
    return text


def _disjoint(findings: list[Finding]) -> list[Finding]:
    disjoint: list[Finding] = []
    for finding in sorted(findings, key=lambda item: (item.start, -item.end)):
        if not disjoint or finding.start >= disjoint[-1].end:
            disjoint.append(finding)
    return disjoint


def _private_keys(text: str) -> list[Finding]:
    """Find the base64 runs inside private keys. Quotes, escapes and line breaks are not part of the findings."""
    findings = []
    for pattern in (patterns.PRIVATE_KEY, patterns.PUTTY_KEY):
        for match in pattern.finditer(text):
            runs, position = [], match.end()
            while run := patterns.KEY_RUN.match(text, _after_gap(text, position)):
                runs.append(run)
                position = run.end()
            if any(_is_key_line(run.group()) for run in runs):
                findings += [Finding(*run.span(), "PRIVATE_KEY") for run in runs]
    return findings


def _after_gap(text: str, position: int) -> int:
    gap = patterns.KEY_GAP.match(text, position)
    return gap.end() if gap else position


def _is_key_line(run: str) -> bool:
    """Whether a run of base64 characters is a line of a key instead of a word that follows the header of a key."""
    return len(run) >= 40 or (len(run) >= 16 and any(char.isdigit() for char in run) and run.lower() != run)
