"""Hours of `align plan`: counted operations, cards and their price, measured speeds, and steps from rows."""

import json
from dataclasses import replace

import pytest

from alignment.cli import main
from alignment.models.shapes import SHAPES
from alignment.planning import speeds, stage_time, work
from alignment.planning.cards import CARDS
from alignment.planning.memory import Lora, MicroBatch
from alignment.planning.speeds import CardSpeed, MeasuredSpeed

SHAPE = SHAPES["7b"]
FULL = MicroBatch(rows=4, length=4096, dtype="bfloat16", checkpointing=False)
H100 = CardSpeed(CARDS["H100"], "H100")


def test_training_all_weights_takes_six_operations_per_weight_and_token():
    shape = replace(SHAPES["0.5b"], num_hidden_layers=24)
    products = (
        work.layer_weights(shape) + shape.vocab_size * shape.hidden_size
    )  # the tied embedding is the output layer
    attention = 6 * shape.num_hidden_layers * 4096 * shape.hidden_size
    assert work.training_operations(shape, FULL) == pytest.approx(6 * products + attention)


def test_frozen_weights_take_a_third_less_and_checkpointing_a_forward_pass_more():
    full = work.training_operations(SHAPE, FULL)
    lora = work.training_operations(SHAPE, replace(FULL, lora=Lora(16)))
    assert lora / full == pytest.approx(2 / 3, abs=0.04)  # attention has no frozen weights
    head = 2 * SHAPE.vocab_size * SHAPE.hidden_size
    forward = work.forward_operations(SHAPE, 4096) - head
    assert work.training_operations(SHAPE, replace(FULL, checkpointing=True)) == pytest.approx(full + forward)


def test_a_card_trains_at_the_stated_share_of_its_peak_rate():
    tokens = 4 * 4096
    seconds = H100.micro_batch(SHAPE, FULL)
    assert tokens * work.training_operations(SHAPE, FULL) / seconds == pytest.approx(
        989e12 * speeds.TRAINING_UTILISATION
    )
    pairs = H100.micro_batch(SHAPE, replace(FULL, kind="dpo"))
    assert pairs > 2 * seconds  # two answers, and a forward pass of the reference


def test_decoding_is_bound_by_memory_and_grows_with_the_number_of_completions():
    few, many = (H100.generation(SHAPE, count, 200, 200) for count in (64, 640))
    weights = 2 * SHAPE.parameters / (3350e9 * speeds.DECODE_UTILISATION)
    assert few >= 200 * weights
    assert few < many < 10 * few


def measured(shape, micro):
    return MeasuredSpeed(
        {speeds.training_key(shape, micro): {"layer": 0.1, "head": 0.5, "optimizer": 0.01, "trained": 1000}},
        {speeds.decode_key(shape): {"layer": 0.01, "head": 0.2, "prefill_layer": 0.001}},
        "a test",
    )


def test_measured_times_of_a_layer_are_multiplied_by_rows_and_layers():
    speed = measured(SHAPE, FULL)
    assert speed.micro_batch(SHAPE, FULL) == pytest.approx(4 * (28 * 0.1 + 0.5))
    assert speed.micro_batch(SHAPE, replace(FULL, rows=1)) == pytest.approx(28 * 0.1 + 0.5)
    assert speed.micro_batch(SHAPE, replace(FULL, length=1024)) is None  # not measured
    assert speed.optimizer_step(SHAPE, FULL) == pytest.approx(0.01 * SHAPE.parameters / 1000)
    assert speed.generation(SHAPE, 128, 10, 50) == pytest.approx(
        speeds.DECODE_WASTE * 2 * 50 * (28 * 0.01 + 0.2) + 128 * 10 * 0.001 * 28
    )


def test_measurements_are_kept_and_added(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    assert speeds.unmeasured(speeds.read_measured("cpu"), SHAPE, [FULL, FULL]) == [FULL]
    first = measured(SHAPE, FULL)
    speeds.add_measured("cpu", first.training, {})
    speeds.add_measured("cpu", {}, first.decoding)
    again = speeds.read_measured("cpu")
    assert (again.training, again.decoding) == (first.training, first.decoding)
    assert speeds.unmeasured(again, SHAPE, [FULL, replace(FULL, rows=9)]) == []
    assert speeds.read_measured("cuda").training == {}


SMALL_7B = [
    "--set", "model.init={hidden_size: 3584, intermediate_size: 18944, num_hidden_layers: 28, num_attention_heads: 28, "
    "num_key_value_heads: 4, vocab_size: 152064, tie_word_embeddings: false}", "--set", "model.dtype=bfloat16",
]  # fmt: skip


def plan(recipe, capsys, *arguments):
    assert main(["plan", "--json", recipe, *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_hours_and_cost_on_rented_cards(write, small, capsys):
    recipe = str(write(recipe=small))
    document = plan(
        recipe, capsys, *SMALL_7B, "--hardware", "8xH100", "--price", "2.5", "--set", "stages.1.train.max_steps=100"
    )
    times = {entry["stage"]: entry for entry in document["time"]}
    pretrain = times["pretrain"]
    assert (pretrain["steps"], document["devices"]) == (100, 8)
    assert pretrain["seconds"] == pytest.approx(100 * pretrain["step_seconds"] + stage_time.START_SECONDS)
    assert pretrain["device_hours"] == pytest.approx(pretrain["seconds"] / 3600 * 8)
    assert pretrain["cost"] == pytest.approx(pretrain["device_hours"] * 2.5)
    assert times["sft"]["seconds"] is None and "until the rows are built" in times["sft"]["note"]
    assert times["sft"]["step_seconds"] > 0
    assert document["total_cost"] == pytest.approx(sum(entry["cost"] or 0 for entry in document["time"]))
    assert "H100: 989 TFLOP/s, of which 40% are reached" in document["speed"]
    one = plan(recipe, capsys, *SMALL_7B, "--hardware", "1xH100", "--set", "stages.1.train.max_steps=100")
    single = {entry["stage"]: entry for entry in one["time"]}["pretrain"]
    assert single["tokens_per_second"] == pytest.approx(pretrain["tokens_per_second"] / 8)
    assert main(["plan", recipe, *SMALL_7B, "--hardware", "8xH100", "--price", "2.5"]) == 0
    text = capsys.readouterr().out
    assert "Predicted time, H100" in text and "cost" in text and "together" in text


def test_steps_are_counted_from_rows_that_exist(write, small, capsys, tmp_path):
    folder = tmp_path / "runs/small/data"
    folder.mkdir(parents=True)
    (folder / "conversations.jsonl").write_text('{"messages": []}\n' * 1000)
    recipe = str(write(recipe=small))
    document = plan(
        recipe, capsys, *SMALL_7B, "--hardware", "H100", "--set", "stages.2.train.packing=false",
        "--set", "stages.2.train.num_train_epochs=2",
    )  # fmt: skip
    sft = {entry["stage"]: entry for entry in document["time"]}["sft"]
    assert sft["steps"] == 1000 * 2 / 8  # TRL's default of 8 rows per step
    assert sft["seconds"] > sft["steps"] * sft["step_seconds"]


def test_hardware_without_a_name_has_memory_but_no_hours(write, small, capsys):
    document = plan(str(write(recipe=small)), capsys, *SMALL_7B, "--hardware", "8x80GB")
    assert document["device_bytes"] == pytest.approx(80e9)
    assert "time" not in document
    assert any("name the card" in warning for warning in document["warnings"])


def test_time_that_cannot_be_measured_here_is_an_error_with_the_way_out(write, small, capsys, monkeypatch):
    monkeypatch.setattr("alignment.planning.resources.card_bytes", list)
    recipe = str(write(recipe=small))
    assert main(["plan", recipe, *SMALL_7B, "--time"]) == 1
    assert "this machine has none: name them, as in --hardware 8xH100" in capsys.readouterr().err
    assert main(["plan", recipe, *SMALL_7B, "--time", "--hardware", "8xH100"]) == 1
    assert "--time measures this machine" in capsys.readouterr().err
    assert main(["plan", recipe, "--time", "--hardware", "cpu"]) == 1
    assert "shape of the model is not known yet" in capsys.readouterr().err


def test_the_probe_measures_the_stages_of_a_recipe_once(write, small, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("alignment.stages.speed_probe.SECONDS", 0.0)
    recipe = str(write(recipe=small))
    tiny = ["--set", "model.init.vocab_size=320", "--hardware", "cpu", "--set", "stages.1.train.max_steps=10"]
    document = plan(recipe, capsys, *tiny, "--time")
    times = {entry["stage"]: entry for entry in document["time"]}
    assert times["pretrain"]["steps"] == 10 and times["pretrain"]["step_seconds"] > 0
    assert times["grpo"]["step_seconds"] > times["sft"]["step_seconds"] * 0
    assert times["evaluate-base"]["seconds"] is None  # its rows are not built yet
    monkeypatch.setattr("alignment.stages.speed_probe.measure", None)  # a second measurement would fail
    assert plan(recipe, capsys, *tiny, "--time")["time"] == document["time"]
