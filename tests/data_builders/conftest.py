"""A fixture that makes git repositories."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_helpers import MakeRepository, commit, git


@pytest.fixture
def repository(tmp_path: Path) -> MakeRepository:
    def make(files: dict[str, str | bytes], name: str = "project") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        git(folder, "init", "-q", "-b", "main")
        commit(folder, "Lay the ground for the project", files)
        return folder

    return make
