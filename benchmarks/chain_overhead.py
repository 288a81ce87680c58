"""Measure the cost of the toolkit on top of TRL: SFT speed compared with `SFTTrainer`, and time besides training.

    python -m benchmarks chain-overhead                       # both, as a table
    python -m benchmarks chain-overhead --json --repeats 7    # one JSON document

The toolkit and plain `SFTTrainer` train the same model on the same conversations with the same settings for one epoch.
They take turns in this process, so that other work on the machine slows both and hardly changes the ratio of CPU times.
The time that a stage takes besides training is measured with the real launcher.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from alignment.models import loading
from alignment.models.source import ModelSource, RandomInit
from benchmarks.stage_requests import ROOT, request_for
from data_builders.synthetic.tokenizer import train_tokenizer

MODEL = RandomInit(
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=2048,
    tie_word_embeddings=False,
)
TRAIN: dict[str, Any] = {
    "max_length": 256,
    "per_device_train_batch_size": 8,
    "num_train_epochs": 1,
    "learning_rate": 1e-3,
    "gradient_checkpointing": False,
    "logging_steps": 10,
    "save_strategy": "no",
}

Rates = tuple[float, float]
"""Tokens per second, and tokens per second of this process's CPU time."""


def prepare(folder: Path, conversations: int) -> None:
    """Write a tokenizer, conversations of many lengths, and a checkpoint with random weights to `folder`."""
    texts = [
        f"def add_{n}(x):\n" + "".join(f"    x = x + {n % 7} * {k}\n" for k in range(n % 12 + 1)) for n in range(500)
    ]
    train_tokenizer(texts, 512, folder / "tokenizer")
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(conversations):
            question = {"role": "user", "content": f"Write add_{number}."}
            answer = {"role": "assistant", "content": texts[number % len(texts)]}
            file.write(json.dumps({"messages": [question, answer]}) + "\n")
    tokenizer = loading.load_tokenizer(ModelSource(path=str(folder / "tokenizer")))
    loading.write_random(ModelSource(init=MODEL, dtype="float32"), tokenizer, 0, folder / "base")


def ours(folder: Path, packing: bool, number: int) -> Rates:
    """Train with the toolkit's `sft` stage."""
    from alignment.stages import sft

    stage = {
        "name": "sft",
        "kind": "sft",
        "data": [{"data": str(folder / "rows.jsonl")}],
        "train": {**TRAIN, "packing": packing},
    }
    model = {"path": str(folder / "base"), "dtype": "float32"}
    request = request_for(stage, model, folder / f"ours-{packing}-{number}")
    metrics = sft.run(request)["metrics"]
    return metrics["tokens_per_second"], metrics["tokens"] / metrics["train_cpu_seconds"]


def plain(folder: Path, packing: bool, number: int) -> Rates:
    """Train on the same rows with TRL's SFTTrainer, used as in its documentation."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        output_dir=str(folder / f"plain-{packing}-{number}"), seed=0, data_seed=0, report_to=[], disable_tqdm=True,
        use_cpu=True, bf16=False, packing=packing, assistant_only_loss=True, logging_first_step=True, **TRAIN,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "base", dtype="float32"),
        args=config,
        train_dataset=load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train"),
        processing_class=AutoTokenizer.from_pretrained(folder / "base"),
    )
    rows: Any = trainer.train_dataset
    tokens = sum(map(len, rows["input_ids"]))
    start, cpu = time.monotonic(), time.process_time()
    trainer.train()
    return tokens / (time.monotonic() - start), tokens / (time.process_time() - cpu)


def speed(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Compare the toolkit with plain TRL, with and without packing.

    Returns:
        One row for each setting of packing. It has the median tokens per second of the toolkit and of plain TRL, and
        the median, lowest and highest ratio of runs that followed each other, by wall clock and by CPU time.
    """
    rows = []
    for packing in (False, True):
        pairs: list[dict[str, Rates]] = []
        for number in range(repeats + 1):
            sides = [ours, plain] if number % 2 else [plain, ours]
            rates: dict[str, Rates] = {}
            for side in sides:
                with contextlib.redirect_stdout(sys.stderr):
                    rates[side.__name__] = side(folder, packing, number)
                gc.collect()
            pairs.append(rates)
        pairs = pairs[1:]  # the first pair warms up
        ratios, cpu_ratios = (sorted(pair["ours"][at] / pair["plain"][at] for pair in pairs) for at in (0, 1))
        rows.append(
            {
                "packing": packing,
                "ours": round(median(pair["ours"][0] for pair in pairs), 1),
                "plain": round(median(pair["plain"][0] for pair in pairs), 1),
                "ratio": round(median(ratios), 3),
                "ratio_low": round(ratios[0], 3),
                "ratio_high": round(ratios[-1], 3),
                "cpu_ratio": round(median(cpu_ratios), 3),  # not changed by other work on the machine
                "cpu_ratio_low": round(cpu_ratios[0], 3),
                "cpu_ratio_high": round(cpu_ratios[-1], 3),
                "pairs": len(pairs),
            }
        )
    return rows


def overhead(folder: Path, repeats: int) -> dict[str, Any]:
    """Measure the seconds that a stage adds to training, and the seconds of a run in which all stages are done."""
    recipe = folder / "recipe.yaml"
    stages: list[dict[str, Any]] = [
        {"name": name, "kind": "sft", "data": [{"data": "rows.jsonl", "rows": 64}],
         "train": {**TRAIN, "max_steps": 2, "learning_rate": rate}}
        for name, rate in (("one", 1e-3), ("two", 2e-3))
    ]  # fmt: skip
    value = {
        "name": "bench", "output": "runs", "model": {"path": "./base", "dtype": "float32"}, "stages": stages,
        "tracking": {"wandb": "disabled"}, "contract": {"must_stop": False},
    }  # fmt: skip
    recipe.write_text(json.dumps(value))
    first = _launch_seconds(recipe)
    later = [_launch_seconds(recipe) for _ in range(repeats)]
    artifacts = [
        json.loads((folder / "runs" / "bench" / name / "artifact.json").read_text()) for name in ("one", "two")
    ]
    besides = [artifact["seconds"] - artifact["metrics"]["train_seconds"] for artifact in artifacts]
    return {
        "stage_beside_training_seconds": round(median(besides), 1),
        "first_run_of_two_stages_seconds": round(first, 1),
        "all_skipped_seconds": round(median(later), 2),
        "peak_memory_mb": max(artifact["peak_memory_mb"] for artifact in artifacts),
    }


def _launch_seconds(recipe: Path) -> float:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file"]
    command += [str(ROOT / "accelerate_configs" / "cpu.yaml"), str(ROOT / "recipes" / "run.py"), str(recipe)]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"the recipe of the measurement failed:\n{done.stdout}{done.stderr}")
    return time.monotonic() - start


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks chain-overhead", description="Cost of the chain on top of TRL."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each side (default: 5)")
    parser.add_argument("--conversations", type=int, default=1500, help="rows of an epoch (default: 1500)")
    parser.add_argument("--only", choices=("speed", "overhead"), help="measure only this")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    # Libraries print while they load and train: keep stdout for the results.
    with tempfile.TemporaryDirectory(prefix="align-bench-") as name, contextlib.redirect_stdout(sys.stderr):
        folder = Path(name)
        prepare(folder, options.conversations)
        if options.only != "overhead":
            results["sft"] = speed(folder, options.repeats)
        if options.only != "speed":
            results["overhead"] = overhead(folder, options.repeats)
    if options.json:
        print(json.dumps(results, indent=2))
        return 0
    for row in results.get("sft", []):
        print(
            f"SFT, packing {str(row['packing']).lower():5}: {row['ours']:8.0f} tokens/s, plain TRL {row['plain']:8.0f}, "
            f"ratio {row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}], of CPU time "
            f"{row['cpu_ratio']:.3f} [{row['cpu_ratio_low']:.3f}, {row['cpu_ratio_high']:.3f}] of {row['pairs']} pairs"
        )
    for key, figure in results.get("overhead", {}).items():
        print(f"{key.replace('_', ' ')}: {figure}")
    return 0
