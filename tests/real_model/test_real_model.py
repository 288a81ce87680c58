"""The whole way with Qwen2.5-Coder-0.5B-Instruct: import, evaluation, LoRA, GRPO, export, a served request.

    make realmodel MODEL=qwen2.5-coder-0.5b-instruct-q4_k_m.gguf

Takes about half an hour on two cores. Figures must stay in the bands that are recorded here; they were measured with
greedy decoding in bfloat16, whose rounding differs a little between machines.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.nightly

TASKS = 24
PASSED = (17, 23)
"""Of the first 24 tasks of HumanEval+, 20 passed when this band was recorded."""
PERPLEXITY_INCREASE = 1.0
"""Percent that q8_0 may lose. Recorded: 0.1."""
TOP_1 = 97.0
"""Percent of positions at which q8_0 agrees on the most likely token. Recorded: 98.5."""


@pytest.fixture(scope="session")
def gguf() -> Path:
    value = os.environ.get("ALIGN_REAL_MODEL")
    if not value:
        pytest.skip("set ALIGN_REAL_MODEL to qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
    return Path(value).resolve()


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("real-model")


def align(*arguments: object) -> str:
    """Run `align` and return its standard output; the test fails with its errors if it fails."""
    command = [sys.executable, "-m", "alignment.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="session")
def model(gguf, work) -> Path:
    """The imported model."""
    align("import", gguf, work / "model")
    return work / "model"


@pytest.fixture(scope="session")
def chain(model, work) -> Path:
    """The folder of a finished run: a few steps of LoRA pretraining and GRPO on this repository, and an export."""
    rows = [
        {
            "id": f"t{number}",
            "prompt": f"Write a Python function `add(x)` that returns x + {number}.",
            "language": "python",
            "kind": "calls",
            "tests": json.dumps({"cases": [{"args": [2], "expected": 2 + number}], "tolerance": None}),
            "entry_point": "add",
            "source": "test",
            "split": "train",
        }
        for number in range(1, 9)
    ]
    (work / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lora = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
    train = {"learning_rate": 1e-4, "gradient_checkpointing": False, "logging_steps": 1}
    recipe = {
        "name": "real",
        "seed": 1,
        "output": "runs",
        "launch": str(ROOT / "accelerate_configs/cpu.yaml"),
        "tracking": {"wandb": "disabled"},
        "model": {"path": str(model), "dtype": "auto"},
        "sources": [{"path": str(ROOT), "held_out": 0.1, "license": "owned"}],
        "stages": [
            {
                "name": "benchmark",
                "kind": "build",
                "builder": "private_benchmark",
                "settings": {"executable": False, "max_pieces": 8},
            },
            {"name": "corpus", "kind": "build", "builder": "corpus"},
            {
                "name": "pretrain",
                "kind": "pretrain",
                "data": [{"data": "corpus"}],
                "fim": {"rate": 0.7},
                "peft": lora,
                "train": {**train, "max_length": 1024, "per_device_train_batch_size": 1, "max_steps": 4},
            },
            {
                "name": "grpo",
                "kind": "grpo",
                "data": [{"data": "tasks.jsonl"}],
                "peft": lora,
                "evaluate": False,
                "train": {
                    **train,
                    "max_steps": 2,
                    "per_device_train_batch_size": 4,
                    "num_generations": 4,
                    "max_completion_length": 96,
                },
            },
            {"name": "export", "kind": "export", "formats": ["q8_0"], "data": "corpus"},
        ],
        "evaluate": [{"name": "fim", "benchmark": "fim", "data": "benchmark/fim.jsonl", "max_new_tokens": 48}],
    }
    (work / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    align("run", work / "recipe.yaml")
    return work / "runs/real"


def artifact(folder: Path) -> dict:
    return json.loads((folder / "artifact.json").read_text())


def test_the_imported_model_has_every_parameter(model):
    assert json.loads((model / "config.json").read_text())["tie_word_embeddings"] is True
    assert sum(file.stat().st_size for file in model.glob("*.safetensors")) == pytest.approx(2 * 494_032_768, rel=1e-3)


def test_it_solves_the_tasks_that_it_solved_when_the_band_was_recorded(model, work, data_dir):
    rows = data_dir / "benchmarks/HumanEvalPlus.jsonl.gz"
    out = work / "evaluation"
    align("evaluate", model, "--tasks", "humaneval+", "--data", rows, "--mode", "chat", "--limit", TASKS, "--out", out)
    verdicts = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    passed = sum(verdict["status"] == "passed" for verdict in verdicts)
    assert len(verdicts) == TASKS
    assert PASSED[0] <= passed <= PASSED[1]


def test_the_chain_measures_base_and_trained_model(chain):
    ladder = json.loads((chain / "ladder.json").read_text())
    assert {entry["stage"] for entry in ladder} == {"base", "pretrain"}
    assert all(entry["n"] == 8 for entry in ladder)


def test_training_lowers_the_loss_and_merging_loses_little(chain):
    losses = [json.loads(line)["loss"] for line in (chain / "pretrain/metrics.jsonl").read_text().splitlines()[:4]]
    assert all(0.3 < loss < 3.0 for loss in losses)
    metrics = artifact(chain / "pretrain")["metrics"]
    assert metrics["merge_logit_difference"] < 1e-4 and metrics["merge_rounding"] < 0.5


def test_grpo_rewards_programs_that_pass(chain):
    steps = [json.loads(line) for line in (chain / "grpo/metrics.jsonl").read_text().splitlines()]
    rewards = [step["reward"] for step in steps if "reward" in step]
    assert max(rewards) > 0.3  # the tasks are easy: add a constant
    assert all(
        {"time/generation", "time/grading", "time/training"} <= step.keys() for step in steps if "reward" in step
    )


def test_the_export_stays_close_to_the_original(chain):
    (row,) = [row for row in artifact(chain / "export")["exports"] if row["target"] == "q8_0"]
    assert row["perplexity_increase"] < PERPLEXITY_INCREASE
    assert row["top1_agreement"] > TOP_1


def test_the_served_model_answers_chat_streaming_completion_and_infill(chain):
    import httpx

    from alignment.evaluation.engines.llamacpp_server import LlamaCppServer

    (file,) = (chain / "export").rglob("*.gguf")
    server = LlamaCppServer(file, context=2048, slots=1)
    client = httpx.Client(base_url=server.address, timeout=600, trust_env=False)
    try:
        chat = {"messages": [{"role": "user", "content": "What is 2 + 2? Answer with the number."}], "temperature": 0}
        answer = client.post("/v1/chat/completions", json={**chat, "max_tokens": 16}).raise_for_status().json()
        assert "4" in answer["choices"][0]["message"]["content"]
        with client.stream("POST", "/v1/chat/completions", json={**chat, "max_tokens": 16, "stream": True}) as stream:
            events = [line for line in stream.iter_lines() if line.startswith("data: ")]
        assert events[-1] == "data: [DONE]" and len(events) > 1
        completion = {"prompt": "def add(a, b):\n    return", "max_tokens": 8, "temperature": 0}
        text = client.post("/v1/completions", json=completion).raise_for_status().json()["choices"][0]["text"]
        assert "a + b" in text
        infill = {
            "input_prefix": "def add(a, b):\n    return ",
            "input_suffix": "\n\nprint(add(1, 2))\n",
            "n_predict": 8,
        }
        content = client.post("/infill", json={**infill, "temperature": 0}).raise_for_status().json()["content"]
        assert content.strip().startswith("a + b")
    finally:
        server.close()
