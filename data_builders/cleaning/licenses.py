"""Detect the licenses of repositories and files, and decide by license which code is kept for training.

The module reads SPDX headers, and identifies common license files by phrases. Any other license is `unknown`. The
result is not legal advice, and does not replace a scanner such as scancode.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from pydantic import Field

from alignment.settings import Settings
from data_builders.cleaning.filters import decode
from data_builders.cleaning.license_expressions import is_satisfied
from data_builders.repositories.sources import File, Reader, Repository

OWNED = "owned"
UNKNOWN = "unknown"

_LICENSE_FILE = re.compile(r"^(?:licen[cs]e|copying|unlicense|copyright)(?:[-_.].*)?$", re.IGNORECASE)
_SPDX = re.compile(
    r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+\-() ]{2,200}?)[ \t]*(?:\*/|-->|#|\"|'|$)", re.MULTILINE
)

# License ids and phrases. The license of a file is the first license in this list whose phrases all occur in the file.
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


class LicensePolicy(Settings):
    """Rules that decide by license which code is kept.

    The license `owned` stands for the user's own code. A source can declare this license. By default, it is also the
    license of repositories without a license file.
    """

    allow: list[str] = Field(default_factory=list)
    """SPDX ids of licenses to keep, which may include `owned` and `unknown`. If the list is empty, all licenses except
    those in `deny` are kept."""
    deny: list[str] = Field(default_factory=list)
    """SPDX ids of licenses whose code is never kept."""
    unlicensed: str = OWNED
    """License to assume for a repository without a license file: `owned` for private code, otherwise `unknown`."""

    def permits(self, expression: str) -> bool:
        """Whether code under an SPDX expression is kept; see `license_expressions.is_satisfied`."""
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
    """Whether a path is a license file: a file of the top-level folder with a usual name, such as `LICENSE`."""
    return "/" not in path and bool(_LICENSE_FILE.match(PurePosixPath(path).name))


def identify(text: str) -> str:
    """Return the SPDX id of the license in the text of a license file, or `unknown`."""
    words = " ".join(text[:20_000].lower().split())
    for identifier, phrases in _PHRASES:
        if all(phrase in words for phrase in phrases):
            return identifier
    return UNKNOWN


def spdx_header(text: str) -> str:
    """Return the SPDX expression in the first 2,000 characters of a file, or "" if the file has no SPDX header."""
    head = text[:2000]
    if "SPDX" not in head:
        return ""
    match = _SPDX.search(head)
    return match.group(1).strip() if match else ""


def license_of_texts(license_texts: list[str], policy: LicensePolicy) -> str:
    """Return a repository's SPDX expression from the texts of its license files. Several licenses are joined by OR."""
    identifiers = sorted({identify(text) for text in license_texts})
    if not identifiers:
        return policy.unlicensed
    known = [identifier for identifier in identifiers if identifier != UNKNOWN]
    return " OR ".join(known) if known else UNKNOWN


def license_of(repository: Repository, files: Iterable[File], policy: LicensePolicy) -> str:
    """Return the SPDX expression of a repository.

    Args:
        repository: the repository. If its source declares a license, this license is returned.
        files: files of the repository, including license files.
        policy: determines the license of a repository without license files.
    """
    if repository.license:
        return repository.license
    with Reader(repository) as reader:
        texts = [
            decode(content)[0]
            for file in files
            if is_license_file(file.path) and not file.skip and (content := reader.read(file)) is not None
        ]
    return license_of_texts(texts, policy)
