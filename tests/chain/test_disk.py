"""A full disk is called one, whatever the library that met it first made of it."""

import pytest

from alignment.chain import conductor as chain
from alignment.planning import disk
from alignment.processes import StageFailed, World


def test_a_stage_that_fails_on_a_full_disk_says_so(tmp_path, monkeypatch):
    assert disk.full(tmp_path) == ""
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 5_000_000)
    assert "The disk is full" in disk.full(tmp_path) and "5 MB left" in disk.full(tmp_path)


def test_the_chain_says_it_too(tmp_path, monkeypatch):
    class Step:
        name, kind, trains, folder, rung = "sft", "sft", True, tmp_path, None

        def artifact(self):
            return None

    def fails(*_):
        raise StageFailed("ended with code 1")

    monkeypatch.setattr(disk, "free_bytes", lambda folder: 5_000_000)
    monkeypatch.setattr(chain, "_execute", fails)
    with pytest.raises(chain.ChainStopped, match=r"ended with code 1\n  The disk is full: .*5 MB left"):
        chain._run_step(None, Step(), [Step()], 0, World(0, 1, None), {})
