"""Builder `commits`: turn the history of repositories into conversations about code changes, or into documents.

The filters are from CommitPackFT (arXiv 2308.07124). A commit must change one file of at most 50,000 characters. The
subject must be in the imperative and have more than 10 characters and more than 4 words. Merges, version bumps, reverts
and commits of bots are left out, and so are subjects that do not say what to change (`commit_messages`). 20% of the
conversations show the whole file, and the other conversations show a window of 31 lines around the change.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from alignment.logs import get_logger
from alignment.models.formats import escape_special_text
from alignment.settings import Count, Positive, Settings, Share
from data_builders.builder import BuildContext
from data_builders.cleaning.clean_files import redacted_path
from data_builders.cleaning.clean_rows import Counts, clean_stream
from data_builders.cleaning.filters import FilterSettings, drop_by_path, drop_by_text
from data_builders.cleaning.licenses import LicensePolicy, file_license, license_of
from data_builders.cleaning.redaction_settings import DEFAULT, RedactionSettings
from data_builders.cleaning.secrets import redact
from data_builders.cleaning.syntax_check import still_parses
from data_builders.commit_messages import drop_by_message, names_of, subject_and_body
from data_builders.fim import row_random
from data_builders.parsing.code_blocks import fence
from data_builders.parsing.languages import detect
from data_builders.repositories import git, history
from data_builders.repositories.history import Commit
from data_builders.repositories.sources import Repository, Sources, cloned, iterate_files
from data_builders.repositories.text_decoding import decode, printable_path
from data_builders.shared_settings import Decontaminated

logger = get_logger(__name__)

_SEPARATOR = "\n\x1e\n"
_BOT = re.compile(
    r"\[bot\]|\bbot\b|dependabot|renovate|greenkeeper|pre-commit-ci|github[- ]?actions|\bsnyk|buildbot|"
    r"^(?:jenkins|travis|weblate|circleci|gitlab|azure)(?:[ -]?(?:ci|server|user|admin|build\w*|automation|pipelines))* <",
    re.IGNORECASE,
)
"""Authors that are programs. Some names of programs are also names of people, so that the whole name must match."""


class CommitLimits(Settings):
    """Conditions that a commit must meet, and options for showing the changed code. Lengths are in characters."""

    max_file_characters: Count = 50_000
    """Maximum length of a changed file, both before and after the change."""
    min_subject_characters: Count = 11
    """Minimum length of the message's first line, without prefixes and issue numbers."""
    min_subject_words: Count = 5
    """Minimum number of words in the message's first line."""
    imperative: bool = True
    """Keep only commits whose subject begins with a verb in the imperative."""
    max_files: Positive = 1
    """Maximum number of files that a commit changes. Conversations show only the first changed file."""
    whole_file_rate: Share = 0.2
    """Share of conversations that show the whole file. Other conversations show a window around the change."""
    window_lines: Count = 31
    """Number of lines to show for a change of one line. A longer change is shown whole, with lines around it."""
    max_changed_lines: Count = 200
    """Maximum number of lines from the first changed line to the last changed line."""


class CommitsSettings(Decontaminated):
    """Settings of the builder `commits`."""

    sources: Sources
    """Git repositories: paths, globs or URLs. A mapping with `path` sets options for one source."""
    form: Literal["conversation", "document"] = "conversation"
    """Form of the rows: `conversation` (the message and the code, answered by the changed code) or `document` (the
    message and the diff)."""
    limits: CommitLimits = CommitLimits()
    """Conditions on the commits that become rows."""
    licenses: LicensePolicy = LicensePolicy()
    """Rules that decide by license which code is kept."""
    redaction: RedactionSettings = RedactionSettings()
    """What is replaced in addition to secrets."""


def is_bot(author: str) -> bool:
    """Whether an author of commits is a program, judged by the name and the e-mail address."""
    return _BOT.search(author) is not None


def drop_commit(commit: Commit, limits: CommitLimits, names: Collection[str] = ()) -> str:
    """Check the author, message and number of files of a commit.

    Return the name of the rule that drops the commit, or "" for a commit that is kept.

    Args:
        commit: the commit.
        limits: the conditions.
        names: full names of people that a message must not contain, from `commit_messages.names_of`.
    """
    if is_bot(commit.author):
        return "bot"
    reason = drop_by_message(
        commit.message,
        names,
        imperative=limits.imperative,
        min_characters=limits.min_subject_characters,
        min_words=limits.min_subject_words,
    )
    if reason or not commit.changes:
        return reason or "no_file"
    return "many_files" if len(commit.changes) > limits.max_files else ""


def window(before: str, after: str, lines: int) -> tuple[str, str, int] | None:
    """Cut the old and the new version of a file to the lines around their difference.

    Args:
        before: the old version.
        after: the new version.
        lines: number of lines to return for a change of one line. A longer change is returned whole, with as many lines
            around it.

    Returns:
        The cut old version, the cut new version and the number of changed lines, or None if the versions are equal.
    """
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
class CommitBatch:
    """Some commits of one repository, with the repository's license."""

    repository: Repository
    license: str
    identifiers: list[str]
    names: frozenset[str] = frozenset()
    """Full names of the repository's authors, which rows must not contain."""


@dataclass(frozen=True)
class CommitRows:
    """Callable that makes rows from a batch of commits, and counts omitted commits. Picklable for worker processes."""

    form: str
    limits: CommitLimits
    licenses: LicensePolicy
    seed: int
    filters: FilterSettings = field(default_factory=FilterSettings)
    redaction: RedactionSettings = DEFAULT

    def __call__(self, batch: CommitBatch) -> tuple[list[dict[str, Any]], Counts]:
        rows: list[dict[str, Any]] = []
        counts: Counts = {name: Counter() for name in ("commits", "commits_left_out", "redacted_in_history")}
        with git.BlobReader(batch.repository.path) as reader:
            commits = []
            for commit in history.read_commits(batch.repository.path, batch.identifiers, reader):
                counts["commits"]["read"] += 1
                reason = drop_commit(commit, self.limits, batch.names) or self._drop_by_paths(commit)
                if reason:
                    counts["commits_left_out"][reason] += 1
                else:
                    commits.append(commit)
            changes = [change for commit in commits for change in commit.changes]
            max_bytes = 4 * self.limits.max_file_characters  # a character has at most four bytes in UTF-8
            blobs = (blob for change in changes for blob in (change.before, change.after))
            contents = reader.read_many(blobs, max_bytes)
            for commit in commits:
                versions = [(next(contents), next(contents)) for _ in commit.changes]
                counts["commits"]["bytes"] += sum(len(content or b"") for pair in versions for content in pair)
                row, reason = self._row(batch, commit, versions, counts)
                if row is None:
                    counts["commits_left_out"][reason] += 1
                else:
                    rows.append(row)
        return rows, counts

    def _drop_by_paths(self, commit: Commit) -> str:
        if not all(change.before and change.after for change in commit.changes):
            return "added_or_deleted"
        unwanted = any(drop_by_path(printable_path(change.path), self.filters) for change in commit.changes)
        return "unwanted_file" if unwanted else ""

    def _row(
        self, batch: CommitBatch, commit: Commit, contents: Sequence[tuple[bytes | None, bytes | None]], counts: Counts
    ) -> tuple[dict[str, Any] | None, str]:
        """Return (row, "") for a commit, or (None, reason) if the commit is left out."""
        files = []
        for change, pair in zip(commit.changes, contents, strict=True):
            versions, reason = self._versions(printable_path(change.path), pair)
            if reason:
                return None, reason
            files.append((redacted_path(change.path, self.redaction), *versions))
        message = "\n\n".join(part for part in subject_and_body(commit.message, batch.names) if part)
        texts = [message, *(text for _, before, after, _ in files for text in (before, after))]
        # Redact all texts together, so that a password gets the same replacement in both versions.
        redacted = redact(_SEPARATOR.join(texts), files[0][3], self.redaction)
        counts["redacted_in_history"].update(redacted.counts)
        parts = redacted.text.split(_SEPARATOR)
        if len(parts) != len(texts):
            return None, "unreadable"
        languages = [language for _, _, _, language in files for _ in range(2)]
        if not all(map(still_parses, texts[1:], parts[1:], languages)):
            return None, "redaction_breaks_syntax"
        parts = [escape_special_text(part) for part in parts]
        licenses = [file_license(versions[2]) or batch.license for versions in files]
        if not all(map(self.licenses.permits, licenses)):
            return None, "license"
        row = {
            "repository": batch.repository.name, "path": files[0][0], "commit": commit.id, "language": files[0][3],
            "license": " AND ".join(sorted(set(licenses))),
        }  # fmt: skip
        if self.form == "document":
            return self._document(row, parts, [path for path, *_ in files]), ""
        return self._conversation(row, parts)

    def _versions(self, path: str, contents: tuple[bytes | None, bytes | None]) -> tuple[tuple[str, str, str], str]:
        """Return ((old text, new text, language), "") for a changed file.

        If the commit has to be dropped, the texts are empty and the second item is the reason.
        """
        nothing = ("", "", "")
        texts = []
        for content in contents:
            if content is None:
                return nothing, "unreadable"
            if len(content) > 4 * self.limits.max_file_characters:
                return nothing, "long_file"  # the reader stopped before the end of the file
            text, reason = decode(content)
            if reason:
                return nothing, "unwanted_file"
            if len(text) > self.limits.max_file_characters:
                return nothing, "long_file"
            texts.append(text)
        language = detect(path, texts[1])
        if not language or drop_by_text(path, texts[1], language, self.filters):
            return nothing, "unwanted_file"
        return (texts[0], texts[1], language), ""

    def _conversation(self, row: dict[str, Any], parts: list[str]) -> tuple[dict[str, Any] | None, str]:
        message, before, after = parts[0], parts[1], parts[2]
        windows = window(before, after, self.limits.window_lines)
        if windows is None:
            return None, "no_visible_change"
        if windows[2] > self.limits.max_changed_lines:
            return None, "large_change"
        if row_random(row | {"text": message}, self.seed, "commit").random() >= self.limits.whole_file_rate:
            before, after = windows[0], windows[1]
        mark = fence(before, after)
        language, path = row["language"], row["path"].replace("\n", "\\n")
        user = f"{message}\n\n`{path}`:\n\n{mark}{language}\n{before}\n{mark}"
        messages = [
            {"role": "user", "content": user},
            {"role": "assistant", "content": f"{mark}{language}\n{after}\n{mark}"},
        ]
        return row | {"messages": messages, "source": f"commit {row['repository']} {row['commit']}"}, ""

    @staticmethod
    def _document(row: dict[str, Any], parts: list[str], paths: list[str]) -> dict[str, Any]:
        lines = [parts[0], ""]
        for number, path in enumerate(paths):
            before, after = parts[1 + 2 * number].split("\n"), parts[2 + 2 * number].split("\n")
            lines += difflib.unified_diff(before, after, f"a/{path}", f"b/{path}", lineterm="")
        return row | {"text": "\n".join(lines) + "\n", "kind": "commit"}


def _batches(repositories: Sequence[Repository], policy: LicensePolicy) -> Iterator[CommitBatch]:
    for repository in repositories:
        license = license_of(repository, iterate_files(repository, FilterSettings().max_bytes, top=True), policy)
        names = names_of(history.author_names(repository.path, repository.commit))
        for identifiers in history.commit_batches(repository.path, repository.commit):
            yield CommitBatch(repository, license, identifiers, names)


def has_commits(repository: Repository) -> bool:
    """Whether a repository has a commit with one parent. A warning names the repositories that have none."""
    if next(history.commit_batches(repository.path, repository.commit), None):
        return True
    logger.warning("%s has no commit with a parent.%s", repository.name, git.shallow_hint(repository.path))
    return False


def build_commits(settings: CommitsSettings, context: BuildContext) -> dict[str, Any]:
    """Write one row for each commit that meets the limits: a conversation about the change, or a document.

    Secrets are replaced; duplicates and rows with benchmark texts are removed.

    Raises:
        ValueError: a source does not exist, or is not a git repository.
    """
    with cloned(settings.sources, context) as repositories:
        for repository in repositories:
            if not repository.is_git:
                raise ValueError(f"{repository.path} is a plain folder: commits need a git repository")
        if not any([has_commits(repository) for repository in repositories]):
            hints = {git.shallow_hint(repository.path) for repository in repositories}
            names = ", ".join(repository.name for repository in repositories)
            raise ValueError(
                f"{names}: there is no commit with a parent, so there is no change to learn from.{max(hints)}"
            )
        used = {
            "form": settings.form, "limits": settings.limits.model_dump(), "licenses": settings.licenses.model_dump(),
            "seed": context.seed, "decontaminate": settings.benchmark_names(), "redaction": settings.redaction.model_dump(),
        }  # fmt: skip
        return clean_stream(
            _batches(repositories, settings.licenses),
            context.out,
            "Commits",
            used,
            kind=settings.form,
            redact=False,  # `CommitRows` has already redacted both versions of a file together
            workers=context.workers,
            decontaminator=settings.decontaminator(),
            prepare=CommitRows(
                settings.form, settings.limits, settings.licenses, context.seed, redaction=settings.redaction
            ),
            report={"sources": [f"{repository.name} {repository.commit}" for repository in repositories]},
        )
