"""Upload an export to the Hugging Face Hub, if the user asks for the upload and every target passed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignment.export.export_row import ExportRow
from alignment.export.export_settings import Push

BOM = "mlbom.cdx.json"
"""Name of the ML-BOM."""
CONTENT_SUMMARY = "training-content.md"
"""Name of the summary of the training content."""
DOCUMENTS = ("README.md", BOM, CONTENT_SUMMARY)
"""Names of the files that describe an export."""


def upload_patterns(rows: Sequence[ExportRow]) -> list[str]:
    """Return patterns of the files to upload: the documents and the files of the rows. Other files stay local."""
    paths = [Path(file) for row in rows for file in row["files"]]
    return [*DOCUMENTS, *(f"{path.name}/*" if path.is_dir() else path.name for path in paths)]


def publish(folder: Path, rows: Sequence[ExportRow], push: Push) -> str:
    """Upload the files of `rows` and the model card in `folder`. Return the repository's name.

    Raises:
        ValueError: A target did not pass, or `visibility` is private and the repository is public.
    """
    from huggingface_hub import HfApi

    repository, private = push.repository, push.visibility == "private"
    failed = [row["target"] for row in rows if not row["passed"]]
    if failed:
        raise ValueError(f"nothing was uploaded: {', '.join(failed)} missed the limits of the comparison")
    api = HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    if private and not api.repo_info(repository).private:
        raise ValueError(
            f"nothing was uploaded: {repository} exists and is public, but `visibility` is private. Make the repository "
            "private, or name another repository."
        )
    api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=upload_patterns(rows))
    return repository
