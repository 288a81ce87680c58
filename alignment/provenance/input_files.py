"""Describes the files outside of a chain that a step reads: digest, and the repositories that they were made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_builders.storage.dataset import read_report

_NAME_AND_COMMIT = re.compile(r"([^\s;(,]+) ([0-9a-f]{40}(?:[0-9a-f]{24})?|folder)\b")


def describe_files(files: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return `{path, sha256, title, license, sources}` of each file or folder, as artifact.json records them.

    `title`, `licenses` and `sources` are those of the dataset's `report.json`, for datasets that `align build` made.

    Args:
        files: path -> SHA-256 digest, or `hub` for a name on the Hugging Face hub.
    """
    descriptions = []
    for path, digest in files.items():
        entry: dict[str, Any] = {"path": path, "sha256": digest} if digest != "hub" else {"hub": path}
        report = _report(Path(path)) if digest != "hub" else None
        if report is not None:
            entry["title"] = report.get("title", "")
            entry["licenses"] = report.get("licenses", {})
            entry["sources"] = parse_sources(map(str, report.get("sources", [])))
        descriptions.append(entry)
    return descriptions


def _report(path: Path) -> dict[str, Any] | None:
    try:
        return read_report(path)
    except (OSError, ValueError):  # another program's report.json
        return None


def parse_sources(texts: Iterable[str]) -> list[dict[str, str]]:
    """Find the repositories in the `sources` of a dataset's report, as `{name, commit}`.

    A text is `NAME COMMIT`, `NAME folder`, or the description of an input dataset with such texts in parentheses.
    """
    repositories: dict[tuple[str, str], dict[str, str]] = {}
    for text in texts:
        for name, commit in _NAME_AND_COMMIT.findall(text):
            if name != "sha256":
                commit = "" if commit == "folder" else commit
                repositories[name, commit] = {"name": name, "commit": commit}
    return list(repositories.values())
