"""Sending an export to a model hub: only when asked, private unless said otherwise, never what failed its gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.export.export_settings import Push


def _patterns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the rows made, and the model card: whatever else lies in the folder was not asked for."""
    paths = [Path(file) for row in rows for file in row["files"]]
    return ["README.md", *(f"{path.name}/*" if path.is_dir() else path.name for path in paths)]


def publish(folder: Path, rows: Sequence[Mapping[str, Any]], push: Push) -> str:
    """Upload what `rows` made in `folder`, with its model card, and return the repository's name.

    ValueError where a row failed its gate, or where a private push meets a repository that is public already.
    """
    from huggingface_hub import HfApi

    repository, private = push.repository, push.visibility == "private"
    failed = [row["target"] for row in rows if not row["passed"]]
    if failed:
        raise ValueError(f"nothing was pushed: {', '.join(failed)} failed the gate")
    api = HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    if private and not api.repo_info(repository).private:
        raise ValueError(f"nothing was pushed: {repository} exists and is public, the recipe asks for private")
    api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=_patterns(rows))
    return repository
