"""Checkpoints: which one is resumed, and what is said about damaged ones."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from damaged_files import DAMAGE, flip
from safetensors.torch import save_file

from alignment.stages.callbacks import Recorder
from alignment.stages.checkpoints import last_whole_checkpoint, write_manifest


def checkpoint(folder, step, ranks, world_size):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"weight": torch.ones(300, 5), "bias": torch.ones(5, dtype=torch.bfloat16)}, path / "model.safetensors")
    for name in (
        "optimizer.pt",
        "scheduler.pt",
        *(f"rng_state_{rank}.pth" for rank in range(world_size)),
        "training_args.bin",
    ):
        torch.save({"state": torch.ones(2000)}, path / name)
    (path / "trainer_state.json").write_text('{"global_step": 4}')
    for rank in ranks:
        write_manifest(path, rank, world_size)
    return path


def test_the_checkpoint_with_the_largest_step_that_every_rank_finished_is_resumed(tmp_path):
    checkpoint(tmp_path, 2, (0, 1), 2)
    newest = checkpoint(tmp_path, 10, (0, 1), 2)
    checkpoint(tmp_path, 12, (0,), 2)
    (tmp_path / "checkpoint-best").mkdir()
    assert last_whole_checkpoint(tmp_path, 2, rank=1) == newest


def test_only_rank_0_removes_a_half_written_checkpoint(tmp_path):
    half = checkpoint(tmp_path, 4, (), 1)
    assert last_whole_checkpoint(tmp_path, 2, rank=1) is None and half.exists()
    assert last_whole_checkpoint(tmp_path, 1, rank=0) is None and not half.exists()


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_truncated_mark_is_ignored(tmp_path, content):
    whole, path = checkpoint(tmp_path, 2, (0,), 1), checkpoint(tmp_path, 4, (0,), 1)
    (path / "whole-0.json").write_text(content)
    assert last_whole_checkpoint(tmp_path, 1) == whole


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt"])
@pytest.mark.parametrize("left", [0, 7, 60, -1])
def test_a_checkpoint_with_truncated_files_is_skipped_and_kept(tmp_path, file, left):
    whole, path = checkpoint(tmp_path, 2, (0,), 1), checkpoint(tmp_path, 4, (0,), 1)
    assert last_whole_checkpoint(tmp_path, 1) == path
    size = (path / file).stat().st_size
    os.truncate(path / file, left if left >= 0 else size - 30)
    assert last_whole_checkpoint(tmp_path, 1) == whole and path.exists()


def test_a_checkpoint_of_another_number_of_processes_is_refused_and_kept(tmp_path):
    path = checkpoint(tmp_path, 4, (0, 1), 2)
    with pytest.raises(ValueError, match="written by 2 processes and this run has 1"):
        last_whole_checkpoint(tmp_path, 1)
    assert path.exists()


FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "trainer_state.json")


def forget_files(path):
    """Leave the manifest that older versions wrote."""
    for mark in path.glob("whole-*.json"):
        mark.write_text(json.dumps({"world_size": json.loads(mark.read_text())["world_size"]}))


@pytest.mark.parametrize("old", [False, True], ids=["manifest", "older"])
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_resumed(tmp_path, file, damage, old, caplog):
    whole, path = checkpoint(tmp_path, 2, (0,), 1), checkpoint(tmp_path, 4, (0,), 1)
    if old:
        forget_files(path)
    assert last_whole_checkpoint(tmp_path, 1) == path and not caplog.records
    DAMAGE[damage](path / file)
    undetected = old and damage == "flipped" and file == "model.safetensors"
    assert last_whole_checkpoint(tmp_path, 1) == (path if undetected else whole) and path.exists()
    if not undetected:
        named = file in caplog.text or (old and damage == "deleted" and "is missing" in caplog.text)
        assert "checkpoint-4 is not used" in caplog.text and named


def test_a_stage_starts_anew_and_says_so_if_no_checkpoint_is_intact(tmp_path, caplog):
    for step in (2, 4):
        (checkpoint(tmp_path, step, (0,), 1) / "optimizer.pt").unlink()
    assert last_whole_checkpoint(tmp_path, 1) is None
    assert "checkpoint-2 is not used" in caplog.text and "the stage starts anew" in caplog.text


def test_files_that_no_resumed_run_reads_may_be_missing(tmp_path, caplog):
    path = checkpoint(tmp_path, 4, (0,), 1)
    (path / "training_args.bin").unlink()
    assert last_whole_checkpoint(tmp_path, 1) == path and not caplog.records


def test_every_rank_checks_a_share_and_all_take_the_same_checkpoint(tmp_path):
    whole, path = checkpoint(tmp_path, 2, (0, 1), 2), checkpoint(tmp_path, 4, (0, 1), 2)
    shares = [json.loads((path / f"whole-{rank}.json").read_text())["files"] for rank in (0, 1)]
    assert not set(shares[0]) & set(shares[1]) and set(FILES) < {*shares[0], *shares[1]} and all(shares)
    flip(path / next(iter(shares[1])))
    heard = []  # what rank 1 finds out about each checkpoint, from the newest
    assert last_whole_checkpoint(tmp_path, 2, 1, lambda damage: heard.append(damage) or [damage]) == whole
    assert "damaged" in heard[0] and heard[1] == ""
    assert last_whole_checkpoint(tmp_path, 2, 0, lambda damage: [damage, heard.pop(0)]) == whole


def test_a_checkpoint_that_is_written_over_a_damaged_one_counts_only_when_it_is_complete(tmp_path):
    whole, path = checkpoint(tmp_path, 2, (0,), 1), checkpoint(tmp_path, 4, (0,), 1)
    torch.save(
        {"state": torch.zeros(2000)}, path / "optimizer.pt"
    )  # a run that was killed while it saved the step again
    assert last_whole_checkpoint(tmp_path, 1) == whole
    Recorder(tmp_path, 0, 1).on_save(SimpleNamespace(output_dir=str(tmp_path)), SimpleNamespace(global_step=4), None)
    assert last_whole_checkpoint(tmp_path, 1) == path
