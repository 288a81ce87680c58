"""Callbacks of TRL's trainers: the local log of a resumed run, and when GRPO may save."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch

from alignment.stages import callbacks
from alignment.stages.callbacks import AlreadyTrained, OrderOfEpoch, Recorder
from alignment.stages.grpo import align_saves


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
    assert [(line["step"], line["loss"]) for line in logged] == [(1, 1.0), (2, 2.0)]
    assert all(list(line) == ["step", "max_steps", "seconds", "loss"] for line in logged)


def test_messages_have_tokens_per_second_and_the_time_left(tmp_path, monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(logging.getLogger("alignment"), "propagate", True)
    recorder = Recorder(tmp_path, 0, 1)
    with caplog.at_level(logging.INFO, logger="alignment"):
        for step in (1, 2, 5):
            now[0] = 10.0 * step
            recorder.on_log(None, state(step), None, logs={"loss": 2.0, "num_tokens": 500.0 * step})
    assert caplog.messages == [
        "      step 1/10  loss 2.0000",
        "      step 2/10  loss 2.0000, 50 tokens/s, 80 s left",
        "      step 5/10  loss 2.0000, 50 tokens/s, 50 s left",
    ]


def test_other_ranks_log_nothing(tmp_path):
    Recorder(tmp_path, 1, 2).on_log(None, state(2), None, logs={"loss": 1.0})
    assert not (tmp_path / "metrics.jsonl").exists()


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
