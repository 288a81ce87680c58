"""Measure the peak memory of real stages on the CPU, each in a fresh process, against what `align plan` predicts.

    python benchmarks/memory_prediction.py [--only NAME ...] [--json]

Every case is one stage of the chain, run as the chain runs it (`python -m alignment.stages`), with random weights of a
shape whose parts weigh differently: weights, activations, the loss, rollouts. Peak is the process's largest resident set.

glibc keeps freed blocks of up to 32 MB for later, and with gradient checkpointing these came to 85% on top (measured here), for
20% of speed. So that the figure is what the stage holds, and not what the allocator hoards, large blocks are mapped here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from stage_requests import stage_request  # noqa: E402

from data_builders.synthetic.tokenizer import train_tokenizer  # noqa: E402

BASE: dict[str, Any] = {"max_steps": 2, "save_strategy": "no", "logging_steps": 1, "learning_rate": 1e-4}
WIDE = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 8192,
}
DEEP = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 24,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
}
TALL = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 65536,
}
# Nothing in alignment/planning/memory.py was adjusted by what these measure.
ODD = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 10,
    "num_attention_heads": 12,
    "num_key_value_heads": 6,
    "vocab_size": 24000,
}
LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
# name: (kind, shape, training settings, LoRA, tied)
CASES: dict[str, tuple[str, dict[str, int], dict[str, Any], dict[str, Any] | None, bool]] = {
    "weights": ("sft", WIDE, {"per_device_train_batch_size": 1, "max_length": 128}, None, True),
    "weights-untied": ("sft", WIDE, {"per_device_train_batch_size": 1, "max_length": 128}, None, False),
    "activations": ("sft", DEEP, {"per_device_train_batch_size": 4, "max_length": 512, "packing": True}, None, True),
    "checkpointing": ("pretrain", DEEP, {"per_device_train_batch_size": 8, "max_length": 512, "gradient_checkpointing": True}, None, True),
    "accumulation": ("pretrain", WIDE, {"per_device_train_batch_size": 2, "max_length": 256, "gradient_accumulation_steps": 2}, None, True),
    "vocabulary": ("sft", TALL, {"per_device_train_batch_size": 2, "max_length": 512, "packing": True}, None, True),
    "lora": ("sft", WIDE, {"per_device_train_batch_size": 4, "max_length": 512, "packing": True}, LORA, True),
    "lora-dropout": ("sft", DEEP, {"per_device_train_batch_size": 4, "max_length": 512, "packing": True}, {**LORA, "lora_dropout": 0.1}, True),
    "dpo": ("dpo", WIDE, {"per_device_train_batch_size": 2, "max_length": 256}, None, True),
    "dpo-precomputed": ("dpo", DEEP, {"per_device_train_batch_size": 4, "max_length": 256, "precompute_ref_log_probs": True}, None, True),
    "unseen": ("sft", ODD, {"per_device_train_batch_size": 3, "max_length": 200, "packing": True}, None, True),
    "unseen-lora": ("sft", ODD, {"per_device_train_batch_size": 3, "max_length": 384}, {**LORA, "r": 16}, False),
    "unseen-dpo-lora": ("dpo", ODD, {"per_device_train_batch_size": 2, "max_length": 300}, LORA, True),
    "unseen-grpo": ("grpo", ODD, {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 48}, None, True),
    "grpo": ("grpo", WIDE, {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 128}, None, True),
}  # fmt: skip


def request(name: str, tokenizer: Path, folder: Path) -> dict[str, Any]:
    """What the chain would send to the stage's process."""
    kind, shape, train, lora, tied = CASES[name]
    init = {**shape, "tie_word_embeddings": tied, "max_position_embeddings": 4096}
    train = {**BASE, "gradient_checkpointing": False, **train}
    return stage_request(kind, init, train, lora, tokenizer, folder, length=train.get("max_length", 0))


def measure(name: str, tokenizer: Path) -> float:
    """Peak resident bytes of the stage's process."""
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryFile() as log:
        folder = Path(temporary)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "ALIGN_PARENT": str(os.getpid())}
        environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)
        process = subprocess.Popen(
            [sys.executable, "-m", "alignment.stages"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, env=environment,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(request(name, tokenizer, folder)).encode())
        process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{name} ended with {process.returncode}:\n{log.read().decode()[-3000:]}")
        return float(usage.ru_maxrss) * 1024


def predicted(name: str, tokenizer: Path) -> Any:
    """The plan's figure for the same stage."""
    from alignment.planning.memory import predict
    from alignment.planning.resources import shape_of, work_of
    from alignment.recipe import BaseModelSettings
    from alignment.recipe.stage_request import _STAGE

    with tempfile.TemporaryDirectory() as temporary:
        asked = request(name, tokenizer, Path(temporary))
        stage = _STAGE.validate_python(asked["stage"])
        model = BaseModelSettings(**{"init": asked["model"]["init"], "tokenizer": "x", "dtype": "float32"})
        shape = shape_of(model)
    assert shape is not None
    from alignment.recipe.launch_file import Layout

    layout = Layout(device="cpu")
    work = work_of(stage, model, layout)
    if CASES[name][0] == "grpo":
        from dataclasses import replace

        work = replace(work, length=prompt_tokens(tokenizer) + work.completion)
    return predict(shape, work, layout)


def prompt_tokens(tokenizer: Path) -> int:
    """Tokens of a task's prompt, as `stage_requests` writes it."""
    from alignment.models import formats, loading

    text = formats.chat([{"role": "user", "content": "." * 40}], add_generation_prompt=True)
    return len(loading.load_tokenizer({"path": str(tokenizer)}).encode(text))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = Path(temporary)
        # A token for each byte: rows must be as long as the plan takes them for.
        train_tokenizer(["x"], 256 + 22, tokenizer)
        report(arguments.only, tokenizer, arguments.json)
    return 0


def report(names: list[str], tokenizer: Path, as_json: bool) -> None:
    """Measure the cases one after the other and print each as it comes, or all as one JSON document."""
    rows = []
    for name in names:
        found, asked = predicted(name, tokenizer), measure(name, tokenizer)
        parts = {key: round(value / 2**20) for key, value in found.parts.items()}
        rows.append({"case": name, "predicted_mb": round(found.total / 2**20), "measured_mb": round(asked / 2**20),
                     "ratio": round(found.total / asked, 3), "parts_mb": parts})  # fmt: skip
        if not as_json:
            print(f"{name:16} predicted {rows[-1]['predicted_mb']:6} MB  measured {rows[-1]['measured_mb']:6} MB  "
                  f"ratio {rows[-1]['ratio']:.3f}  {parts}", flush=True)  # fmt: skip
    if as_json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    raise SystemExit(main())
