"""Direct preference optimization on TRL's DPOTrainer, which also handles the reference model.

With LoRA the reference is the model without the adapter; with full weights TRL keeps a frozen copy, or its log
probabilities where the recipe sets `precompute_ref_log_probs`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.models import formats
from alignment.recipe.stage_request import Request
from alignment.rows.kinds import kind_of, messages_of
from alignment.stages.training import tokenizer_of, train
from alignment.tokenization.prepare import leave_probes, once
from alignment.tokenization.screen import Screen


def run(request: Request) -> dict[str, Any]:
    """Train on the stage's preference rows; see `alignment.recipe.DpoStage`."""
    stage = request.stage
    tokenizer = tokenizer_of(request)
    tokenizer.chat_template = formats.CHAT_TEMPLATE
    max_length = stage.train.get("max_length", 1024)

    def prepare(folder: Path) -> dict[str, Any]:
        from datasets import Dataset

        counted: Counter[str] = Counter()
        screen = Screen.of(request.decontaminate, folder)
        pairs = list(_pairs(stage, tokenizer, max_length, counted, screen))
        if not pairs:
            raise ValueError(f"no preference pair is left to train on: {dict(counted)}")
        leave_probes([formats.chat(pair["prompt"], add_generation_prompt=True) for pair in pairs[:4]], folder)
        random.Random(request.seed).shuffle(pairs)
        Dataset.from_list(pairs).save_to_disk(folder / "train")
        return {**counted, **screen.counts()}

    folder, counts = once(request, prepare)

    def make_trainer(model: Any, args: Any, lora: Any) -> Any:
        from datasets import load_from_disk
        from trl import DPOTrainer

        return DPOTrainer(
            model=model,
            args=args,
            train_dataset=load_from_disk(str(folder / "train")),
            processing_class=tokenizer,
            peft_config=lora,
        )

    return train(request, tokenizer, make_trainer, chat=True, counts=counts)


def _pairs(
    stage: Any, tokenizer: Any, max_length: int, counted: Counter[str], screen: Screen
) -> Iterator[dict[str, Any]]:
    """Preference rows as conversations, special strings in them made harmless, overlong ones counted."""
    for source in stage.data:
        for number, row in screen.rows(source, counted):
            where = f"{source.data}, row {number}"
            if kind_of(row, where) != "preference":
                raise ValueError(f"{where}: DPO needs `prompt`, `chosen` and `rejected`")
            counted["rows"] += 1
            pair = {key: _messages(row[key], where, key) for key in ("prompt", "chosen", "rejected")}
            if pair["chosen"] == pair["rejected"]:
                counted["same_answers"] += 1
                continue
            longest = max(
                len(tokenizer.encode(formats.chat(pair["prompt"] + pair[key]), add_special_tokens=False))
                for key in ("chosen", "rejected")
            )
            if longest > max_length:
                if stage.overlong == "error":
                    raise ValueError(f"{where}: {longest} tokens, max_length is {max_length}")
                counted["dropped_overlong"] += 1
                continue
            counted["pairs"] += 1
            yield pair


def _messages(value: Any, where: str, key: str) -> list[dict[str, str]]:
    if isinstance(value, str):
        value = [{"role": "user" if key == "prompt" else "assistant", "content": value}]
    messages = messages_of(value, f"{where}, {key}")
    return [
        {"role": message["role"], "content": formats.escape_special_text(message["content"])} for message in messages
    ]
