"""`align lineage`: show of what an artifact was made, and find the artifacts that contain a repository.

align lineage runs/app/export                         what is in this artifact
align lineage runs/app                                the same for all artifacts of a recipe
align lineage runs --source shop                      which artifacts contain the repository `shop`
align lineage runs --source shop --commit 2281a204    ... at this commit
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.cli.shared_options import add_command, add_json

if TYPE_CHECKING:
    from alignment.cli.shared_options import Commands
    from alignment.provenance.lineage import Lineage

TITLES = {
    "learned": "learned from",
    "calibrated": "calibrated on",
    "measured": "measured on",
    "screened": "screened against (no text of it was learned)",
}
WORDS = {
    "learned": "learned from it",
    "calibrated": "calibrated on it",
    "measured": "measured on it",
    "screened": "screened against it",
}


def add(commands: Commands) -> None:
    """Add the parser."""
    lineage = add_command(
        commands, "lineage", "Show of what artifacts were made, or find the artifacts that contain a repository."
    )
    lineage.add_argument(
        "folder",
        type=Path,
        nargs="+",
        help="folder of a stage (runs/NAME/sft), of a recipe (runs/NAME), or of several recipes",
    )
    lineage.add_argument(
        "--source",
        metavar="NAME",
        help="find the artifacts that contain this repository; a pattern such as 'team-*' works",
    )
    lineage.add_argument("--commit", metavar="SHA", help="only at this commit; the first 4 characters or more")
    add_json(lineage)
    lineage.set_defaults(handler=_lineage)


def _lineage(arguments: argparse.Namespace) -> int:
    from alignment.provenance.lineage import find_artifacts, trace

    if arguments.commit is not None and len(arguments.commit) < 4:
        raise ValueError(f"--commit {arguments.commit}: give at least 4 characters of the commit")
    lineages = [trace(artifact) for artifact in find_artifacts(arguments.folder)]
    if arguments.source is not None or arguments.commit is not None:
        return _find(lineages, arguments)
    if arguments.json:
        print(json.dumps([_document(lineage) for lineage in lineages], indent=2))
    else:
        print("\n\n".join("\n".join(_description(lineage)) for lineage in lineages))
    return 0


def _find(lineages: Sequence[Lineage], arguments: argparse.Namespace) -> int:
    """Print the artifacts that contain the repository of `--source` and `--commit`, or were measured on it."""
    rows: list[dict[str, str]] = []
    for lineage in lineages:
        for origin in lineage.repositories():
            if origin.matches(arguments.source, arguments.commit):
                artifact = lineage.artifact
                row = {"artifact": str(artifact.folder), "stage": artifact.name, "kind": artifact.kind}
                rows.append(row | dataclasses.asdict(origin))
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        words = "made of it" if (row["kind"], row["role"]) == ("build", "learned") else WORDS[row["role"]]
        print(f"{Path(row['artifact']).name:32} {row['kind']:9} {words:20} {row['name']} {_commit(row)}")
    if not rows:
        known = sorted({f"{origin.name} {origin.commit[:12]}" for item in lineages for origin in item.repositories()})
        wanted = " ".join(filter(None, (arguments.source, arguments.commit)))
        print(
            f"none of {len(lineages)} artifacts contains {wanted}. They contain: {', '.join(known) or 'no repository'}"
        )
    return 0


def _commit(origin: dict[str, str]) -> str:
    text = origin["commit"][:12] or "(folder)"
    return f"{text}..{origin['head'][:12]}" if origin["head"] else text


def _document(lineage: Lineage) -> dict[str, Any]:
    """Return the values that `--json` prints for an artifact."""
    return {
        "artifact": str(lineage.artifact.folder),
        "stage": lineage.artifact.name,
        "kind": lineage.artifact.kind,
        "fingerprint": lineage.artifact.content.get("fingerprint"),
        "base_models": lineage.base_models(),
        "repositories": [dataclasses.asdict(origin) for origin in lineage.repositories()],
        "files": [dataclasses.asdict(origin) for origin in lineage.files()],
        "artifacts": [
            {"folder": item.folder.name, "kind": item.kind, "role": lineage.roles[item.folder]}
            for item in lineage.artifacts
            if item is not lineage.artifact
        ],
        "missing": lineage.missing(),
    }


def _description(lineage: Lineage) -> list[str]:
    """Return the lines that describe an artifact."""
    from alignment.provenance.base_model import describe_base

    lines = [f"{lineage.artifact.folder.name} ({lineage.artifact.kind})"]
    lines += [f"  base model: {describe_base(base)}" for base in lineage.base_models()]
    for role, title in TITLES.items():
        if (lineage.artifact.kind, role) == ("build", "learned"):
            title = "made of"
        entries = [
            f"{origin.name} {_commit(dataclasses.asdict(origin))}{f', {origin.license}' if origin.license else ''}"
            f"  (read by {origin.read_by})"
            for origin in lineage.repositories()
            if origin.role == role
        ]
        entries += [
            f"{file.path}{f', sha256 {file.sha256[:12]}' if file.sha256 else ' (hub)'}  (read by {file.read_by})"
            for file in lineage.files()
            if file.role == role
        ]
        if entries:
            lines += [f"  {title}:", *(f"    {entry}" for entry in entries)]
    lines += [f"  missing: {name} was removed; what it was made of is unknown" for name in lineage.missing()]
    return lines if len(lines) > 1 else [*lines, "  made of nothing that is recorded"]
