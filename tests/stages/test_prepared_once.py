"""Rows are tokenized once: a second run with the same rows and settings reads the token ids of the first."""

import json
from types import SimpleNamespace

import pytest
from datasets import load_from_disk

from alignment.models.source import ModelSource
from alignment.recipe.stage_request import StageRequest
from alignment.stages import sft
from alignment.tokenization.prepare import prepare_once


@pytest.fixture
def request_for(tmp_path, tiny_tokenizer_dir):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}))
    stage = {"name": "sft", "kind": "sft", "data": [{"data": str(rows)}], "train": {"max_length": 512}}
    model = ModelSource(tokenizer=str(tiny_tokenizer_dir))

    def make(name):
        out = tmp_path / name
        out.mkdir()
        return StageRequest.for_stage(stage, out, model, prepared=tmp_path / "prepared" / "sft-1")

    return make


@pytest.fixture
def prepare(monkeypatch):
    """Function that runs an SFT stage without the training, and returns the counts from preparing the rows."""

    def trained(request, tokenizer, make_trainer, *, chat, counts):
        return counts

    monkeypatch.setattr(sft, "train", trained)
    return sft.run


def test_a_second_run_does_not_tokenize_again(request_for, prepare, monkeypatch):
    first, second = request_for("first"), request_for("second")
    counts = prepare(first)

    def never(*_, **__):
        raise AssertionError("the rows were tokenized again")

    monkeypatch.setattr("alignment.stages.sft.write_training_rows", never)
    assert prepare(second) == counts and counts["tokens"] > 0
    assert (second.out / "probes.json").read_text() == (first.out / "probes.json").read_text()


def test_half_prepared_rows_are_prepared_again(request_for):
    request = request_for("out")

    def dies(folder):
        (folder / "train").mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_once(request, dies)
    assert not request.prepared.exists()
    folder, counts = prepare_once(request, lambda folder: {"tokens": 7})
    assert counts == {"tokens": 7} and not (folder / "train").exists()


def test_other_ranks_read_what_the_first_prepared(request_for, prepare, monkeypatch):
    request = request_for("out")
    prepare(request)
    monkeypatch.setenv("RANK", "1")
    folder, _ = prepare_once(request, SimpleNamespace())
    assert len(load_from_disk(str(folder / "train"))) == 1
