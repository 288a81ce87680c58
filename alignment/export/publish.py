"""Sending an export to a model hub: only when asked, private unless said otherwise, never what failed its gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PUSH_KEYS = ("repository", "visibility")


def check_push(push: Mapping[str, Any] | str | None) -> tuple[str, bool] | None:
    """The repository to push to and whether it is to be private, or None where nothing is to be sent.

    A recipe says `push: {repository: team/model, visibility: private}`. Any other form is an error: a misspelt
    `private` must not make a model public.
    """
    if push is None:
        return None
    if not isinstance(push, Mapping) or set(push) != set(PUSH_KEYS):
        raise ValueError("push takes `repository` and `visibility` (private or public), both of them and no more")
    if push["visibility"] not in ("private", "public"):
        raise ValueError(f"push: visibility is private or public, not {push['visibility']!r}")
    if str(push["repository"]).count("/") != 1:
        raise ValueError(f"push: a repository is `owner/name`, not {push['repository']!r}")
    return str(push["repository"]), push["visibility"] == "private"


def publish(folder: Path, rows: Sequence[Mapping[str, Any]], repository: str, private: bool) -> str:
    """Upload `folder` and return its address. Files whose name begins with `broken-` stay here.

    ValueError where a row failed its gate, or where a private push meets a repository that is public already.
    """
    from huggingface_hub import HfApi

    failed = [row["target"] for row in rows if not row["passed"]]
    if failed:
        raise ValueError(f"nothing was pushed: {', '.join(failed)} failed the gate")
    api = HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    if private and not api.repo_info(repository).private:
        raise ValueError(f"nothing was pushed: {repository} exists and is public, the recipe asks for private")
    api.upload_folder(repo_id=repository, folder_path=folder, ignore_patterns=["**/broken-*", "broken-*", ".*"])
    return repository
