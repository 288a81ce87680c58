"""Find e-mail addresses, public IP addresses, and numbers of bank accounts and cards in a text."""

from __future__ import annotations

import ipaddress
import re

from data_builders.cleaning.findings import Finding, find_all

_EMAIL_DOMAIN = re.compile(r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![\w@(-]|\.[A-Za-z])")
_EXPRESSION = re.compile(r"@(?:self|cls|this|np|torch|other)\.|@[A-Z][a-z]+(?:[A-Z]|\.[A-Z])|@.*[a-z][A-Z]")
"""Matches code that looks like an e-mail address: `x@self.weight` is a product, and `this@Main` is a label."""
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_CARD = re.compile(
    r"(?<![\w.+-])(?:4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|6(?:011|5\d{2})|3[47]\d{2})(?:[ -]?\d{4}){2}(?:[ -]?\d{3,4})(?![\w-]|\.\d)"
)
_CARD_WORDS = re.compile(r"card|visa|master|amex|\bpan\b|\bcv[cv]\b|karte", re.IGNORECASE)
_TEST_CARDS = frozenset({"4111111111111111", "4242424242424242", "4012888888881881", "5555555555554444",
                         "5105105105105100", "378282246310005", "371449635398431", "6011111111111117",
                         "4000056655665556", "4000000000000002"})  # fmt: skip
"""Card numbers that payment providers document for tests. They are not personal data."""
_EMAIL_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-")
_IGNORED_EMAIL = re.compile(
    r"(?:no-?reply|do-?not-?reply|git)@|@(?:\w+[.-])*(?:example|test|invalid|localhost|domain)\.|@users\.noreply\.|"
    r"\.(?:png|jpe?g|gif|svg|css|js|py|ts|html?|json|md|txt|local|internal)\Z",
    re.IGNORECASE,
)
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_IPV6_HINT = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IPV6 = re.compile(r"[0-9A-Fa-f:]{6,39}(?![\w:]|\.\d)")
_IPV6_CHARACTERS = frozenset("0123456789abcdefABCDEF:")
_JOINS = frozenset({"_", ".", "-"})
_VERSION_BEFORE = re.compile(
    r"(?:(?:version|(?<![A-Za-z])(?:release|ver|build|v))_{0,2}|[<>~^=]=)[\s\"':=(]*\Z", re.IGNORECASE
)
_POPULAR_IPS = frozenset(
    ["8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "149.112.112.112", "208.67.222.222", "208.67.220.220",
     "4.2.2.2", "4.2.2.1", "8.26.56.26", "8.20.247.20", "76.76.19.19", "94.140.14.14", "94.140.15.15", "64.6.64.6",
     "64.6.65.6", "77.88.8.8", "77.88.8.1", "1.2.3.4", "2001:4860:4860::8888", "2001:4860:4860::8844",
     "2606:4700:4700::1111", "2606:4700:4700::1001", "2620:fe::fe"]
)  # fmt: skip
"""Addresses of public name servers and examples. They are not personal data."""


def emails(text: str) -> list[Finding]:
    """Find e-mail addresses, except examples and no-reply addresses."""
    findings = []
    for place in find_all(text, "@"):
        start = place
        while start and place - start < 64 and text[start - 1] in _EMAIL_CHARACTERS:
            start -= 1
        while start < place and not text[start].isalnum():
            start += 1
        domain = _EMAIL_DOMAIN.match(text, place) if start < place else None
        if domain is None or (text[start - 1 : start] in {"/", "@", ":"} and "//" in text[max(0, start - 40) : start]):
            continue
        if _EXPRESSION.match(text, place, domain.end()):
            continue
        if not _IGNORED_EMAIL.search(text, start, domain.end()):
            findings.append(Finding(start, domain.end(), "EMAIL"))
    return findings


def ip_addresses(text: str) -> list[Finding]:
    """Find public IPv4 and IPv6 addresses, except well-known addresses and version numbers."""
    findings = []
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
            findings.append(Finding(*match.span(), "IP_ADDRESS"))
    for match in _IPV6_HINT.finditer(text):
        start = _start_of_ipv6(text, match.start())
        address = _IPV6.match(text, start) if match.start() - start < 40 else None
        if address and address.end() >= match.end() and address.group().count(":") >= 3 and _is_public(address.group()):
            findings.append(Finding(*address.span(), "IPV6_ADDRESS"))
    return findings


def _is_version(address: str) -> bool:
    """Whether four numbers look like a version instead of an address: the last number is 0, or all are below 32.

    All four numbers are below 32 in nearly all versions (`11.5.8.4`), but only in one of 4,000 public addresses.
    """
    numbers = [int(number) for number in address.split(".")]
    return numbers[-1] == 0 or max(numbers) < 32


def _start_of_ipv6(text: str, place: int) -> int:
    """Return the start of the run of hexadecimal digits and colons around the offset `place`.

    At most 40 characters before `place` are searched.
    """
    lowest = max(0, place - 40)
    while place > lowest and text[place - 1] in _IPV6_CHARACTERS:
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


def account_numbers(text: str) -> list[Finding]:
    """Find IBANs, and card numbers in lines that mention cards, if their check digits are right."""
    findings = [Finding(*match.span(), "IBAN") for match in _IBAN.finditer(text) if _is_iban(match.group())]
    for match in _CARD.finditer(text):
        digits = re.sub(r"[ -]", "", match.group())
        line = text[text.rfind("\n", 0, match.start()) + 1 :].split("\n", 1)[0] if _is_luhn(digits) else ""
        if digits not in _TEST_CARDS and _CARD_WORDS.search(line):
            findings.append(Finding(*match.span(), "CARD"))
    return findings


def _is_iban(value: str) -> bool:
    """Whether the check digits of an IBAN are right (ISO 7064, modulo 97)."""
    compact = value.replace(" ", "")
    rotated = compact[4:] + compact[:4]
    return 15 <= len(compact) <= 34 and int("".join(str(int(char, 36)) for char in rotated)) % 97 == 1


def _is_luhn(digits: str) -> bool:
    """Whether the last digit of a card number is right (Luhn)."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        double = int(char) * (1 + place % 2)
        total += double - 9 * (double > 9)
    return total % 10 == 0
