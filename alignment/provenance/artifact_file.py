"""Reads `artifact.json`, the file that marks an artifact as complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ARTIFACT = "artifact.json"
Artifact = dict[str, Any]
"""The content of an `artifact.json`, which the conductor writes."""


def read(folder: Path) -> Artifact | None:
    """Read the artifact.json in a folder. Return None if the step is not done.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        artifact = json.loads((folder / ARTIFACT).read_text())
        if not isinstance(artifact, dict) or not artifact:
            raise ValueError("not a JSON object with content")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder / ARTIFACT} can't be read ({error}): delete the folder {folder} to run the step again"
        ) from None
    return artifact


def folder_name(step: str, fingerprint: str) -> str:
    """Return the name of an artifact's folder."""
    return f"{step}-{fingerprint[:12]}"
