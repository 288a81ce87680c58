"""A KTO stage in a chain: from an editor's log to a model that prefers what was accepted."""

import json

import pytest
import tiny


def log_line(number):
    accepted = number % 2 == 0
    return {
        "prefix": f"def add_{number % 10}(x):\n    return ",
        "suffix": "\n",
        "completion": "x + 1" if accepted else "None",
        "accepted": accepted,
        "time": 1_780_000_000 + number,
    }


@pytest.mark.slow
def test_accepted_completions_become_more_likely_than_rejected_ones(tmp_path, tiny_tokenizer):
    tiny.write_rows(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    lines = [{**log_line(number), "prefix": f"# {number}\n{log_line(number)['prefix']}"} for number in range(120)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kto = {
        "kind": "kto",
        "data": [{"data": "feedback/feedback.jsonl"}],
        "train": tiny.trainer(max_steps=20, learning_rate=0.001, save_steps=10, logging_steps=5),
    }
    feedback = {"kind": "build", "builder": "feedback", "settings": {"logs": ["log.jsonl"], "held_out": 0.2}}
    held_out = {"name": "held", "benchmark": "editor", "data": "feedback/heldout-fim.jsonl", "max_new_tokens": 8}
    pretrain = {**tiny.stages()["pretrain"], "evaluate": False}
    chosen = {"feedback": feedback, "pretrain": pretrain, "kto": kto}
    done = tiny.launch(tiny.write_recipe(tmp_path, chosen, evaluate=[held_out]))
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "runs/tiny"
    steps = [json.loads(line) for line in (runs / "kto/metrics.jsonl").read_text().splitlines()]
    margins = [step["rewards/margins"] for step in steps if "rewards/margins" in step]
    assert margins[-1] > margins[0] and margins[-1] > 0.01
    artifact = json.loads((runs / "kto/artifact.json").read_text())
    assert artifact["data"]["accepted"] == artifact["data"]["rejected"] == 48
    # The base of the stage is no chat model, and feedback from editors leaves it so.
    assert artifact["chat"] is False and artifact["contract"]["tensors"] > 0
    metrics = {entry["metric"] for entry in json.loads((runs / "ladder.json").read_text())}
    assert "held.accepted_characters" in metrics
