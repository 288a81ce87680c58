"""Callbacks of TRL's trainers: which checkpoint is resumed, the local log after it, and when GRPO may save."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from alignment.stages.callbacks import AlreadyTrained, OrderOfEpoch, Recorder, last_whole_checkpoint
from alignment.stages.grpo import align_saves


def checkpoint(folder, step, ranks, world_size):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"weight": torch.ones(3, 5), "bias": torch.ones(5, dtype=torch.bfloat16)}, path / "model.safetensors")
    torch.save({"state": torch.ones(7)}, path / "optimizer.pt")
    for rank in ranks:
        (path / f"whole-{rank}.json").write_text(json.dumps({"world_size": world_size}))
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


def state(step, most=10):
    return SimpleNamespace(global_step=step, max_steps=most, epoch=0.0)


def test_a_resumed_log_drops_steps_after_the_checkpoint_and_a_truncated_line(tmp_path):
    recorder = Recorder(tmp_path, 0, 1)
    for step in (1, 2, 3):
        recorder.on_log(None, state(step), None, logs={"loss": float(step), "words": "left out"})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    Recorder(tmp_path, 0, 1).on_train_begin(None, state(2), None)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert logged == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}]


def test_other_ranks_log_nothing_and_mark_their_part_of_a_checkpoint(tmp_path):
    args = SimpleNamespace(output_dir=str(tmp_path))
    (tmp_path / "checkpoint-2").mkdir()
    recorder = Recorder(tmp_path, 1, 2)
    recorder.on_log(None, state(2), None, logs={"loss": 1.0})
    recorder.on_save(args, state(2), None)
    assert not (tmp_path / "metrics.jsonl").exists()
    assert json.loads((tmp_path / "checkpoint-2" / "whole-1.json").read_text()) == {"world_size": 2}
    assert last_whole_checkpoint(tmp_path, 2, rank=1) is None
    Recorder(tmp_path, 0, 2).on_save(args, state(2), None)
    assert last_whole_checkpoint(tmp_path, 2, rank=1) == tmp_path / "checkpoint-2"


def test_a_run_that_resumes_from_its_last_step_trains_no_further():
    recorder = Recorder.__new__(Recorder)
    recorder.on_step_begin(None, state(9), None)
    with pytest.raises(AlreadyTrained):
        recorder.on_step_begin(None, state(10), None)


def test_the_order_of_an_epoch_depends_only_on_its_number_and_the_seed():
    generator = torch.Generator()
    loader = SimpleNamespace(batch_sampler=SimpleNamespace(sampler=SimpleNamespace(generator=generator)))

    def order(epoch, seed=3):
        at = SimpleNamespace(epoch=epoch)
        OrderOfEpoch().on_epoch_begin(SimpleNamespace(seed=seed), at, None, train_dataloader=loader)
        return torch.randperm(20, generator=generator).tolist()

    first = order(0.0)
    second = order(1.0)
    assert order(0.0) == first != second == order(1.0)
    assert order(0.0, seed=4) != first


def grpo(save_steps, per_generation=4, iterations=1, accumulation=1, strategy="steps"):
    return SimpleNamespace(
        save_strategy=strategy, save_steps=save_steps, steps_per_generation=per_generation,
        num_iterations=iterations, gradient_accumulation_steps=accumulation,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (grpo(8), 8),
        (grpo(6), 8),
        (grpo(1), 4),
        (grpo(3, iterations=2), 8),
        (grpo(3, per_generation=4, accumulation=4), 3),  # every step generates anew
        (grpo(3, per_generation=6, accumulation=4), 3),  # 12 batches are 3 steps
        (grpo(3, strategy="no"), 3),
    ],
)
def test_checkpoints_are_saved_before_completions_are_generated_anew(args, expected):
    align_saves(args)
    assert args.save_steps == expected


def test_save_steps_as_a_share_of_the_steps_is_refused():
    with pytest.raises(ValueError, match="whole number of steps"):
        align_saves(grpo(0.1))
