"""Stages' data sources without a recipe."""

import json
from types import SimpleNamespace

import pytest


@pytest.fixture
def source(tmp_path):
    """Write rows as JSONL; gives what a recipe's `data:` entry looks like to a stage."""

    def write(rows, name="rows.jsonl", share=None, limit=None):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return SimpleNamespace(data=str(path), share=share, rows=limit)

    return write
