"""One tiny recipe with the real launcher: the first run does all stages, the second none, and a change some again."""

import json

import pytest
import tiny

pytestmark = pytest.mark.slow

BUILT = {
    "modules": 60,
    "repositories": 6,
    "standard_library": 5000,
    "history": 0,
    "conversations": 40,
    "file_conversations": 10,
    "long_conversations": 10,
    "rl_tasks": 8,
    "heldout_tasks": 4,
}


def recipe(folder, **dpo):
    chosen = tiny.stages()
    chosen["dpo"]["train"] |= dpo
    stages = {
        "data": {"kind": "build", "builder": "synthetic", "settings": BUILT},
        "pretrain": chosen["pretrain"] | {"evaluate": False},
        "sft": chosen["sft"],
        "long": {
            **chosen["sft"],
            "peft": {"r": 4, "lora_alpha": 8},
            "context": {"yarn_factor": 2.0},
            "evaluate": False,
            "data": [{"data": "conversations.jsonl", "share": 0.5}, {"data": "documents.jsonl", "share": 0.5}],
        },
        "dpo": chosen["dpo"] | {"evaluate": False},
        "grpo": chosen["grpo"],
        "export": {
            "kind": "export",
            "formats": ["f16", "q8_0"],
            "data": "documents.jsonl",
            "max_perplexity_change": {"f16": 50.0, "q8_0": 100.0},
        },
    }
    evaluate = [{"name": "instruct", "benchmark": "tasks", "data": "tasks.jsonl", "max_new_tokens": 8, "limit": 4}]
    evaluate[0]["allow_overlap"] = "the rewarded tasks themselves are measured, which is quick"
    return tiny.write_recipe(folder, stages, evaluate=evaluate, tracking={"wandb": "offline"})


@pytest.fixture(scope="module")
def finished(make_workshop):
    """Return the folder after one complete run, and the output of the run."""
    pytest.importorskip("xllamacpp", reason="export needs: pip install 'code-alignment[gguf]'")
    folder = make_workshop()
    done = tiny.launch(recipe(folder))
    assert done.returncode == 0, tiny.output(done)
    return folder, tiny.output(done)


def artifacts(folder):
    return {path.parent.name for path in (folder / "runs" / "tiny" / "artifacts").glob("*/artifact.json")}


def test_every_stage_leaves_an_artifact_with_its_lineage(finished):
    run = finished[0] / "runs" / "tiny"
    found = {name: json.loads((run / name / "artifact.json").read_text()) for name in (
        "data", "evaluate-base", "pretrain", "sft", "evaluate-sft", "long", "dpo", "grpo", "evaluate-grpo", "export"
    )}  # fmt: skip
    assert found["sft"]["inputs"]["pretrain"] == found["pretrain"]["fingerprint"]
    assert found["grpo"]["inputs"]["dpo"] == found["dpo"]["fingerprint"]
    assert found["export"]["inputs"]["grpo"] == found["grpo"]["fingerprint"]
    assert found["pretrain"]["model"] == "base" and found["long"]["model"] == "sft"
    for artifact in found.values():
        assert artifact["seed"] == 3 and artifact["world_size"] == 1 and artifact["versions"]["trl"]
        assert artifact["started"] <= artifact["finished"]
        assert 20 < artifact["peak_memory_mb"] < 6000
    for name in ("pretrain", "sft", "long", "dpo", "grpo"):
        assert found[name]["contract"]["tensors"] > 0 and found[name]["metrics"]["steps"] == 4
        assert (run / name / "model" / "model.safetensors").is_file()
        assert len((run / name / "metrics.jsonl").read_text().splitlines()) >= 4
        assert not {"checkpoints", "prepared", "start"} & {path.name for path in (run / name).iterdir()}
    assert (run / "long" / "adapter" / "adapter_model.safetensors").is_file()
    assert list((run / "sft" / "wandb").glob("offline-run-*"))


def test_long_context_settings_are_kept_by_later_models(finished):
    for name in ("long", "dpo", "grpo"):
        config = json.loads((finished[0] / "runs" / "tiny" / name / "model" / "config.json").read_text())
        assert config["rope_parameters"]["rope_type"] == "yarn" and config["max_position_embeddings"] == 2048


def test_the_ladder_is_a_list_of_figures_and_the_report_loads_nothing(finished):
    run = finished[0] / "runs" / "tiny"
    ladder = json.loads((run / "ladder.json").read_text())
    assert [figure["stage"] for figure in ladder] == ["base", "sft", "grpo"]
    for figure in ladder:
        assert {"stage", "metric", "value", "n", "low", "high", "seed"} <= set(figure)
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 100
    page = (run / "report.html").read_text()
    assert "<script src=" not in page and "<link" not in page and "https://" not in page.replace("https://www.w3", "")


def test_export_leaves_files_that_passed_their_gate(finished):
    export = finished[0] / "runs" / "tiny" / "export"
    rows = json.loads((export / "artifact.json").read_text())["exports"]
    assert [row["passed"] for row in rows] == [True, True]
    assert len(list(export.rglob("*.gguf"))) == 2


def test_the_same_recipe_again_does_nothing(finished):
    before = artifacts(finished[0])
    done = tiny.launch(recipe(finished[0]))
    assert done.returncode == 0
    assert artifacts(finished[0]) == before
    assert tiny.output(done).count("already done") == len(before)
    page = (finished[0] / "runs" / "tiny" / "report.html").read_text()
    assert page.count(" GB</td>") == len(before)


def test_a_changed_setting_runs_its_stage_and_later_ones_again_and_keeps_the_old_artifacts(finished):
    before = artifacts(finished[0])
    done = tiny.launch(recipe(finished[0], beta=0.2))
    assert done.returncode == 0, tiny.output(done)
    new = artifacts(finished[0]) - before
    assert {name.rsplit("-", 1)[0] for name in new} == {"dpo", "grpo", "evaluate-grpo", "export"}
    assert before < artifacts(finished[0])
