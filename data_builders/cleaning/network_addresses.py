"""Find public IP addresses and internal host names in a text."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from data_builders.cleaning.findings import Finding
from data_builders.cleaning.text_index import TextIndex

_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_IPV6_HINT = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IPV6 = re.compile(r"[0-9A-Fa-f:]{6,39}(?![\w:]|\.\d)")
_IPV6_CHARACTERS = frozenset("0123456789abcdefABCDEF:")
_JOINS = frozenset({"_", ".", "-"})
_VERSION_BEFORE = re.compile(
    r"(?:(?:version|(?<![A-Za-z])(?:release|ver|build|v))_{0,2}|[<>~^=]=)[\s\"':=(]*\Z", re.IGNORECASE
)
_OID_BEFORE = re.compile(r"(?:oid|object.?id\w*|asn\.?1|urn:oid)[\w\s\"':=(,.\[{]*\Z", re.IGNORECASE)
_HOST_BEFORE = re.compile(
    r"(?:@|://|(?:\b|_)(?:ssh|scp|ping|curl|telnet|nc|host(?:name|s)?|server|ip|ips|ip_?addr(?:ess)?|addr(?:ess)?|remote|peer|gateway|nameserver|dns|listen|bind|node|endpoint)\b[\s\"':=(\[,]{0,4})\Z",
    re.IGNORECASE,
)
"""What stands before an address that could also be a version."""
_NUMBER_BEFORE = re.compile(r"\d[ ,]\Z")
_HOST_AFTER = re.compile(r":\d{2,5}\b|/\d{1,2}\b")
_POPULAR_IPS = frozenset(
    ["8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "149.112.112.112", "208.67.222.222", "208.67.220.220",
     "4.2.2.2", "4.2.2.1", "8.26.56.26", "8.20.247.20", "76.76.19.19", "94.140.14.14", "94.140.15.15", "64.6.64.6",
     "64.6.65.6", "77.88.8.8", "77.88.8.1", "1.2.3.4", "2001:4860:4860::8888", "2001:4860:4860::8844",
     "2606:4700:4700::1111", "2606:4700:4700::1001", "2620:fe::fe"]
)  # fmt: skip
"""Addresses of public name servers and examples. They are not personal data."""


def ip_addresses(index: TextIndex) -> list[Finding]:
    """Find public IPv4 and IPv6 addresses, except well-known addresses and version numbers."""
    text, findings = index.text, []
    for start in _dotted_numbers(index):
        match = _IPV4.match(text, start)
        if match is None:
            continue
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
        if after[:1] in {" ", ","} and after[1:].isdigit() and _NUMBER_BEFORE.search(text, max(0, start - 3), start):
            continue  # one of many numbers, as in the path of a drawing
        if value in _POPULAR_IPS or _VERSION_BEFORE.search(text, max(0, match.start() - 16), match.start()):
            continue
        if _is_public(value) and not _is_version(text, match):
            findings.append(Finding(*match.span(), "IP_ADDRESS"))
    for match in _IPV6_HINT.finditer(text):
        start = _start_of_ipv6(text, match.start())
        address = _IPV6.match(text, start) if match.start() - start < 40 else None
        if address and address.end() >= match.end() and _is_long_ipv6(address.group()) and _is_public(address.group()):
            findings.append(Finding(*address.span(), "IPV6_ADDRESS"))
    return findings


def _dotted_numbers(index: TextIndex) -> list[int]:
    """Return the offsets of numbers that a dot and a digit follow, and that do not follow a dot."""
    codes, digits = index.codes, index.digits
    if len(codes) < 7:
        return []
    dots = np.flatnonzero((codes[1:-1] == ord(".")) & digits[:-2] & digits[2:]) + 1
    starts = []
    for dot in dots.tolist():
        start = dot
        while start and digits[start - 1]:
            start -= 1
        if dot - start <= 3 and index.text[start - 1 : start] != ".":
            starts.append(start)
    return starts


def _is_version(text: str, address: re.Match[str]) -> bool:
    """Whether four numbers look like a version instead of an address: the last number is 0, or all are below 32.

    All four numbers are below 32 in nearly all versions (`11.5.8.4`), but only in one of 4,000 public addresses. A word
    such as `host` before the numbers, or a port after them, tells that they are an address. Object identifiers begin
    with 0, 1 or 2.
    """
    numbers = [int(number) for number in address.group().split(".")]
    before = (max(0, address.start() - 24), address.start())
    if numbers[0] <= 2 and _OID_BEFORE.search(text, *before):
        return True
    if numbers[-1] != 0 and max(numbers) >= 32:
        return False
    told = _HOST_BEFORE.search(text, *before) or _HOST_AFTER.match(text, address.end())
    return numbers[-1] == 0 or not told or numbers[0] <= 2


def _is_long_ipv6(value: str) -> bool:
    """Whether an IPv6 address has three colons, or a first group of a public network: `a::b` alone can be a scope."""
    return value.count(":") >= 3 or re.match(r"[23][0-9a-fA-F]{3}::[0-9a-fA-F]", value) is not None


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


def internal_hosts(index: TextIndex, endings: Sequence[str]) -> list[Finding]:
    """Find the names of hosts whose names end with one of some endings, for example `corp.example.com` or `internal`.

    A name of two parts such as `config.local` is a finding only where a host stands: in a URL, after `@` or a double
    backslash, or if the name has a digit or a dash.
    """
    pattern = _host_pattern(tuple(ending.strip(".").lower() for ending in endings))
    if pattern is None or not any(ending.strip(".").lower() in index.lowered for ending in endings):
        return []
    text = index.text
    return [Finding(*match.span(), "HOST") for match in pattern.finditer(text) if _is_host(text, match)]


@lru_cache(maxsize=16)
def _host_pattern(endings: tuple[str, ...]) -> re.Pattern[str] | None:
    if not endings:
        return None
    names = "|".join(map(re.escape, sorted(endings, key=len, reverse=True)))
    return re.compile(
        rf"(?<![\w.-])(?:[A-Za-z0-9](?:[A-Za-z0-9-]{{0,62}})\.){{1,8}}(?:{names})(?![\w(-]|\.[\w])", re.IGNORECASE
    )


def _is_host(text: str, match: re.Match[str]) -> bool:
    name = match.group()
    if name.split(".", 1)[0].lower() in {"self", "this", "cls", "super"}:
        return False
    before = text[max(0, match.start() - 3) : match.start()]
    written_as_host = before.endswith(("//", "@", "\\\\")) or text[match.end() : match.end() + 1] in {":", "/"}
    return written_as_host or name.count(".") >= 2 or any(char.isdigit() or char == "-" for char in name)
