"""A full disk is called one, whatever the library that met it first made of it."""

import pytest
import tiny

from alignment import processes
from alignment.chain.conductor import ChainStopped, run
from alignment.planning import disk
from alignment.processes import StageFailed
from alignment.recipe import load


def test_a_stage_that_fails_on_a_full_disk_says_so(tmp_path, monkeypatch):
    assert disk.disk_full_hint(tmp_path) == ""
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 5_000_000)
    assert "The disk is full" in disk.disk_full_hint(tmp_path) and "5 MB left" in disk.disk_full_hint(tmp_path)


def test_the_chain_says_it_too(tmp_path, monkeypatch):
    def fails(*_):
        raise StageFailed("ended with code 1")

    stages = {"data": {"kind": "build", "builder": "synthetic", "settings": {"modules": 3}}}
    (tmp_path / "tokenizer").mkdir()
    recipe = load(tiny.write_recipe(tmp_path, stages))
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 5_000_000)
    monkeypatch.setattr(processes, "run", fails)
    with pytest.raises(ChainStopped, match=r"ended with code 1\n  The disk is full: .*5 MB left"):
        run(recipe, environment={})
