"""Create requests to run single stages with generated rows, outside of a recipe."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignment.recipe.stage_request import StageRequest

# Functions import the toolkit when they are called, because `gpu-check --wheels` must install packages first.

ROOT = Path(__file__).resolve().parents[1]
"""Folder of the checkout. It is the PYTHONPATH of processes that measurements start."""


def write_rows(folder: Path, kind: str, length: int, count: int = 96) -> Path:
    """Write `folder/rows.jsonl` for a kind of stage. The same arguments give the same rows.

    Args:
        folder: an existing folder.
        kind: `pretrain`, `sft`, `dpo` or `grpo`.
        length: number of tokens in each row, for a tokenizer with one token per byte.
        count: number of rows.
    """
    draw = random.Random(0)

    def text(size: int) -> str:
        return "".join(draw.choices("abcdefghij klmnopqrs", k=max(size, 1)))

    rows: list[dict[str, Any]] = []
    for number in range(count):
        if kind == "pretrain":
            rows.append({"text": text(length * 2)})
        elif kind == "sft":
            question = [{"role": "system", "content": "."}, {"role": "user", "content": "Say."}]
            rows.append({"messages": [*question, {"role": "assistant", "content": text(length - 48)}]})
        elif kind == "dpo":
            rows.append({"prompt": "Say.", "chosen": text(length - 120), "rejected": text(length - 121)})
        else:
            tests = json.dumps({"cases": [{"args": [1], "expected": 2}], "tolerance": None})
            row = {"id": f"t{number}", "prompt": text(40), "language": "python", "kind": "calls", "tests": tests}
            rows.append({**row, "entry_point": "f", "source": "t", "split": "train"})
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def request_for(stage: dict[str, Any], model: dict[str, Any], out: Path) -> StageRequest:
    """Create the request to run one stage.

    Args:
        stage: the stage's entry in a recipe, with absolute paths.
        model: settings of the model source (`path`, or `init` and `tokenizer`), with absolute paths; float32 by
            default.
        out: the artifact's folder.
    """
    from alignment.models.source import ModelSource
    from alignment.recipe import SandboxSettings, Tracking
    from alignment.recipe.stage_request import StageRequest

    return StageRequest.for_stage(
        stage,
        out,
        ModelSource.model_validate({"dtype": "float32", **model}),
        sandbox=SandboxSettings(allow_weaker=True, workers=1),
        tracking=Tracking(wandb="disabled"),
        recipe="measured",
    )


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
) -> StageRequest:
    """Write rows to `folder`, and create the request to run a stage that starts from random weights.

    Args:
        kind: `pretrain`, `sft`, `dpo` or `grpo`.
        init: shape of the model, as in a recipe's `model: {init: ...}`.
        train: the stage's `train:`.
        lora: the stage's `peft:`, or None to train all weights.
        tokenizer: folder of the tokenizer.
        folder: folder for the rows and, in `out`, the artifact.
        length: number of tokens in each row.
        dtype: type of the weights.
        rows: number of rows.
    """
    stage: dict[str, Any] = {
        "name": kind,
        "kind": kind,
        "data": [{"data": str(write_rows(folder, kind, length, rows))}],
        "train": train,
        "peft": lora,
    }
    if kind == "grpo":
        stage["rewards"] = [{"name": "parses"}]
    return request_for(stage, {"init": init, "tokenizer": str(tokenizer), "dtype": dtype}, folder / "out")
