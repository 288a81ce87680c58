"""Pull requests and issues from exports that the user already has, as documents.

Accepted are JSON arrays or JSONL of what `gh pr list --json ...`, `gh issue list --json ...`, and the REST
interfaces of GitHub and GitLab give. People become `user_0`, `user_1`, ... in the order in which they speak; bots are
left out. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.models.formats import escape_special_text
from alignment.rows import reading as row_files
from data_builders.cleaning.clean_rows import clean_stream
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.storage.parallel import row_batches

_BOT = re.compile(
    r"\[bot\]$|^(?:dependabot|renovate|github-actions|codecov|coveralls|stale|mergify|snyk|sonarcloud)", re.IGNORECASE
)
MIN_CHARACTERS = 80
MAX_CHARACTERS = 50_000
_HIDDEN = re.compile(r"<!--.*?-->", re.DOTALL)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".json":
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        items = data if isinstance(data, list) else [data]
        if not all(isinstance(item, dict) for item in items):
            raise ValueError(f"{path} holds something else than a list of pull requests or issues")
        yield from items
    else:
        yield from row_files.read(path)


def _author(record: Mapping[str, Any]) -> str:
    person = record.get("author") or record.get("user") or {}
    return (
        str(person.get("login") or person.get("username") or person.get("name") or "")
        if isinstance(person, dict)
        else str(person)
    )


def _remarks(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Author and text of the description and of every comment, review and note, oldest first."""
    said = [(_author(record), str(record.get("body") or record.get("description") or ""))]
    later: list[tuple[str, str, str]] = []
    for key in ("comments", "reviews", "notes", "discussions"):
        entries = record.get(key)
        for entry in (item for item in entries if isinstance(item, dict)) if isinstance(entries, list) else ():
            for note in entry.get("notes") or [entry]:
                if not note.get("system"):
                    when = str(note.get("createdAt") or note.get("created_at") or note.get("submittedAt") or "")
                    later.append((when, _author(note), str(note.get("body") or "")))
    said += [(author, body) for _, author, body in sorted(later, key=lambda item: item[0])]
    cleaned = [(author, _HIDDEN.sub("", body).replace("\r\n", "\n").strip()) for author, body in said]
    return [(author, body) for author, body in cleaned if body and not _BOT.search(author)]


def conversation_text(record: Mapping[str, Any]) -> str:
    """`Title: ...` and what everybody said, with people numbered, also where they are mentioned."""
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


def build_pull_requests(
    exports: Sequence[Path],
    out: Path,
    *,
    repository: str = "",
    decontaminate: Sequence[Path] = (),
    workers: int = 1,
    progress: bool | None = None,
) -> dict[str, Any]:
    """One document for each pull request or issue of the exports; secrets and e-mails are replaced.

    Args:
        exports: JSON or JSONL files, as `gh pr list --json ...` or GitLab's interface give them.
        repository: what rows call the repository.
        decontaminate: benchmark files and folders whose texts must not be in the result.
    """
    report: dict[str, Any] = {"left_out": Counter(), "sources": [Path(path).name for path in exports]}

    def rows() -> Iterator[dict[str, Any]]:
        for path in exports:
            for record in _records(Path(path)):
                if "title" not in record:
                    raise ValueError(
                        f"{path}: a pull request or issue needs a title; this record has "
                        f"{', '.join(sorted(record))[:200]}"
                    )
                text = conversation_text(record)
                if _BOT.search(_author(record)):
                    report["left_out"]["bot"] += 1
                elif not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
                    report["left_out"]["length"] += 1
                else:
                    number = str(record.get("number") or record.get("iid") or "")
                    yield {
                        "text": escape_special_text(text) + "\n",
                        "repository": repository,
                        "path": number,
                        "commit": "",
                        "language": "text",
                        "license": "owned",
                        "kind": "pull_request",
                    }

    used = {"repository": repository, "decontaminate": [Path(path).name for path in decontaminate]}
    return clean_stream(
        row_batches(rows()),
        Path(out),
        "Pull requests and issues",
        used,
        kind="document",
        workers=workers,
        progress=progress,
        report=report,
        decontaminator=Decontaminator.from_paths(decontaminate) if decontaminate else None,
    )
