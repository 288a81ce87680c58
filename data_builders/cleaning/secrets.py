"""Find secrets and personal data in a text and replace them so that the text still parses.

The module finds private keys, tokens of known formats, values that are assigned to names such as `password` or
`api_key`, passwords in calls, commands and tables, credentials in URLs and connection strings, random-looking strings,
e-mail addresses, telephone numbers, bank accounts, cards and public IP addresses; on request also internal host names.
Within a file, a value always gets the same replacement, for example `REDACTED_PASSWORD_1`. The values are never printed
or stored. Reports only count the values of each kind.

The module does not find names of people, postal addresses, or weak passwords in prose without a word like "password"
next to the value.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from data_builders.cleaning import secret_patterns as patterns
from data_builders.cleaning.command_secrets import COMMANDS
from data_builders.cleaning.credential_calls import CALLS
from data_builders.cleaning.credential_tables import tabled_secrets
from data_builders.cleaning.email_addresses import emails
from data_builders.cleaning.findings import Finding
from data_builders.cleaning.key_material import private_keys
from data_builders.cleaning.network_addresses import internal_hosts, ip_addresses
from data_builders.cleaning.personal_data import account_numbers, phone_numbers
from data_builders.cleaning.placeholders import is_placeholder
from data_builders.cleaning.redaction_settings import DEFAULT, RedactionSettings
from data_builders.cleaning.secret_contexts import CONTEXTS
from data_builders.cleaning.secret_values import CONFIGURATION, assigned_values, random_strings
from data_builders.cleaning.text_index import TextIndex
from data_builders.cleaning.token_formats import TOKENS

_ESCAPE = re.compile(r"\\[nrt]")
_IDENTIFIER = re.compile(r"[a-z]+(?:_[a-z]+)*_?\d{0,3}")
"""Matches values that could be the name of a variable in another place of the file."""
_REPLACED = re.compile(r"REDACTED_[A-Z_]+_\d+")
_DOCUMENTATION = ("192.0.2", "198.51.100", "203.0.113")
"""Address blocks that are reserved for documentation (RFC 5737)."""


@dataclass(frozen=True)
class Redacted:
    """A text in which secrets and personal data were replaced."""

    text: str
    counts: Counter[str]
    """Number of replaced values by kind."""


def redact(text: str, language: str = "", settings: RedactionSettings = DEFAULT) -> Redacted:
    """Replace all secrets and personal data in a text.

    Args:
        text: a text of any kind.
        language: language of the text. In configuration languages and shell, values without quotes are searched too.
        settings: what is replaced.
    """
    findings = find_secrets(text, language, settings)
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
            names[value] = _replacement(finding.kind, numbers[finding.kind], value)
        counts[finding.kind] += 1
        parts += [text[position : finding.start], names[value]]
        position = finding.end
    parts.append(text[position:])
    return Redacted(_replace_elsewhere("".join(parts), names), counts)


def _replacement(kind: str, number: int, value: str) -> str:
    """Return the replacement of a value: of the same form, so that the text around it stays valid."""
    if kind == "EMAIL":
        return f"person{number}{'%40' if '%40' in value and '@' not in value else '@'}example.com"
    if kind == "IP_ADDRESS":
        block, host = divmod(number - 1, 254)
        return f"{_DOCUMENTATION[block % 3]}.{host + 1}"
    if kind == "IPV6_ADDRESS":
        return f"2001:db8::{number:x}"
    if kind == "HOST":
        return f"host{number}.example.com"
    if kind == "PHONE":
        return f"+1 555 01{number:05d}"
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
        if unusual and value in text and name.startswith("REDACTED_"):
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])", name, text)
    return text


def find_secrets(text: str, language: str = "", settings: RedactionSettings = DEFAULT) -> list[Finding]:
    """Find secrets and personal data.

    Args:
        text: a text of any kind.
        language: language of the text, see `redact`.
        settings: what is searched.

    Returns:
        Findings in the order of the text, without overlap. Of overlapping findings, only the first is returned. Of
        findings that start at the same place, only the longest is returned.
    """
    index = TextIndex(_masked(text))
    text = index.text
    around_runs = "\n".join(text[max(0, start - 8) : end + 10] for start, end in index.runs)
    findings = [
        *private_keys(index), *TOKENS.find(index, around_runs), *CONTEXTS.find(index), *CALLS.find(index),
        *COMMANDS.find(index), *tabled_secrets(index, language in CONFIGURATION),
        *assigned_values(index, language), *random_strings(index, language),
    ]  # fmt: skip
    findings += _continued(text, findings)
    findings += [*emails(index), *ip_addresses(index), *account_numbers(index)]
    if settings.phone_numbers:
        findings += phone_numbers(index)
    if settings.internal_hosts:
        findings += internal_hosts(index, settings.internal_hosts)
    return _disjoint(findings)


def _continued(text: str, findings: list[Finding]) -> list[Finding]:
    """Find the remaining literals of secrets that are split into several concatenated string literals, of which
    `findings` holds the first.
    """
    parts = []
    for finding in findings:
        while match := patterns.CONTINUED.match(text, finding.end):
            if not any(char.isdigit() for char in match.group(1)) or is_placeholder(match.group(1)):
                break
            finding = Finding(*match.span(1), finding.kind)
            parts.append(finding)
    return parts


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
