"""A merge in a chain: it reads the models of earlier stages, and its model passes through contract and ladder."""

import json

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from alignment.chain.plan import plan
from alignment.models import loading
from alignment.models.source import RandomInit
from alignment.recipe import load

HELD_OUT = {"name": "held-out", "benchmark": "fim", "data": "fim.jsonl", "max_new_tokens": 8}


def chosen(**merge):
    stages = tiny.stages()
    models = [{"model": "sft", "weight": 1.0}, {"model": "base", "weight": 1.0}]
    return {
        "sft": {**stages["sft"], "evaluate": False},
        "merged": {"kind": "merge", "models": models, **merge},
    }


@pytest.fixture
def folder(tmp_path, tiny_tokenizer):
    tiny.write_rows(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    rows = [{"id": f"f{n}", "prefix": "def f(x):\n", "suffix": "\n", "middle": f"    return x + {n}"} for n in range(4)]
    (tmp_path / "fim.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_renaming_a_merged_stage_changes_nothing_but_another_weight_does(folder):
    def mark(**merge):
        return {step.name: step.fingerprint for step in plan(load(tiny.write_recipe(folder, chosen(**merge))))}

    first = mark()["merged"]
    other = [{"model": "sft", "weight": 2.0}, {"model": "base", "weight": 1.0}]
    assert mark(models=other)["merged"] != first
    renamed = tiny.write_recipe(folder, chosen())
    renamed.write_text(renamed.read_text().replace("sft", "tuned").replace("kind: tuned", "kind: sft"))
    assert {step.name: step.fingerprint for step in plan(load(renamed))}["merged"] == first


def test_a_merge_reads_the_models_that_it_names_and_no_others(folder):
    steps = {step.name: step for step in plan(load(tiny.write_recipe(folder, chosen())))}
    assert set(steps["merged"].request.merged) == {"sft", "base"}
    assert set(steps["merged"].inputs) == {"sft"}


@pytest.mark.slow
def test_a_merge_with_a_search_runs_in_a_chain_and_is_measured(folder):
    search = {
        "weights": [[1.0, 0.0], [0.5, 0.5]],
        "metric": "edit_similarity",
        "benchmark": {**HELD_OUT, "name": "dev", "allow_overlap": "the rows test the chain, not a model"},
    }
    path = tiny.write_recipe(
        folder, chosen(search=search), evaluate=[{**HELD_OUT, "allow_overlap": "the rows test the chain, not a model"}]
    )
    done = tiny.launch(path)
    assert done.returncode == 0, done.stderr
    artifact = json.loads((folder / "runs/tiny/merged/artifact.json").read_text())
    values = [row["value"] for row in artifact["search"]]
    assert artifact["weights"] == search["weights"][values.index(max(values))]
    assert artifact["contract"]["tensors"] > 0 and artifact["chat"] is True
    ladder = json.loads((folder / "runs/tiny/ladder.json").read_text())
    assert {entry["stage"] for entry in ladder} == {"base", "merged"}
    assert not (folder / "runs/tiny/merged/candidate").exists() and not (folder / "runs/tiny/merged/base").exists()


@pytest.mark.slow
def test_a_merge_with_random_base_weights_is_their_mean(folder, tiny_tokenizer):
    path = tiny.write_recipe(folder, chosen())
    done = tiny.launch(path)
    assert done.returncode == 0, done.stderr
    runs = folder / "runs/tiny"
    trained, merged = (
        AutoModelForCausalLM.from_pretrained(runs / name / "model", dtype=torch.float32) for name in ("sft", "merged")
    )
    base = loading.random_model(RandomInit(**tiny.INIT), tiny_tokenizer, 3)
    for first, second, mean in zip(trained.parameters(), base.parameters(), merged.parameters(), strict=True):
        torch.testing.assert_close(mean, (first + second) / 2)
