"""Find telephone numbers, and numbers of bank accounts and cards, in a text."""

from __future__ import annotations

import re

import numpy as np

from data_builders.cleaning.findings import Finding
from data_builders.cleaning.text_index import TextIndex, WordSet

_IBAN = re.compile(r"[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,3})?(?![A-Za-z0-9])")
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27,
    "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29,
    "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
"""Number of characters of an IBAN by country."""
_CARD = re.compile(
    r"(?<![\w.+-])(?:(?:4\d{3}|5[0-9]\d{2}|2[2-7]\d{2}|6\d{3}|3[0-9]\d{2})(?:[ -]?\d{4}){2}(?:[ -]?\d{3,7})|3[47]\d{2}[ -]\d{6}[ -]\d{5})(?![\w-]|\.\d)"
)
_CARD_WORDS = re.compile(r"card|visa|master|amex|\bpan\b|\bcv[cv]2?\b|karte|maestro", re.IGNORECASE)
_TEST_CARDS = frozenset({"4111111111111111", "4242424242424242", "4012888888881881", "5555555555554444",
                         "5105105105105100", "378282246310005", "371449635398431", "6011111111111117",
                         "4000056655665556", "4000000000000002"})  # fmt: skip
"""Numbers that payment providers document for tests."""
_PHONE = re.compile(
    r"\+(?:1|7|2[07]|2[1-69]\d|3[0-469]|3[578]\d|4[013-9]|42\d|5[1-8]|5[09]\d|6[0-6]|6[789]\d|8[1246]|8[08]\d|9[0-58]|9[679]\d)"
    r"(?P<rest>(?:[ ./-]?\(0?\)|[ ./-]{0,3}\(?\d{1,8}\)?){1,8})(?![\w])"
)
"""A country code, and groups of digits."""
_LOCAL_PHONE = re.compile(
    r"(?<![\w.,+/-])(?:\(0\d{1,5}\)|0\d{1,5})[ ]?[ /-][ ]?\d{2,8}(?:[ -]\d{1,8}){0,4}(?![\w.,/-]|:\d)|(?<![\w.,+/-])(?:\(\d{3}\)[ ]?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![\w-]|\.\d)"
)
_PHONE_WORDS = re.compile(
    r"\b(?:tele?(?:fon|phone|\.|:)?|(?:tele)?phones?|fon|mobile?|handy|cell|fax|call|hotline|whatsapp|sms|on-?call|bereitschaft|r[uü]ckfragen|anruf(?:en)?|ruf(?:nummer)?|durchwahl|kontakt|"
    r"contact|support|notfall|emergency|dial|t[eé]l)(?:_?(?:number|nummer|no|nr))?\b|phone|telefon",
    re.IGNORECASE,
)
_FICTION = re.compile(r"555[ .-]?01\d\d\Z|\A\+1[ .-]?\(?(?:555|800|888|877)\b|\A\+1[ .-]?555")
"""Numbers in North America that are reserved for fiction, or toll-free."""
_PHONE_SIGNS = [ord(sign) for sign in " -/.)"]
_PHONE_HINTS = WordSet(["tel", "phone", "fon", "mobil", "handy", "cell", "fax", "call", "hotline", "whatsapp", "sms", "oncall", "bereitschaft",
                        "ruckfragen", "ckfragen", "anruf", "ruf", "durchwahl", "kontakt", "contact", "support", "notfall", "emergency", "dial"])  # fmt: skip


def account_numbers(index: TextIndex) -> list[Finding]:
    """Find IBANs, and card numbers in lines that mention cards, if their check digits are right."""
    text, findings = index.text, []
    for place in _iban_places(index):
        match = _IBAN.match(text, place)
        if match and (end := _iban_end(match.group())):
            findings.append(Finding(place, place + end, "IBAN"))
    for place in index.digit_runs(4):
        match = _CARD.match(text, place)
        if (
            match is None
            or not is_luhn(digits := re.sub(r"[ -]", "", match.group()))
            or len(digits) not in {13, 14, 15, 16, 19}
        ):
            continue
        line = text[text.rfind("\n", 0, place) + 1 :].split("\n", 1)[0]
        if digits not in _TEST_CARDS and _CARD_WORDS.search(line):
            findings.append(Finding(*match.span(), "CARD"))
    return findings


def _iban_places(index: TextIndex) -> list[int]:
    """Return the offsets of two letters that two digits follow and no letter or digit precedes."""
    codes, digits = index.codes, index.digits
    if len(codes) < 15:
        return []
    small = codes | 32
    letters = (small >= ord("a")) & (small <= ord("z"))
    before = np.concatenate([[True], ~(letters | digits)[:-4]])
    return [int(place) for place in np.flatnonzero(letters[:-3] & letters[1:-2] & digits[2:-1] & digits[3:] & before)]


def _iban_end(value: str) -> int:
    """Return the length of the IBAN at the start of a text, with spaces, or 0 if there is none.

    The check digits must be right (ISO 7064, modulo 97), and the number of characters must be that of the country.
    """
    length = _IBAN_LENGTHS.get(value[:2].upper(), 0)
    places = [place for place, char in enumerate(value) if char.isalnum()]
    if not length or len(places) < length:
        return 0
    end = places[length - 1] + 1
    if end < len(value) and value[end].isalnum():
        return 0
    compact = "".join(value[place] for place in places[:length])
    rotated = compact[4:] + compact[:4]
    return end if int("".join(str(int(char, 36)) for char in rotated)) % 97 == 1 else 0


def is_luhn(digits: str) -> bool:
    """Whether the last digit of a card number is right (Luhn)."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        double = int(char) * (1 + place % 2)
        total += double - 9 * (double > 9)
    return total % 10 == 0


def phone_numbers(index: TextIndex) -> list[Finding]:
    """Find telephone numbers: with a country code, or in a line that mentions a telephone.

    An international number needs separators between its digits, or a word such as `phone` in its line.
    """
    text = index.text
    findings: list[Finding] = []
    codes, digits = index.codes, index.digits
    if len(codes) < 8:
        return findings
    for place in np.flatnonzero((codes[:-1] == ord("+")) & digits[1:]).tolist():
        match = _PHONE.match(text, place)
        before = text[place - 1 : place] if place else ""
        if match and not (before.isalnum() or before in {"_", ")", "]"}):
            end = place + len(match.group().rstrip(" ./-("))
            if _is_international(text, place, end):
                findings.append(Finding(place, end, "PHONE"))
    hints = (_PHONE_HINTS.words[number] for number in _PHONE_HINTS.candidates(index))
    if any(hint in index.lowered for hint in hints):
        for place in _local_places(index):
            if (match := _LOCAL_PHONE.match(text, place)) and _is_local(text, match):
                findings.append(Finding(*match.span(), "PHONE"))
    return findings


def _local_places(index: TextIndex) -> list[int]:
    """Return the offsets of runs of digits that can begin a telephone number without a country code."""
    starts, ends = index.digit_spans
    follows = np.isin(index.codes[np.minimum(ends, len(index.codes) - 1)], _PHONE_SIGNS)
    fits = (
        (ends - starts >= 2)
        & (ends - starts <= 6)
        & ((index.codes[starts] == ord("0")) | (ends - starts == 3))
        & follows
    )
    brackets = np.isin(index.codes[np.maximum(starts - 1, 0)], [ord("(")])
    return [int(place) for place in (starts - brackets)[fits]]


def _line(text: str, place: int) -> str:
    """Return the line around an offset. Of a long line, at most 160 characters are returned."""
    first = max(text.rfind("\n", 0, place) + 1, place - 80)
    last = text.find("\n", place, place + 80)
    return text[first : last if last >= 0 else place + 80]


def _is_international(text: str, start: int, end: int) -> bool:
    value = text[start:end]
    count = sum(char.isdigit() for char in value)
    if not 9 <= count <= 15 or _FICTION.search(value) or len(set(value)) < 5:
        return False
    groups = len(re.findall(r"\d+", value))
    return groups >= 3 or bool(_PHONE_WORDS.search(_line(text, start)))


def _is_local(text: str, match: re.Match[str]) -> bool:
    count = sum(char.isdigit() for char in match.group())
    return (
        9 <= count <= 13
        and not _FICTION.search(match.group())
        and bool(_PHONE_WORDS.search(_line(text, match.start())))
    )
