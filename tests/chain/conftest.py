"""Fixture: new folders with a tokenizer and rows, one folder for each recipe."""

import shutil
from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def make_workshop(tmp_path_factory, tiny_tokenizer_dir):
    """A function that makes a new folder with a tokenizer and rows."""

    def make() -> Path:
        folder = tmp_path_factory.mktemp("chain")
        shutil.copytree(tiny_tokenizer_dir, folder / "tokenizer")
        tiny.write_rows(folder)
        return folder

    return make
