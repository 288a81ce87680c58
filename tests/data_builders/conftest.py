"""Fixtures: a separate cache folder, and git repositories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_helpers import MakeRepository, commit, git


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder for the tests, so that the user's cache stays as it is."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGN_CACHE", str(folder))
        yield folder


@pytest.fixture
def repository(tmp_path: Path) -> MakeRepository:
    def make(files: dict[str, str | bytes], name: str = "project") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        git(folder, "init", "-q", "-b", "main")
        commit(folder, "Lay the ground for the project", files)
        return folder

    return make
