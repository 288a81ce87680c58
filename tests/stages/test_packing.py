"""Packing: samples do not attend to each other, and labels stay with their tokens."""

import random

import pytest
import torch
from datasets import Dataset, load_from_disk
from trl.data_utils import pack_dataset

from alignment.models.formats import IGNORED
from alignment.tokenization.packed_collator import PackedRowCollator
from alignment.tokenization.packing import pack
from alignment.tokenization.prepare import write_training_rows
from alignment.tokenization.segments import TokenizationRules


def _samples(count, generator, least=2):
    rows = []
    for _ in range(count):
        ids = [generator.randrange(256) for _ in range(generator.randint(least, 40))]
        cut = generator.randrange(len(ids))
        rows.append({"input_ids": ids, "labels": [IGNORED] * cut + ids[cut:]})
    return rows


def _pieces(packed):
    for row in packed:
        at = 0
        for size in row["seq_lengths"]:
            yield row["input_ids"][at : at + size], row["labels"][at : at + size]
            at += size
        assert at == len(row["input_ids"]) == len(row["labels"])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_of_packed_samples_equal_those_of_single_samples(attention, model):
    model.set_attn_implementation(attention)
    samples = _samples(12, random.Random(0))
    packed = pack_dataset(Dataset.from_list(samples), 64, "bfd")
    batch = PackedRowCollator(0)(list(packed))
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
    compared = 0
    for row, example in enumerate(packed):
        at = 0
        for size in example["seq_lengths"]:
            alone = model(input_ids=torch.tensor([example["input_ids"][at : at + size]])).logits[0]
            torch.testing.assert_close(logits[row, at : at + size], alone, rtol=1e-4, atol=1e-4)
            at += size
            compared += 1
    assert compared == len(samples) > len(packed)


def test_tokens_of_another_sample_change_no_logit(model):
    example = {"input_ids": [5, 6, 7, 8, 9, 10], "labels": [5, 6, 7, 8, 9, 10], "seq_lengths": [3, 3]}
    other = {**example, "input_ids": [50, 60, 70, 8, 9, 10]}
    with torch.no_grad():
        first, second = (
            model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits[0]
            for batch in (PackedRowCollator(0)([example]), PackedRowCollator(0)([other]))
        )
    assert torch.equal(first[3:], second[3:])
    assert not torch.equal(first[:3], second[:3])


def test_loss_of_packed_rows_covers_the_same_tokens_as_that_of_single_samples(model):
    samples = _samples(10, random.Random(1))
    with torch.no_grad():
        total, count = 0.0, 0
        for sample in samples:
            targets = sum(label != IGNORED for label in sample["labels"][1:])
            if targets:
                ids, labels = (torch.tensor([sample[key]]) for key in ("input_ids", "labels"))
                total += model(input_ids=ids, labels=labels).loss.item() * targets
                count += targets
        batch = PackedRowCollator(0)(list(pack_dataset(Dataset.from_list(samples), 64, "bfd")))
        assert int((batch["labels"][:, 1:] != IGNORED).sum()) == count
        assert model(**batch).loss.item() == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split"])
def test_trls_packing_keeps_labels_with_their_tokens_and_loses_no_sample(strategy):
    samples = _samples(60, random.Random(2))
    packed = pack_dataset(Dataset.from_list(samples), 64, strategy)
    assert sorted(_pieces(packed)) == sorted((sample["input_ids"], sample["labels"]) for sample in samples)
    assert max(len(row["input_ids"]) for row in packed) <= 64


def test_our_packing_keeps_labels_with_their_tokens_and_loses_no_sample(tmp_path):
    samples = _samples(700, random.Random(3), least=1)
    data = Dataset.from_list([{**sample, "length": len(sample["input_ids"])} for sample in samples])
    packed = pack(data, 64, 0, tmp_path)
    assert sorted(_pieces(packed)) == sorted((sample["input_ids"], sample["labels"]) for sample in samples)
    assert max(len(row["input_ids"]) for row in packed) <= 64


def test_padding_has_no_labels_and_starts_new_positions():
    rows = [
        {"input_ids": [5, 6, 7], "labels": [5, 6, 7], "seq_lengths": [3]},
        {"input_ids": [8], "labels": [8], "seq_lengths": [1]},
    ]
    batch = PackedRowCollator(99)(rows)
    assert batch["input_ids"][1].tolist() == [8, 99, 99]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [IGNORED] * 3]


def test_prepared_and_packed_rows_fill_their_length(tiny_tokenizer, tmp_path, source):
    rows = source([{"text": "x = 1\n" * number} for number in range(1, 40)])
    rules = TokenizationRules(128, "split", 0.0, 0.0, "lines", "bfd_split")
    counts = write_training_rows([rows], tiny_tokenizer, rules, 0, tmp_path)
    packed = load_from_disk(str(tmp_path / "train"))
    assert counts["packed"] == len(packed) < counts["samples"]
    assert counts["packing_efficiency"] > 0.9
    assert sum(len(row["input_ids"]) for row in packed) == counts["tokens"]


def test_trls_collator_keeps_our_labels_without_packing(tiny_tokenizer):
    """Without packing TRL's collator makes the batches; it must keep the labels that we masked."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]}, {"input_ids": [8, 9], "labels": [IGNORED, 9]}]
    batch = DataCollatorForLanguageModeling(pad_token_id=0)(rows)
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]
