"""A recipe that is small enough for a test, and functions that run it with the real launcher."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
INIT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.06,
    "max_position_embeddings": 1024,
}


def trainer(**settings):
    return {
        "max_length": 192,
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.002,
        "gradient_checkpointing": False,
        "save_steps": 2,
        "logging_steps": 1,
        **settings,
    }


def write_rows(folder: Path) -> None:
    """Write documents, conversations, preferences and tasks, without a builder."""

    def rows(name, items):
        (folder / name).write_text("".join(json.dumps(item) + "\n" for item in items))

    def asked(number):
        return [{"role": "user", "content": f"Add {number} to x."}]

    def answer(text):
        return [{"role": "assistant", "content": text}]

    rows("documents.jsonl", [{"text": f"def add_{n}(x):\n    return x + {n}\n"} for n in range(200)])
    rows(
        "conversations.jsonl",
        [{"messages": asked(n) + answer(f"def add(x):\n    return x + {n}\n"), "source": "t"} for n in range(120)],
    )
    rows(
        "preferences.jsonl",
        [
            {"prompt": asked(n), "chosen": answer(f"x + {n}"), "rejected": answer(f"x - {n}"), "source": "t"}
            for n in range(40)
        ],
    )
    rows(
        "tasks.jsonl",
        [
            {
                "id": f"t{n}",
                "prompt": f"Add {n} to x.",
                "language": "python",
                "kind": "calls",
                "tests": json.dumps({"cases": [{"args": [1], "expected": 1 + n}], "tolerance": None}),
                "entry_point": "add",
                "source": "t",
                "split": "train",
            }
            for n in range(10)
        ],
    )


def stages() -> dict[str, dict]:
    """Return the settings of training stages, keyed by name. Tests select and change them."""

    def data(name):
        return [{"data": f"{name}.jsonl"}]

    return {
        "pretrain": {
            "kind": "pretrain",
            "data": data("documents"),
            "fim": {"rate": 0.5},
            "train": trainer(),
        },
        "sft": {"kind": "sft", "data": data("conversations"), "train": trainer(packing=True)},
        "dpo": {"kind": "dpo", "data": data("preferences"), "train": trainer(beta=0.1, learning_rate=0.0005)},
        "grpo": {
            "kind": "grpo",
            "data": data("tasks"),
            "rewards": [{"name": "tests_passed"}, {"name": "parses", "weight": 0.2}],
            "train": {
                **trainer(learning_rate=0.001),
                "max_completion_length": 8,
                "num_generations": 4,
                "per_device_train_batch_size": 4,
            },
        },
    }


def write_recipe(folder: Path, chosen: dict[str, dict], **settings) -> Path:
    """Write `recipe.yaml` to a folder that holds the rows and the tokenizer (`folder/tokenizer`)."""
    value = {
        "name": "tiny",
        "seed": 3,
        "output": "runs",
        "model": {"init": INIT, "tokenizer": "tokenizer", "dtype": "float32"},
        "contract": {"must_stop": False},
        "tracking": {"wandb": "disabled"},
        **settings,
        "stages": [{"name": name, **stage} for name, stage in chosen.items()],
    }
    for stage in value["stages"]:
        if stage["kind"] == "grpo":
            stage["train"].pop("max_length", None)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return path


def command(recipe: Path, *options: str, config: str = "cpu", processes: int = 1) -> list[str]:
    """The command that the README gives."""
    return [
        sys.executable, "-m", "accelerate.commands.launch",
        "--config_file", str(ROOT / "accelerate_configs" / f"{config}.yaml"),
        *(["--num_processes", str(processes)] if processes > 1 else []),
        *(["--main_process_port", "0"] if processes > 1 else []),
        str(ROOT / "recipes" / "run.py"), str(recipe), *options,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE_", "WANDB_"))}
    return {**inherited, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def launch(recipe: Path, *options: str, config: str = "cpu", processes: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(recipe, *options, config=config, processes=processes),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=900,
    )


def output(done: subprocess.CompletedProcess[str]) -> str:
    """Return the whole output of a process, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


def kill_during(recipe: Path, folder: Path, moment: str, delay: float = 0.0, **launcher) -> bool:
    """Launch a recipe and kill its process group after a file of the artifacts appears.

    Args:
        recipe: the recipe.
        folder: its folder.
        moment: glob of the file, relative to the folder of the artifacts.
        delay: seconds to wait after the file appears.
        launcher: arguments of `command`.

    Returns:
        Whether the run was killed before it ended.
    """
    process = subprocess.Popen(
        command(recipe, **launcher),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    try:
        artifacts = folder / "runs" / "tiny" / "artifacts"
        while process.poll() is None and not any(artifacts.glob(moment)):
            time.sleep(0.02)
        time.sleep(delay)
        return process.poll() is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
