"""Texts of repair tasks: the cleaned message of a commit, the description of its pull request, or a model's text.

The text of a bug that was put into a function is made from the failing tests. It says what fails, not where or why.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_builders.commit_messages import drop_by_message, subject_and_body
from data_builders.models.writers import Author
from data_builders.pull_requests import description, records
from data_builders.repositories.history import Commit

MIN_SUBJECT_CHARACTERS, MIN_SUBJECT_WORDS = 11, 3
"""Minimum length of the first line of a message or pull request that becomes a task."""
MAX_PATCH_CHARACTERS = 12_000
"""Number of characters of a patch that a writer model sees."""
LEAK_CHARACTERS = 20
"""A written text that contains an added line of the patch with at least this many characters gives the fix away."""
_NUMBER_AT_END = re.compile(r"\(#(\d+)\)\s*$|\(!(\d+)\)\s*$|^Merge pull request #(\d+)")
_WRITER_REQUEST = """Write an issue for the repository `{repository}`, as a user who knows the problem but not its solution.

The message of the commit that solved it:

{message}

The change of the commit:

{patch}

Describe in at most 150 words what is wrong or missing, with the exact names of functions, arguments and messages that a \
solution needs. Do not say how to change the code, and do not mention the commit or tests. Answer with the text of the \
issue alone."""


class PullRequestTexts:
    """Descriptions of pull requests, found by the id of their merge commit or by their number.

    Args:
        exports: exported files, see the builder `pull_requests`.
    """

    def __init__(self, exports: Iterable[Path] = ()) -> None:
        self._by_commit: dict[str, str] = {}
        self._by_number: dict[str, str] = {}
        for path in exports:
            for record in records(path):
                self._add(record)

    def _add(self, record: Mapping[str, Any]) -> None:
        text = f"{record.get('title', '')}\n\n{description(record)}"
        merge = record.get("mergeCommit")
        names = [record.get("merge_commit_sha"), record.get("squash_commit_sha")]
        names += [merge.get("oid")] if isinstance(merge, dict) else []
        self._by_commit.update({str(name): text for name in names if name})
        number = record.get("number") or record.get("iid")
        if number is not None:
            self._by_number[str(number)] = text

    def text_of(self, commit: Commit) -> str | None:
        """Return the title and the description of the pull request that a commit merges, or None if it is unknown."""
        if commit.id in self._by_commit:
            return self._by_commit[commit.id]
        match = _NUMBER_AT_END.search(commit.message.split("\n", 1)[0])
        number = next((group for group in match.groups() if group), "") if match else ""
        return self._by_number.get(number)


def commit_issue(commit: Commit, pull_requests: PullRequestTexts, names: Collection[str]) -> tuple[str, str]:
    """Return (text of the issue, "") for a commit, or ("", reason) if neither its message nor its pull request says
    what to change.
    """
    reason = ""
    for text in (pull_requests.text_of(commit), commit.message):
        if text is None:
            continue
        reason = drop_by_message(
            text, names, imperative=False, min_characters=MIN_SUBJECT_CHARACTERS, min_words=MIN_SUBJECT_WORDS
        )
        if not reason:
            return "\n\n".join(part for part in subject_and_body(text, names) if part), ""
    return "", reason


def written_issues(
    author: Author, requests: Sequence[tuple[str, str, str]], temperature: float, seed: int
) -> list[tuple[str, str]]:
    """Let a model write the texts of issues.

    Args:
        author: the model.
        requests: repository, message of the commit and patch of each issue.
        temperature: sampling temperature.
        seed: seed of sampling.

    Returns:
        (text, "") for each request, or ("", reason) if the model wrote nothing, or gave the fix away.
    """
    prompts = [
        _WRITER_REQUEST.format(repository=repository, message=message, patch=patch[:MAX_PATCH_CHARACTERS])
        for repository, message, patch in requests
    ]
    answers = author.answers(
        [[{"role": "user", "content": text}] for text in prompts], 1, temperature=temperature, seed=seed
    )
    return [_checked(texts, patch) for texts, (_, _, patch) in zip(answers, requests, strict=True)]


def _checked(texts: Sequence[str], patch: str) -> tuple[str, str]:
    text = texts[0].strip() if texts else ""
    if not text:
        return "", "writer_said_nothing"
    added = (line[1:].strip() for line in patch.split("\n") if line.startswith("+") and not line.startswith("+++"))
    if any(len(line) >= LEAK_CHARACTERS and line in text for line in added):
        return "", "writer_gave_the_fix"
    return text, ""


def bug_issue(failures: Mapping[str, str]) -> str:
    """Return the text of the issue of a bug.

    Args:
        failures: the last line of the traceback of each visible failing test, keyed by the test.
    """
    lines = [f"- `{name}`: {detail}" if detail else f"- `{name}`" for name, detail in failures.items()]
    return "\n".join(
        [
            "Something in the code stopped working. These tests fail, and there may be others with the same cause:",
            "",
            *lines,
            "",
            "Find the cause in the code and correct it. The tests are right.",
        ]
    )
