"""A repository's history as training data: instruction pairs and edits from its commits.

Filters as CommitPackFT publishes them (arXiv 2308.07124): files of at most 50,000 characters, a subject of more than
10 characters and more than 4 words, in the imperative, no merges, bumps, reverts or bots, one changed file; the whole
file 20% of the time, else a window of 31 lines around the change.
"""

from __future__ import annotations

import difflib
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignment.models.formats import escape_special_text
from data_builders.cleaning.clean_files import printable_path, redacted_path
from data_builders.cleaning.clean_rows import Counts, clean_stream
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.cleaning.filters import FilterSettings, decode, drop_by_path, drop_by_text
from data_builders.cleaning.licenses import LicensePolicy, license_of, spdx_header
from data_builders.cleaning.secrets import redact
from data_builders.fim import row_random
from data_builders.parsing.languages import detect
from data_builders.repositories import git, history
from data_builders.repositories.history import Commit
from data_builders.repositories.sources import Location, Repository, Source, iterate_files, resolve
from data_builders.storage.settings import from_mapping

_SEPARATOR = "\n\x1e\n"
_NOISE = re.compile(
    r"^(?:merge|revert|bump|release|version|v?\d+\.\d|wip|fixup!|squash!|update (?:version|changelog|dependenc|lock)|"
    r"prepare (?:for )?(?:release|version)|initial commit|auto(?:matic|mated)|\[?(?:skip ci|ci skip))|\bdependabot\b|"
    r"^(?:chore|build)\(deps|^cherry[- ]pick",
    re.IGNORECASE,
)
_BOT = re.compile(
    r"\[bot\]|\bbot\b|dependabot|renovate|greenkeeper|pre-commit-ci|github[- ]?actions|snyk|jenkins|buildbot|weblate",
    re.IGNORECASE,
)
_CONVENTIONAL = re.compile(r"^(?:\[[^\]]{1,30}\]\s*|[a-z]+(?:\([^)]{1,40}\))?!?:\s+|[\w./-]{1,40}:\s+)+", re.IGNORECASE)
_NOT_IMPERATIVE = re.compile(r"(?:ed|ing|tion|ment|ness|ly)$|^(?:the|a|an|this|that|some|more|minor|small|new|now|no|not|it|we|i|is|was|are|"
                             r"for|in|on|of|to|with|and|or|but|when|if|all|also|just|still|only|too|typo|typos|better|various)$", re.IGNORECASE)  # fmt: skip
_TRAILER = re.compile(r"^(?:signed-off-by|co-authored-by|reviewed-by|acked-by|tested-by|change-id|cc|fixes|closes|refs?|see|git-svn-id|"
                      r"reported-by|reviewed-on|differential revision)\b.*$", re.IGNORECASE | re.MULTILINE)  # fmt: skip
_REFERENCE = re.compile(r"\s*\((?:#|gh-|!)\d+\)|\s*\[?(?:#|gh-)\d+\]?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class CommitSettings:
    """Which commits are good enough, and how their change is shown; lengths in characters."""

    max_file_characters: int = 50_000
    min_subject_characters: int = 11
    min_subject_words: int = 5
    imperative: bool = True
    max_files: int = 1
    """Commits that change more files are left out: one instruction, one answer."""
    whole_file_rate: float = 0.2
    window_lines: int = 31
    max_changed_lines: int = 200


def subject_and_body(message: str) -> tuple[str, str]:
    """The subject without prefixes and issue numbers, and the body without trailers."""
    subject, _, body = message.partition("\n")
    subject = _REFERENCE.sub("", _CONVENTIONAL.sub("", subject.strip())).strip()
    return subject[:1].upper() + subject[1:], _TRAILER.sub("", body).strip()


def drop_commit(commit: Commit, settings: CommitSettings) -> str:
    """The rule that drops a commit for its author or message, or ""."""
    if _BOT.search(commit.author):
        return "bot"
    first = commit.message.split("\n", 1)[0]
    subject, _ = subject_and_body(commit.message)
    if _NOISE.search(first) or _NOISE.search(subject):
        return "merge_bump_or_revert"
    words = subject.split()
    if len(subject) < settings.min_subject_characters or len(words) < settings.min_subject_words:
        return "short_subject"
    if settings.imperative and _NOT_IMPERATIVE.search(re.sub(r"\W", "", words[0])):
        return "not_imperative"
    if not commit.changes:
        return "no_file"
    return "many_files" if len(commit.changes) > settings.max_files else ""


def window(before: str, after: str, lines: int) -> tuple[str, str, int] | None:
    """The part of both versions around the change, `lines` long where the change is one line, and the changed lines."""
    old, new = before.split("\n"), after.split("\n")
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    changed = max(len(old), len(new)) - start - end
    if changed <= 0:
        return None
    first = max(0, start - lines // 2)
    tail = max(0, end - lines // 2)
    return "\n".join(old[first : len(old) - tail]), "\n".join(new[first : len(new) - tail]), changed


@dataclass(frozen=True)
class Chunk:
    """Some commits of one repository, which has `license`."""

    repository: Repository
    license: str
    identifiers: list[str]


@dataclass(frozen=True)
class History:
    """Makes rows of the usable commits of a chunk, counting what is left out. Picklable: it works in the workers."""

    form: str
    settings: CommitSettings
    licenses: LicensePolicy
    seed: int
    filters: FilterSettings = field(default_factory=FilterSettings)

    def __call__(self, chunk: Chunk) -> tuple[list[dict[str, Any]], Counts]:
        rows: list[dict[str, Any]] = []
        counts: Counts = {name: Counter() for name in ("commits", "commits_left_out", "redacted_in_history")}
        with git.BlobReader(chunk.repository.path) as reader:
            wanted = []
            for commit in history.read_commits(chunk.repository.path, chunk.identifiers, reader):
                counts["commits"]["read"] += 1
                reason = drop_commit(commit, self.settings) or self._drop_by_paths(commit)
                if reason:
                    counts["commits_left_out"][reason] += 1
                else:
                    wanted.append(commit)
            changes = [change for commit in wanted for change in commit.changes]
            most = 4 * self.settings.max_file_characters  # bytes: UTF-8 has at most four for a character
            contents = reader.read_many((each for change in changes for each in (change.before, change.after)), most)
            for commit in wanted:
                versions = [(next(contents), next(contents)) for _ in commit.changes]
                counts["commits"]["bytes"] += sum(len(content or b"") for pair in versions for content in pair)
                row, reason = self._row(chunk, commit, versions, counts)
                if row is None:
                    counts["commits_left_out"][reason] += 1
                else:
                    rows.append(row)
        return rows, counts

    def _drop_by_paths(self, commit: Commit) -> str:
        if not all(change.before and change.after for change in commit.changes):
            return "added_or_deleted"
        return (
            "unwanted_file"
            if any(drop_by_path(printable_path(each.path), self.filters) for each in commit.changes)
            else ""
        )

    def _row(
        self, chunk: Chunk, commit: Commit, contents: Sequence[tuple[bytes | None, bytes | None]], counts: Counts
    ) -> tuple[dict[str, Any] | None, str]:
        files = []
        for change, pair in zip(commit.changes, contents, strict=True):
            versions, reason = self._versions(printable_path(change.path), pair)
            if reason:
                return None, reason
            files.append((redacted_path(change.path), *versions))
        message = "\n\n".join(part for part in subject_and_body(commit.message) if part)
        texts = [message, *(text for _, before, after, _ in files for text in (before, after))]
        redacted = redact(
            _SEPARATOR.join(texts), files[0][3]
        )  # together: a password has one replacement in both versions
        counts["redacted_in_history"].update(redacted.counts)
        parts = [escape_special_text(part) for part in redacted.text.split(_SEPARATOR)]
        if len(parts) != len(texts):
            return None, "unreadable"
        licenses = [spdx_header(versions[2]) or chunk.license for versions in files]
        if not all(map(self.licenses.permits, licenses)):
            return None, "license"
        row = {
            "repository": chunk.repository.name, "path": files[0][0], "commit": commit.id, "language": files[0][3],
            "license": " AND ".join(sorted(set(licenses))),
        }  # fmt: skip
        if self.form == "document":
            return self._document(row, parts, [path for path, *_ in files]), ""
        return self._conversation(row, parts)

    def _versions(self, path: str, contents: tuple[bytes | None, bytes | None]) -> tuple[tuple[str, str, str], str]:
        nothing = ("", "", "")
        texts = []
        for content in contents:
            if content is None:
                return nothing, "unreadable"
            if len(content) > 4 * self.settings.max_file_characters:
                return nothing, "long_file"  # it was not read to its end
            text, reason = decode(content)
            if reason:
                return nothing, "unwanted_file"
            if len(text) > self.settings.max_file_characters:
                return nothing, "long_file"
            texts.append(text)
        language = detect(path, texts[1])
        if not language or drop_by_text(path, texts[1], language, self.filters):
            return nothing, "unwanted_file"
        return (texts[0], texts[1], language), ""

    def _conversation(self, row: dict[str, Any], parts: list[str]) -> tuple[dict[str, Any] | None, str]:
        message, before, after = parts[0], parts[1], parts[2]
        part = window(before, after, self.settings.window_lines)
        if part is None:
            return None, "no_visible_change"
        if part[2] > self.settings.max_changed_lines:
            return None, "large_change"
        if row_random(row | {"text": message}, self.seed, "commit").random() >= self.settings.whole_file_rate:
            before, after = part[0], part[1]
        fence = "````" if "```" in before or "```" in after else "```"
        language, path = row["language"], row["path"]
        user = f"{message}\n\n`{path}`:\n\n{fence}{language}\n{before}\n{fence}"
        messages = [
            {"role": "user", "content": user},
            {"role": "assistant", "content": f"{fence}{language}\n{after}\n{fence}"},
        ]
        return row | {"messages": messages, "source": f"commit {row['repository']} {row['commit']}"}, ""

    @staticmethod
    def _document(row: dict[str, Any], parts: list[str], paths: list[str]) -> dict[str, Any]:
        pieces = [parts[0], ""]
        for number, path in enumerate(paths):
            before, after = parts[1 + 2 * number].split("\n"), parts[2 + 2 * number].split("\n")
            pieces += difflib.unified_diff(before, after, f"a/{path}", f"b/{path}", lineterm="")
        return row | {"text": "\n".join(pieces) + "\n", "kind": "commit"}


def _chunks(repositories: Sequence[Repository], policy: LicensePolicy) -> Iterator[Chunk]:
    for repository in repositories:
        license = license_of(repository, iterate_files(repository, FilterSettings().max_bytes, top=True), policy)
        for identifiers in history.commit_batches(repository.path, repository.commit):
            yield Chunk(repository, license, identifiers)


def build_commits(
    sources: Sequence[Location | Source],
    out: Path,
    *,
    form: Literal["conversation", "document"] = "conversation",
    limits: CommitSettings | None = None,
    licenses: LicensePolicy | None = None,
    decontaminate: Sequence[Path] = (),
    clone_dir: Path | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """The good commits of repositories, as instructions to change code or as documents.

    Secrets are replaced, duplicates and benchmark texts removed.

    Args:
        sources: git repositories, globs of them, URLs, or `Source`s, which also name commit, name and licence.
        form: `conversation` (message and code, answered by the changed code) or `document` (message and difference).
        limits: which commits are good enough.
        licenses: allow and deny lists of SPDX ids.
        decontaminate: benchmark files and folders whose texts must not be in the result.
    """
    if form not in ("conversation", "document"):
        raise ValueError(f"form must be conversation or document, not {form!r}")
    chosen, policy = from_mapping(CommitSettings, limits), from_mapping(LicensePolicy, licenses)
    with tempfile.TemporaryDirectory(prefix="clones-") as temporary:
        repositories = resolve(sources, Path(clone_dir) if clone_dir else Path(temporary))
        for repository in repositories:
            if not repository.is_git:
                raise ValueError(f"{repository.path} is a plain folder: commits need a git repository")
        used = {"form": form, "limits": asdict(chosen), "licenses": asdict(policy), "seed": seed,
                "decontaminate": [Path(path).name for path in decontaminate]}  # fmt: skip
        return clean_stream(
            _chunks(repositories, policy),
            Path(out),
            "Commits",
            used,
            kind=form,
            redact=False,
            workers=workers,
            progress=progress,
            decontaminator=Decontaminator.from_paths(decontaminate) if decontaminate else None,
            prepare=History(form, chosen, policy, seed),
            report={"sources": [f"{item.name} {item.commit}" for item in repositories]},
        )
