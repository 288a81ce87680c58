"""Builder `pull_requests`: make documents from exported pull requests and issues.

The builder reads JSON arrays or JSON lines in the format of `gh pr list --json ...`, `gh issue list --json ...` and the
REST interfaces of GitHub and GitLab. Names of people are replaced by `user_0`, `user_1`, ... in the order of their
first comments. Comments of bots are left out. Nothing is fetched from a server.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment.models.formats import escape_special_text
from alignment.rows import reading as row_files
from alignment.settings import Reference
from data_builders.builder import BuildContext
from data_builders.cleaning.clean_rows import clean_stream
from data_builders.cleaning.redaction_settings import RedactionSettings
from data_builders.shared_settings import Decontaminated
from data_builders.storage.parallel import row_batches

MIN_CHARACTERS = 80
MAX_CHARACTERS = 50_000
"""Maximum length of a document. Longer documents, and documents shorter than `MIN_CHARACTERS`, are left out."""
_BOT = re.compile(
    r"\[bot\]$|^(?:dependabot|renovate|github-actions|codecov|coveralls|stale|mergify|snyk|sonarcloud)", re.IGNORECASE
)
_HIDDEN = re.compile(r"<!--.*?-->", re.DOTALL)


class PullRequestsSettings(Decontaminated):
    """Settings of the builder `pull_requests`."""

    exports: list[Reference]
    """JSON or JSONL files in the format of `gh pr list --json ...` or of GitLab's REST interface."""
    repository: str = ""
    """Value of the column `repository`."""
    redaction: RedactionSettings = RedactionSettings()
    """What is replaced in addition to secrets."""


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the pull requests and issues of an exported file. Raises ValueError if the file is not JSON."""
    if path.suffix == ".json":
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        items = data if isinstance(data, list) else [data]
        if not all(isinstance(item, dict) for item in items):
            raise ValueError(f"{path} must hold a list of pull requests or issues (JSON objects)")
        yield from items
    else:
        yield from row_files.read(path)


def _author(record: Mapping[str, Any]) -> str:
    person = record.get("author") or record.get("user") or {}
    if not isinstance(person, dict):
        return str(person)
    return str(person.get("login") or person.get("username") or person.get("name") or "")


def description(record: Mapping[str, Any]) -> str:
    """Return the description of a pull request or issue, without hidden comments of its template."""
    return _visible(str(record.get("body") or record.get("description") or ""))


def _visible(text: str) -> str:
    return _HIDDEN.sub("", text).replace("\r\n", "\n").strip()


def _remarks(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (author, text) of the description, then of all comments, reviews and notes, oldest first."""
    opening = (_author(record), description(record))
    later: list[tuple[str, str, str]] = []
    for key in ("comments", "reviews", "notes", "discussions"):
        entries = record.get(key)
        for entry in (item for item in entries if isinstance(item, dict)) if isinstance(entries, list) else ():
            for note in entry.get("notes") or [entry]:
                if not note.get("system"):
                    time = str(note.get("createdAt") or note.get("created_at") or note.get("submittedAt") or "")
                    later.append((time, _author(note), str(note.get("body") or "")))
    ordered = [opening, *((author, body) for _, author, body in sorted(later, key=lambda item: item[0]))]
    cleaned = [(author, _visible(body)) for author, body in ordered]
    return [(author, body) for author, body in cleaned if body and not _BOT.search(author)]


def conversation_text(record: Mapping[str, Any]) -> str:
    """Format the title and all remarks as text. Names of authors, also in mentions, are replaced by numbered names."""
    remarks = _remarks(record)
    names: dict[str, str] = {}
    for author, _ in remarks:
        names.setdefault(author, f"user_{len(names)}")
    text = "\n\n".join([f"Title: {record.get('title', '')}", *(f"{names[author]}: {body}" for author, body in remarks)])
    for author, name in names.items():
        if author:
            text = re.sub(rf"@{re.escape(author)}\b", f"@{name}", text)
    difference = record.get("diff") or record.get("patch")
    return f"{text}\n\n{difference}" if isinstance(difference, str) and difference else text


def build_pull_requests(settings: PullRequestsSettings, context: BuildContext) -> dict[str, Any]:
    """Write one document for each exported pull request or issue. Secrets and e-mail addresses are replaced.

    Raises:
        ValueError: a file is not JSON, or contains records that are not pull requests or issues.
    """
    exports = [path.path() for path in settings.exports]
    left_out: Counter[str] = Counter()
    return clean_stream(
        row_batches(_rows(exports, settings.repository, left_out)),
        context.out,
        "Pull requests and issues",
        {
            "repository": settings.repository,
            "decontaminate": settings.benchmark_names(),
            "redaction": settings.redaction.model_dump(),
        },
        kind="document",
        workers=context.workers,
        report={"left_out": left_out, "sources": [path.name for path in exports]},
        decontaminator=settings.decontaminator(),
        redaction=settings.redaction,
    )


def _rows(exports: list[Path], repository: str, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield one document for each pull request or issue. Omitted records are counted by reason in `left_out`."""
    for path in exports:
        for record in records(path):
            if "title" not in record:
                columns = ", ".join(sorted(record))[:200]
                raise ValueError(f"{path}: a pull request or issue needs a title; this record has {columns}")
            text = conversation_text(record)
            if _BOT.search(_author(record)):
                left_out["bot"] += 1
            elif not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
                left_out["length"] += 1
            else:
                yield {
                    "text": escape_special_text(text) + "\n",
                    "repository": repository,
                    "path": str(record.get("number") or record.get("iid") or ""),
                    "commit": "",
                    "language": "text",
                    "license": "owned",
                    "kind": "pull_request",
                }
