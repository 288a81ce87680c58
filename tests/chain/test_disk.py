"""A stage that fails on a full disk reports the full disk, whatever error the library raised."""

import pytest
import tiny

from alignment import processes
from alignment.chain.conductor import ChainStopped, run
from alignment.planning import disk
from alignment.processes import StageFailed
from alignment.recipe import load


def test_a_disk_with_hardly_any_space_is_reported_as_full(tmp_path, monkeypatch):
    assert disk.disk_full_hint(tmp_path) == ""
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 5_000_000)
    assert "The disk is full" in disk.disk_full_hint(tmp_path) and "5 MB left" in disk.disk_full_hint(tmp_path)


def test_a_stage_that_fails_on_a_full_disk_is_reported_with_it(tmp_path, monkeypatch):
    def fails(*_):
        raise StageFailed("ended with code 1")

    stages = {"data": {"kind": "build", "builder": "synthetic", "settings": {"modules": 3}}}
    (tmp_path / "tokenizer").mkdir()
    recipe = load(tiny.write_recipe(tmp_path, stages))
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 5_000_000)
    monkeypatch.setattr(processes, "run", fails)
    with pytest.raises(ChainStopped, match=r"ended with code 1\n  The disk is full: .*5 MB left"):
        run(recipe, environment={})
