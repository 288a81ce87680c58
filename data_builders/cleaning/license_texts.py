"""Identify licenses from the texts of license files, from notices in source files, and from names in prose.

Long licenses such as the GPL name other licenses in their text. The license of a text is therefore the license that the
text names first, not any license that the text mentions. Texts with additional terms, and texts that are not
recognised, are `unknown`.
"""

from __future__ import annotations

import re

UNKNOWN = "unknown"

_FAMILIES: tuple[tuple[str, str], ...] = (
    ("BUSL", r"business source licen[sc]e"),
    ("SSPL", r"server side public licen[sc]e"),
    ("Elastic", r"elastic licen[sc]e"),
    ("AGPL", r"affero general public licen[sc]e"),
    ("LGPL", r"(?:lesser|library) general public licen[sc]e"),
    ("GPL", r"(?<!lesser )(?<!library )(?<!affero )general public licen[sc]e"),
    ("MPL", r"mozilla public licen[sc]e"),
    ("EPL", r"eclipse public licen[sc]e"),
    ("EUPL", r"european union public licen[cs]e"),
    ("CDDL", r"common development and distribution licen[sc]e"),
    ("Apache", r"apache(?: software)? licen[sc]e"),
    ("CC-BY", r"attribution(?:-noncommercial)?(?:-sharealike|-noderivatives|-noderivs)?(?= \d\.\d)"),
    ("CC0", r"cc0 1\.0"),
    ("GFDL", r"free documentation licen[sc]e"),
    ("PSF", r"python software foundation licen[sc]e|psf licen[sc]e agreement"),
    ("BSL", r"boost software licen[sc]e"),
)
_TITLES = tuple((family, re.compile(expression)) for family, expression in _FAMILIES)
"""Names of licenses with a title and, mostly, versions. Only the first name in a text counts."""

_SHORT_TEXTS: tuple[tuple[str, str], ...] = (
    ("MIT", r"permission is hereby granted, free of charge, to any person obtaining a copy"),
    ("ISC", r"permission to use, copy, modify, (?:and/or|and) distribute this software for any purpose with or without fee"),
    ("ISC", r"permission to use, copy, modify, (?:and/or|and) distribute this software for any purpose"),
    ("Unlicense", r"this is free and unencumbered software released into the public domain"),
    ("Zlib", r"provided 'as-is', without any express or implied warranty.{0,400}altered source versions"),
)  # fmt: skip
_BSD = "redistribution and use in source and binary forms"
_ABBREVIATIONS = tuple(
    (family, re.compile(expression))
    for family, expression in (
        ("BUSL", r"\bbusl\b"), ("SSPL", r"\bsspl\b"), ("AGPL", r"(?<![a-z])agpl"), ("LGPL", r"(?<![a-z])lgpl"),
        ("GPL", r"(?<![a-z])gpl(?![- ]?(?:compatible|friendly))"), ("MPL", r"(?<![a-z])mpl(?![a-z])"),
        ("EUPL", r"\beupl\b"), ("CDDL", r"\bcddl\b"), ("Apache", r"apache-?2|apache 2\.0"), ("CC0", r"cc0-1\.0"),
    )
)  # fmt: skip
"""Short forms of license names. They are searched only in short texts, because full texts of other licenses mention
them."""
_SHORT_NAMES: tuple[tuple[str, str], ...] = (
    ("MIT", r"\bmit\b(?: licen[sc]e)?"),
    ("ISC", r"\bisc licen[sc]e"),
    ("BSD-3-Clause", r"\bbsd[- ]3|3-clause bsd|(?:new|modified|revised) bsd"),
    ("BSD-2-Clause", r"\bbsd[- ]2|2-clause bsd|simplified bsd"),
    ("Unlicense", r"\bunlicense\b(?! d)"),
)
_SHORT_WORDS = 350
"""Maximum number of words of a license file with a short license. Longer files have additional terms."""
_NOTICE_WORDS = 300
"""Maximum number of words of a notice. Only in a notice, `any later version` is part of the grant."""
_ADDED_TERMS = re.compile(
    r"commons clause|hippocratic|polyform|non-?commercial|ethical source|responsible ai|\brail\b|academic|"
    r"(?:may|must|shall) not be (?:sold|used (?:for|in|by))|commercial use (?:is )?(?:not|prohibited)|"
    r"only (?:for|to) (?:research|evaluat|personal|internal)|confidential|proprietary"
)
_CHOICE = re.compile(r"at your option|either (?:of|the|licen)|dual[- ]licen|\bor\b")
_GRANT = re.compile(
    r"licen[sc]ed under|under (?:the|either) (?:terms|of)|free software|redistribut|permission (?:is|to)|released under|"
    r"distributed under|subject to the terms|governed by|available under"
)
_VERSION = re.compile(r"(?:version|licen[sc]e|v|gpl|mpl|apache|-|,)\.?[ ,v(-]{0,4}(\d(?:\.\d)?)(?!\d)")
_COMMENT_MARKS = re.compile(r"^[ \t]*(?:#+!?|//+!?|/\*+|\*+/?|--+|;+|%+|<!--|\"\"\"|'''|rem\b)?[ \t]*", re.MULTILINE)
_COMMENT_LINE = re.compile(r"[ \t]*(?:#|//|/\*|\*|--|;|%|<!--|<\?|\r?$)")
_BLOCKS = {"/*": "*/", '"""': '"""', "'''": "'''", "<!--": "-->"}


def identify(text: str) -> str:
    """Return the SPDX expression of the text of a license file, or `unknown`."""
    words = _words(text[:60_000])
    if "good, not evil" in words:
        return "JSON"
    title = _first_title(words)
    short = _short_texts(words)
    count = len(words.split())
    if title is None and not short:
        return _named(words) if count <= _NOTICE_WORDS and not _ADDED_TERMS.search(words) else UNKNOWN
    if title is None or title[0] in {"Apache", "BSL"}:
        if _ADDED_TERMS.search(words[:4000]) or (title is None and count > _SHORT_WORDS * _occurrences(words)):
            return UNKNOWN
        if count <= _NOTICE_WORDS and not short:
            return _named(words)
    identifiers = [*([_identifier(title[0], words, title[1], title[2])] if title else []), *short]
    operator = " OR " if "at your option" in words and title and title[0] == "Apache" else " AND "
    return operator.join(dict.fromkeys(identifiers))


def notice(text: str) -> str:
    """Return the SPDX expression of the license that the comment at the start of a source file grants in words.

    Return "" if the comment grants no license.
    """
    if "icen" not in text[:20_000] and "ermission" not in text[:20_000]:
        return ""
    words = _words(leading_comment(text))
    if not _GRANT.search(words):
        return ""
    expression = identify(words)
    return "" if expression == UNKNOWN else expression


def leading_comment(text: str) -> str:
    """Return the comments at the start of a file, at most 20,000 characters."""
    end, limit = 0, min(len(text), 20_000)
    while end < limit:
        line = text[end:].split("\n", 1)[0] if "\n" not in text[end:limit] else text[end : text.index("\n", end)]
        mark = next((mark for mark in _BLOCKS if line.lstrip().startswith(mark)), "")
        if mark:
            start = text.index(mark, end) + len(mark)
            closing = text.find(_BLOCKS[mark], start)
            end = limit if closing < 0 else closing + len(_BLOCKS[mark])
            end = text.find("\n", end) + 1 or limit
        elif _COMMENT_LINE.match(line):
            end += len(line) + 1
        else:
            break
    return text[: min(end, limit)]


def named_license(text: str) -> str:
    """Return the SPDX expression of the licenses that a short text names, for example a sentence, or `unknown`."""
    return _named(_words(text))


def _words(text: str) -> str:
    return " ".join(_COMMENT_MARKS.sub("", text).lower().replace("\u201c", '"').split())


def _first_title(words: str) -> tuple[str, int, int] | None:
    """Return the family, start and end of the license that is named first, or None if no title occurs."""
    matches = [(match.start(), -match.end(), family) for family, title in _TITLES if (match := title.search(words))]
    if not matches:
        return None
    start, end, family = min(matches)
    return family, start, -end


def _occurrences(words: str) -> int:
    """Count how many texts of short licenses a file holds.

    A file may hold one text for each work that is bundled with the code.
    """
    return words.count(_BSD) + sum(len(re.findall(phrase, words)) for phrase in {phrase for _, phrase in _SHORT_TEXTS})


def _short_texts(words: str) -> list[str]:
    identifiers = [identifier for identifier, phrase in _SHORT_TEXTS if re.search(phrase, words)]
    if _BSD in words:
        endorse = re.search(r"neither the names?|endorse or promote", words)
        advertising = "all advertising materials" in words
        identifiers.append("BSD-4-Clause" if advertising else "BSD-3-Clause" if endorse else "BSD-2-Clause")
    return list(dict.fromkeys(identifiers))


def _identifier(family: str, words: str, start: int, end: int) -> str:
    """Return the SPDX id of a license of a family, with the version that stands after the title of the license."""
    if family == "CC0":
        return "CC0-1.0"
    if family == "BSL":
        return "BSL-1.0"
    if family == "CC-BY":
        parts = words[start:end].replace("attribution", "CC-BY").replace("noncommercial", "NC")
        parts = parts.replace("sharealike", "SA").replace("noderivatives", "ND").replace("noderivs", "ND")
        return f"{parts}-{words[end:].split()[0][:3]}"
    match = _VERSION.search(words, max(start, end - 12), end + 160)
    if match is None:
        defaults = {"GPL": "GPL-1.0-or-later", "LGPL": "LGPL-2.0-or-later", "BUSL": "BUSL-1.1", "SSPL": "SSPL-1.0"}
        return defaults.get(family, UNKNOWN)
    version = match.group(1) if "." in match.group(1) else f"{match.group(1)}.0"
    later = family.endswith("GPL") and len(words.split()) <= _NOTICE_WORDS and _or_later(words)
    return f"{family}-{version}" + ("-or-later" if later else "")


def _or_later(words: str) -> bool:
    return bool(re.search(r"any later version|or later|or newer|\d\+|or \(at your option\)", words))


def _named(words: str) -> str:
    """Return the expression of all licenses that a short text names, joined by OR if the text offers a choice."""
    places: list[tuple[int, str]] = []
    for family, title in (*_TITLES, *_ABBREVIATIONS):
        if match := title.search(words):
            places.append((match.start(), _identifier(family, words, match.start(), match.end())))
    for identifier, name in _SHORT_NAMES:
        if match := re.search(name, words):
            places.append((match.start(), identifier))
    identifiers = list(dict.fromkeys(identifier for _, identifier in sorted(places)))
    if not identifiers or UNKNOWN in identifiers:
        return UNKNOWN
    if identifiers[0].startswith("BUSL"):
        return identifiers[0]
    return (" OR " if _CHOICE.search(words) else " AND ").join(identifiers)
