"""Licences: what a repository and its files declare, and which of them may be trained on.

Detection reads SPDX headers and recognises the common licence files by their own words. It is no legal advice and
no replacement for a scanner such as scancode; what it does not recognise is called `unknown`, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from data_builders.cleaning.filters import decode
from data_builders.cleaning.license_expressions import is_satisfied
from data_builders.repositories.sources import File, Reader, Repository

OWNED = "owned"
UNKNOWN = "unknown"

_LICENSE_FILE = re.compile(r"^(?:licen[cs]e|copying|unlicense|copyright)(?:[-_.].*)?$", re.IGNORECASE)
_SPDX = re.compile(
    r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+\-() ]{2,200}?)[ \t]*(?:\*/|-->|#|\"|'|$)", re.MULTILINE
)

# Phrases that occur in one licence's text and not in the others'; the first licence whose phrases all occur wins.
_PHRASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("AGPL-3.0", ("gnu affero general public license", "version 3")),
    ("LGPL-3.0", ("gnu lesser general public license", "version 3")),
    ("LGPL-2.1", ("gnu lesser general public license", "version 2.1")),
    ("GPL-3.0", ("gnu general public license", "version 3")),
    ("GPL-2.0", ("gnu general public license", "version 2")),
    ("MPL-2.0", ("mozilla public license", "2.0")),
    ("EPL-2.0", ("eclipse public license", "2.0")),
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("BSL-1.0", ("boost software license",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("CC-BY-SA-4.0", ("attribution-sharealike 4.0",)),
    ("CC-BY-4.0", ("attribution 4.0 international",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "neither the name")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software for any purpose",)),
    ("ISC", ("permission to use, copy, modify, and distribute this software for any purpose",)),
    ("MIT", ("permission is hereby granted, free of charge, to any person obtaining a copy",)),
)


@dataclass(frozen=True)
class LicensePolicy:
    """Which licences are kept. `owned` code is the user's own: what a source says it is, or has no licence file."""

    allow: tuple[str, ...] = ()
    """Keep only these SPDX ids (and `owned`, `unknown` where listed); empty: everything not denied."""
    deny: tuple[str, ...] = ()
    unlicensed: str = OWNED
    """What a repository without any licence file counts as: `owned` for private code, `unknown` to be strict."""

    def permits(self, expression: str) -> bool:
        """Whether an SPDX expression may be used: one side of an OR is enough, AND needs both."""
        if not self.allow and not self.deny:
            return True
        return is_satisfied(expression, self._permits_one)

    def _permits_one(self, identifier: str) -> bool:
        base = _normal(identifier)
        if any(_normal(denied) == base for denied in self.deny):
            return False
        return not self.allow or any(_normal(allowed) == base for allowed in self.allow)


def _normal(identifier: str) -> str:
    return re.sub(r"-(?:only|or-later)$|\+$", "", identifier.strip().lower())


def is_license_file(path: str) -> bool:
    """Whether a top-level file carries the repository's licence."""
    return "/" not in path and bool(_LICENSE_FILE.match(PurePosixPath(path).name))


def identify(text: str) -> str:
    """The SPDX id of a licence file's text, or `unknown`."""
    words = " ".join(text[:20_000].lower().split())
    for identifier, phrases in _PHRASES:
        if all(phrase in words for phrase in phrases):
            return identifier
    return UNKNOWN


def spdx_header(text: str) -> str:
    """The licence expression that a file's first 2,000 characters declare, or ""."""
    head = text[:2000]
    if "SPDX" not in head:
        return ""
    match = _SPDX.search(head)
    return match.group(1).strip() if match else ""


def of_repository(license_texts: list[str], policy: LicensePolicy) -> str:
    """One expression for a repository from the texts of its licence files; several files mean a choice (OR)."""
    found = sorted({identify(text) for text in license_texts})
    if not found:
        return policy.unlicensed
    known = [identifier for identifier in found if identifier != UNKNOWN]
    return " OR ".join(known) if known else UNKNOWN


def license_of(repository: Repository, files: Iterable[File], policy: LicensePolicy) -> str:
    """What the source says of itself, or else what the licence files among `files` say."""
    if repository.license:
        return repository.license
    with Reader(repository) as reader:
        texts = [
            decode(content)[0]
            for file in files
            if is_license_file(file.path) and not file.skip and (content := reader.read(file)) is not None
        ]
    return of_repository(texts, policy)
