"""What the chain sends to a stage's process, for scripts that measure stages one by one."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any


def write_rows(folder: Path, kind: str, length: int, count: int = 96) -> Path:
    """Rows that fill about `length` tokens of a byte-level tokenizer each; the same for the same arguments."""
    draw = random.Random(0)

    def text(size: int) -> str:
        return "".join(draw.choices("abcdefghij klmnopqrs", k=max(size, 1)))

    rows: list[dict[str, Any]] = []
    for number in range(count):
        if kind == "pretrain":
            rows.append({"text": text(length * 2)})
        elif kind == "sft":
            asked = [{"role": "system", "content": "."}, {"role": "user", "content": "Say."}]
            rows.append({"messages": [*asked, {"role": "assistant", "content": text(length - 48)}]})
        elif kind == "dpo":
            rows.append({"prompt": "Say.", "chosen": text(length - 120), "rejected": text(length - 121)})
        else:
            tests = json.dumps({"cases": [{"args": [1], "expected": 2}], "tolerance": None})
            row = {"id": f"t{number}", "prompt": text(40), "language": "python", "kind": "calls", "tests": tests}
            rows.append({**row, "entry_point": "f", "source": "t", "split": "train"})
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def stage_request(
    kind: str,
    init: dict[str, Any],
    train: dict[str, Any],
    lora: dict[str, Any] | None,
    tokenizer: Path,
    folder: Path,
    *,
    length: int,
    dtype: str = "float32",
    rows: int = 96,
) -> dict[str, Any]:
    """A stage of `kind` on random weights of the shape `init`; its rows are written below `folder`."""
    stage: dict[str, Any] = {
        "name": kind,
        "kind": kind,
        "data": [{"data": str(write_rows(folder, kind, length, rows))}],
        "train": train,
        "peft": lora,
    }
    if kind == "grpo":
        stage["rewards"] = [{"name": "parses"}]
    source = {"path": None, "init": init, "tokenizer": str(tokenizer), "dtype": dtype, "attn_implementation": None}
    return {
        "name": kind, "stage": stage, "seed": 0, "out": str(folder / "out"), "model": source, "model_stage": "base",
        "sandbox": {"allow_weaker": True, "workers": 1}, "tracking": {"wandb": "disabled"}, "recipe": "measured",
        "fingerprint": kind,
    }  # fmt: skip
