"""Detect the licenses of repositories and files, and decide by license which code is kept for training.

The license of a file is the license in the SPDX header or in the notice of the file, otherwise the license of the
repository. The license of a repository comes from license files, from the folder `LICENSES`, or from a manifest. Any
license that is not recognised with certainty is `unknown`. The result is not legal advice, and does not replace a
scanner such as scancode.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from pydantic import Field

from alignment.settings import Settings
from data_builders.cleaning.license_expressions import is_satisfied
from data_builders.cleaning.license_manifests import is_manifest, license_of_manifests
from data_builders.cleaning.license_texts import UNKNOWN, identify, leading_comment, notice
from data_builders.repositories.sources import File, Reader, Repository, iterate_files
from data_builders.repositories.text_decoding import decode

OWNED = "owned"
_MAX_LICENSE_BYTES = 1_000_000

_LICENSE_FILE = re.compile(r"^(?:licen[cs]e|copying|unlicense|copyright)\d?(?:[-_.].*)?$", re.IGNORECASE)
_NO_TEXT = frozenset(
    {".py", ".js", ".ts", ".go", ".rs", ".java", ".c", ".h", ".sh", ".svg", ".png", ".json", ".yml", ".yaml"}
)
"""Suffixes of files that are not license texts, although their names start like the names of license files."""
_CHOICE_FILE = re.compile(
    r"^(?:licen[cs]e|copying)[-_.](?:mit|isc|zlib|bsd|boost|unlicense|apache|mpl|epl|a?gpl|lgpl|cc0)[-_.\w]*$",
    re.IGNORECASE,
)
"""Matches the name of a license file that contains the name of a license. Several of these files offer a choice, as is
usual in Rust."""
_OTHER_WORKS = re.compile(
    r"3rd|third|vendor|bundled|docs?\b|documentation|fonts?\b|assets|media|images|data\b", re.IGNORECASE
)
"""Matches names of license files that apply to other works, not to the code of the repository."""
_SPDX = re.compile(
    r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+\-() ]{2,200}?)[ \t]*(?:\*/|-->|#|\"|'|$)", re.MULTILINE
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
        exceptions = {_normal_exception(allowed) for allowed in self.allow if " with " in allowed.lower()}
        return is_satisfied(expression, self._permits_one, exceptions - {_normal_exception(item) for item in self.deny})

    def _permits_one(self, identifier: str) -> bool:
        base = _normal(identifier)
        if any(_normal(denied) == base for denied in self.deny):
            return False
        return not self.allow or any(_normal(allowed) == base for allowed in self.allow)


def _normal(identifier: str) -> str:
    return re.sub(r"-(?:only|or-later)$|\+$", "", identifier.strip().lower())


def _normal_exception(expression: str) -> str:
    return expression.strip().lower().replace("-only ", " ")


def is_license_file(path: str) -> bool:
    """Whether a path is a license file: a file of the top-level folder with a usual name, such as `LICENSE`."""
    name = PurePosixPath(path)
    return "/" not in path and bool(_LICENSE_FILE.match(name.name)) and name.suffix.lower() not in _NO_TEXT


def file_license(text: str) -> str:
    """Return the SPDX expression in the header or in the notice of a source file, or "" if the file has neither."""
    return spdx_header(text) or notice(text)


def spdx_header(text: str) -> str:
    """Return the SPDX expression at the start of a file, or "" if the file has no SPDX header.

    The first 2,000 characters and the whole leading comment are searched.
    """
    head = text[:2000]
    if "SPDX" not in head:
        head = leading_comment(text) if "SPDX" in text[:20_000] else ""
    match = _SPDX.search(head)
    return match.group(1).strip() if match else ""


def license_of_texts(texts: Mapping[str, str], policy: LicensePolicy) -> str:
    """Return a repository's SPDX expression from the texts of its license files.

    Files such as `LICENSE-MIT` beside `LICENSE-APACHE` offer a choice and are joined by OR. The terms of all other
    files hold together and are joined by AND, because nothing says that one license may be chosen.

    Args:
        texts: texts of the license files by path.
        policy: determines the license without license files.
    """
    identified = {path: identify(text) for path, text in texts.items()}
    code = {path: name for path, name in identified.items() if not _OTHER_WORKS.search(path)} or identified
    certain = {path: name for path, name in code.items() if name != UNKNOWN or not path.lower().startswith("copyright")}
    code = certain or code
    if not code:
        return policy.unlicensed
    choice_files = [path for path in code if _CHOICE_FILE.match(path)]
    choices = sorted({code[path] for path in choice_files})
    for path in [path for path in code if choice_files and path not in choice_files]:
        if len(texts[path]) < 2000 and all(other.lower() in texts[path].lower() for other in choice_files):
            del code[path]  # a text that only points to the other files
    terms = {name for path, name in code.items() if not _CHOICE_FILE.match(path)}
    choice = " OR ".join(choices)
    if terms >= set(choices) or any(" OR " in name and set(choices) <= set(name.split(" OR ")) for name in terms):
        choice = ""  # another file already states the choice or its only license
    for version in ("2.1", "3.0"):  # the LGPL comes with the text of the GPL, which it refers to
        if f"LGPL-{version}" in terms | set(choices):
            terms -= {"GPL-3.0" if version == "3.0" else "GPL-2.0"}
    parts = sorted(terms) + ([choice] if choice else [])
    return " AND ".join(f"({part})" if " OR " in part and len(parts) > 1 else part for part in parts)


def license_of(repository: Repository, files: Iterable[File], policy: LicensePolicy) -> str:
    """Return the SPDX expression of a repository.

    Args:
        repository: the repository. If its source declares a license, this license is returned.
        files: files of the top-level folder, including license files.
        policy: determines the license of a repository without license files.
    """
    if repository.license:
        return repository.license
    top = [file for file in files if not file.skip]
    with Reader(repository) as reader:
        texts = _texts(reader, [file for file in top if is_license_file(file.path)])
        if not texts:
            texts = _texts(reader, _reuse_files(repository))
        if texts:
            return license_of_texts(texts, policy)
        manifests = _texts(reader, [file for file in top if is_manifest(file.path)])
    return license_of_manifests(manifests) or policy.unlicensed


def _reuse_files(repository: Repository) -> list[File]:
    """Return the license texts in the folder `LICENSES` of a repository that follows the REUSE specification."""
    files = []
    for file in iterate_files(repository, _MAX_LICENSE_BYTES):
        if file.path.startswith("LICENSES/") and not file.skip:
            files.append(file)
        elif file.path > "LICENSES0":  # "0" follows "/": all later paths are outside the folder
            break
    return files


def _texts(reader: Reader, files: list[File]) -> dict[str, str]:
    return {file.path: decode(content)[0] for file in files if (content := reader.read(file)) is not None}
