"""Rows of their own for every epoch: other middles, whole samples, the same order after an interruption."""

import itertools
import json
import random

import pytest
from datasets import load_from_disk
from trl import SFTConfig

from alignment.models import formats
from alignment.recipe.stage_parts import Fim
from alignment.recipe.stage_request import BenchmarkRows, ScreenTargets
from alignment.stages.sft import epochs_of
from alignment.stages.token_trainer import TokenTrainer
from alignment.tokenization.epoch_order import EpochSampler
from alignment.tokenization.prepare import EPOCHS, write_training_rows
from alignment.tokenization.segments import TokenizationRules

LENGTH = 160


def code(number):
    """A module of functions that no other module has."""
    return "".join(
        f"def scale_{number}_{part}(value):\n    factor = {number * 31 + part}\n    return value * factor\n\n\n"
        for part in range(1 + number % 7)
    )


@pytest.fixture
def documents(source):
    return source([{"text": code(number), "path": f"m{number}.py"} for number in range(40)])


def rules(level="context", **changes):
    fim = Fim(level=level, rate=0.5)
    settings = {"max_length": LENGTH, "overlong": "split", "fim_rate": fim.rate, "spm_rate": 0.0, "fim_spans": "lines"}
    context = fim if level == "context" else None
    return TokenizationRules(**{**settings, "packing": "fill", "context_fim": context, **changes})


def prepare(sources, tokenizer, folder, epochs=1, seed=0, targets=None, **changes):
    folder.mkdir(exist_ok=True)
    arguments = [] if targets is None else [targets]
    counts = write_training_rows(
        sources, tokenizer, rules(**changes), seed, folder, *arguments, epochs_for=lambda rows: epochs
    )
    assert not list(folder.glob("epoch-*"))
    return load_from_disk(str(folder / "train")), counts


def samples_of(rows):
    """The samples of packed rows."""
    for row in rows:
        ends = list(itertools.accumulate(row["seq_lengths"], initial=0))
        yield from (row["input_ids"][start:end] for start, end in itertools.pairwise(ends))


def fim_samples(rows, tokenizer):
    mark = formats.token_id(tokenizer, formats.FIM_PREFIX)
    return [tuple(sample) for sample in samples_of(rows) if mark in sample]


def test_packing_splits_no_fim_sample_and_the_figures_are_those_of_the_rows(documents, tiny_tokenizer, tmp_path):
    rows, counts = prepare([documents], tiny_tokenizer, tmp_path / "out")
    marks = [formats.token_id(tiny_tokenizer, mark) for mark in (formats.FIM_SUFFIX, formats.FIM_MIDDLE)]
    samples = fim_samples(rows, tiny_tokenizer)
    for sample in samples:
        assert sample[-1] == formats.token_id(tiny_tokenizer, formats.ENDOFTEXT)
        assert all(sample.count(mark) == 1 for mark in marks)
    for sample in samples_of(rows):
        assert any(mark in sample for mark in marks) == (tuple(sample) in samples)
    figures = counts["fim"]
    assert figures["level"] == "context" and figures["torn"] == 0
    assert figures["samples"] == len(samples) == counts["sources"]["rows.jsonl"]["fim"]
    assert figures["token_share"] == pytest.approx(sum(map(len, samples)) / counts["tokens"], abs=1e-4)
    assert figures["token_share"] == pytest.approx(0.5, abs=0.08)


def test_document_level_counts_and_names_the_samples_that_rows_tear(documents, tiny_tokenizer, tmp_path, caplog):
    with caplog.at_level("INFO"):
        _, counts = prepare([documents], tiny_tokenizer, tmp_path / "out", level="document", fim_rate=1.0)
    figures = counts["fim"]
    assert figures["level"] == "document" and figures["torn"] > 10
    assert figures["torn"] + figures["samples"] == counts["sources"]["rows.jsonl"]["fim"]
    assert f"{figures['torn']} of 40 fill-in-the-middle samples are longer than a row" in caplog.text


def test_every_epoch_has_other_middles_of_the_same_documents(documents, tiny_tokenizer, tmp_path):
    rows, counts = prepare([documents], tiny_tokenizer, tmp_path / "out", epochs=3)
    size = counts["packed"]
    assert counts["epochs"] == 3 and len(rows) == 3 * size
    epochs = [set(fim_samples(rows.select(range(at, at + size)), tiny_tokenizer)) for at in (0, size, 2 * size)]
    for first, second in itertools.combinations(epochs, 2):
        assert len(first & second) < min(len(first), len(second)) / 10


def test_the_same_seed_gives_the_same_rows(documents, tiny_tokenizer, tmp_path):
    first, _ = prepare([documents], tiny_tokenizer, tmp_path / "first", epochs=2)
    again, _ = prepare([documents], tiny_tokenizer, tmp_path / "again", epochs=2)
    other, _ = prepare([documents], tiny_tokenizer, tmp_path / "other", epochs=2, seed=1)
    assert first["input_ids"][:] == again["input_ids"][:] != other["input_ids"][:]


def test_epochs_without_documents_are_not_prepared_twice(source, tiny_tokenizer, tmp_path):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows, counts = prepare([source([{"messages": messages}])], tiny_tokenizer, tmp_path / "out", epochs=3)
    assert len(rows) == 1 and "epochs" not in counts and "fim" not in counts


def test_a_benchmarks_text_is_in_no_epoch(source, tiny_tokenizer, tmp_path):
    held_out = (
        "def merge_intervals(intervals):\n"
        '    """Join all overlapping intervals of a list and return them in ascending order of their starts."""\n'
        "    merged = []\n    for start, end in sorted(intervals):\n        merged.append([start, end])\n    return merged\n"
    )
    task = {"id": "t", "prompt": "Merge.", "tests": json.dumps({"code": held_out}), "kind": "asserts", "entry_point": "f",
            "language": "python", "source": "t", "split": "test"}  # fmt: skip
    path = tmp_path / "held.jsonl"
    path.write_text(json.dumps(task) + "\n")
    targets = ScreenTargets(benchmarks=(BenchmarkRows(name="own", benchmark="tasks", data=str(path)),))
    documents = source([{"text": code(number)} for number in range(20)] + [{"text": held_out}])
    rows, counts = prepare([documents], tiny_tokenizer, tmp_path / "out", epochs=3, targets=targets)
    assert counts["decontamination"]["removed"] == 1
    assert all("merged" not in tiny_tokenizer.decode(row["input_ids"]) for row in rows)


@pytest.mark.parametrize(
    ("train", "rows", "processes", "expected"),
    [
        ({}, 10, 1, 3),
        ({"num_train_epochs": 1.5}, 10, 1, 2),
        ({"max_steps": 5, "per_device_train_batch_size": 4}, 10, 1, 2),
        ({"max_steps": 5, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 3}, 10, 2, 3),
    ],
)
def test_the_number_of_epochs_follows_from_the_trainers_settings(train, rows, processes, expected):
    assert epochs_of(train, rows, processes) == expected


def test_disk_use_is_bounded(documents, tiny_tokenizer, tmp_path):
    rows, counts = prepare([documents], tiny_tokenizer, tmp_path / "out", epochs=1000)
    assert counts["epochs"] == EPOCHS and len(rows) == EPOCHS * counts["packed"]


@pytest.mark.parametrize("by_length", [False, True])
def test_the_sampler_draws_an_epochs_own_rows_and_repeats_them_at_the_end(by_length):
    lengths = [random.Random(row).randint(1, 99) for row in range(30)] if by_length else None
    run = EpochSampler(30, 3, seed=5, lengths=lengths, step=4)
    orders = []
    for epoch in range(4):
        run.set_epoch(epoch)
        orders.append(list(run))
    assert [set(order) for order in orders[:3]] == [set(range(at, at + 10)) for at in (0, 10, 20)]
    assert set(orders[3]) == set(orders[0]) and orders[3] != orders[0]
    resumed = EpochSampler(30, 3, seed=5, lengths=lengths, step=4)
    resumed.set_epoch(2)
    assert list(resumed) == orders[2] and len(resumed) == 10


def test_a_resumed_run_sees_the_rows_of_an_uninterrupted_one(documents, tiny_tokenizer, tmp_path, model):
    rows, counts = prepare([documents], tiny_tokenizer, tmp_path / "data", epochs=2)
    size = counts["packed"]

    def train(steps, resume=None):
        batches = []

        class Recording(TokenTrainer):
            def training_step(self, model, inputs, *rest):
                batches.append(inputs["input_ids"].tolist())
                return super().training_step(model, inputs, *rest)

        args = SFTConfig(
            output_dir=str(tmp_path / "out"), max_steps=steps, per_device_train_batch_size=1, save_steps=1, report_to=[],
            disable_tqdm=True, use_cpu=True, bf16=False, max_length=LENGTH, packing=True, gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        )  # fmt: skip
        trainer = Recording(
            packed=True, by_length=False, epochs=2, model=model, args=args, train_dataset=rows,
            processing_class=tiny_tokenizer,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return batches

    whole = train(size + 3)
    seen = [tuple(row) for batch in whole for row in batch]
    assert sorted(seen[:size]) == sorted(map(tuple, rows["input_ids"][:size]))
    assert set(seen[size:]) <= set(map(tuple, rows["input_ids"][size:]))
    assert train(size + 3, resume=str(tmp_path / "out" / f"checkpoint-{size + 1}")) == whole[size + 1 :]
