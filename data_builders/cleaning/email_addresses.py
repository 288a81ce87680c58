"""Find e-mail addresses in a text, also in URLs and written with `[at]` and `[dot]`."""

from __future__ import annotations

import re

from data_builders.cleaning.findings import Finding, find_all
from data_builders.cleaning.text_index import TextIndex, WordSet

_DOMAIN = re.compile(
    r"(?:@|%40)(?:[^\W_](?:[^\W_]|-){0,62}\.){1,8}(?P<top>[A-Za-z]{2,24}|xn--[a-z0-9-]{2,40})(?P<after>\(?)(?![\w@-]|\.[A-Za-z])"
)
_EXPRESSION = re.compile(r"@(?:self|cls|this|np|torch|other)\.|@[A-Z][a-z]+(?:[A-Z]|\.[A-Z])|@.*[a-z][A-Z]")
"""Domains that are objects in code: `x@self.weight` is a product, and `this@Main` is a label."""
_SIGNS = frozenset("._%+-")
_APOSTROPHE = re.compile(r"(?:^|[^A-Za-z0-9])[OoDdLl]\Z")
"""Text before an apostrophe that belongs to a name, as in `o'brien`."""
_URL_BEFORE = re.compile(r"://[^\s\"'<>]*\Z")
_IGNORED = re.compile(
    r"(?:no-?reply|do-?not-?reply|git|user(?:name)?|your[._-]?(?:name|e?mail)|someone|somebody|foo|bar|me|you|john\.?doe|jane\.?doe)@(?:[\w-]+\.)*(?:example|test|invalid|localhost|domain|email|company|host|foo|bar)\.|"
    r"(?:no-?reply|do-?not-?reply|git)(?:@|%40)|(?:@|%40)(?:[\w-]+\.)*(?:example|test|invalid|localhost|domain|(?:your|my|some)-?(?:domain|company|site|host))(?:-\w+)?\.|"
    r"@users\.noreply\.|\.(?:example|test|invalid|localhost)\Z|"
    r"\.(?:png|jpe?g|gif|svg|css|jsx?|tsx?|html?|json|ya?ml|toml|txt|local|internal|xml|pdf|zip|gz|whl|git|cpp|hpp|java|rb|php|exe|dll|conf|cfg|ini|lock|log)\Z",
    re.IGNORECASE,
)
_FILE = re.compile(
    r"(?:@|%40)[\w.-]{1,3}\.(?:md|py|rs|sh|pl|so|is|mk|ps|cc)\Z|(?:@|%40)v?\d[\w.]*\.(?:md|py|rs|sh|pl|so|mk|ps|cc)\Z"
)
"""Names of files with a version or scale, for example `notes@v2.md`."""
_COMMON_TOPS = frozenset(["com", "org", "net", "edu", "gov", "de", "fr", "uk", "at", "ch", "nl", "be", "it", "es", "pl", "se", "no", "dk", "fi", "eu",
                          "us", "ca", "au", "jp", "cn", "in", "br", "ru", "cz", "io", "dev"])  # fmt: skip
_WORDED = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.+-]{0,63}) ?(?:\[ ?at ?\]|\( ?at ?\)|\{ ?at ?\}|<at>|\[@\]|\(@\)) ?(?P<domain>[A-Za-z0-9][\w-]{0,62}(?: ?(?:\[ ?dot ?\]|\( ?dot ?\)|\{ ?dot ?\}|<dot>|\[\.\]|\.) ?[A-Za-z][\w-]{1,62}){1,5})(?![\w@])"
    r"|(?P<name2>[A-Za-z0-9][\w.+-]{0,63}) (?:at|AT) (?P<domain2>[A-Za-z0-9][\w-]{0,62}(?: (?:dot|DOT) [A-Za-z]{2,24}){1,4})(?![\w@])",
    re.IGNORECASE,
)
_WORDED_HINTS = WordSet(["[at]", "(at)", "{at}", "<at>", "[@]", "(@)", "[ at ]", "( at )", " dot "])
_URL_HINTS = WordSet(["%40"])


def emails(index: TextIndex) -> list[Finding]:
    """Find e-mail addresses, except examples and no-reply addresses."""
    text = index.text
    places = find_all(text, "@")
    if _URL_HINTS.candidates(index):
        places += find_all(text, "%40")
    findings = [finding for place in places if (finding := _email(text, place))]
    lowered_hints = [_WORDED_HINTS.words[number] for number in _WORDED_HINTS.candidates(index)]
    if any(hint in index.lowered for hint in lowered_hints):
        findings += [Finding(*match.span(), "EMAIL") for match in _WORDED.finditer(text) if _is_worded_email(match)]
    return findings


def _email(text: str, place: int) -> Finding | None:
    """Return the e-mail address around the sign `@` (or its code `%40`) at an offset, or None."""
    domain = _DOMAIN.match(text, place)
    if domain is None:
        return None
    start = _local_start(text, place)
    end = domain.end("top")
    if start >= place or (domain.group("after") and domain.group("top").lower() not in _COMMON_TOPS):
        return None
    before = text[start - 1 : start]
    if before and before in "/@:" and _URL_BEFORE.search(text, max(0, start - 60), start):
        return None
    if _EXPRESSION.match(text, place, end) or _IGNORED.search(text, start, end) or _FILE.search(text, start, end):
        return None
    return Finding(start, end, "EMAIL")


def _local_start(text: str, place: int) -> int:
    """Return the offset of the first character of the part of an address before the sign `@`."""
    start = place
    while start and place - start < 64:
        char = text[start - 1]
        if not (char.isalnum() or char in _SIGNS):
            apostrophe = char == "'" and text[start : start + 1].isalpha() and start < place
            if not (apostrophe and _APOSTROPHE.search(text, max(0, start - 3), start - 1)):
                break
        start -= 1
    while start < place and not text[start].isalnum():
        start += 1
    return start


def _is_worded_email(match: re.Match[str]) -> bool:
    name = match.group("name") or match.group("name2")
    domain = match.group("domain") or match.group("domain2")
    labels = re.split(r"[^\w-]+(?:dot[^\w-]+)?", domain, flags=re.IGNORECASE)
    return not _IGNORED.search(f"{name}@{'.'.join(labels)}") and labels[-1].isalpha()
