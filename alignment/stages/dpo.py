"""Direct preference optimization, with TRL's DPOTrainer.

The trainer also handles the reference model. With LoRA it is the model without its adapter. With full weights TRL keeps a
frozen copy, or only its log-probabilities if the recipe sets `precompute_ref_log_probs`. The artifact gets `model/` (and
`adapter/` with LoRA), `metrics.jsonl`, `probes.json`, and `contamination.jsonl` if rows were removed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.models import formats
from alignment.recipe import DpoStage
from alignment.recipe.stage_request import StageRequest
from alignment.rows.kinds import kind_of, messages_of
from alignment.stages.training import load_stage_tokenizer, train
from alignment.tokenization.prepare import prepare_once, write_probes
from alignment.tokenization.screen import ContaminationScreen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pair = dict[str, list[dict[str, str]]]
"""`prompt`, `chosen` and `rejected`, each a list of messages."""


def run(request: StageRequest) -> dict[str, Any]:
    """Train on the stage's preference rows; see `alignment.recipe.DpoStage` for the settings."""
    tokenizer = load_stage_tokenizer(request)
    tokenizer.chat_template = formats.CHAT_TEMPLATE
    folder, counts = prepare_once(request, lambda folder: prepare_pairs(request, tokenizer, folder))

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


def prepare_pairs(request: StageRequest, tokenizer: PreTrainedTokenizerBase, folder: Path) -> dict[str, Any]:
    """Write the pairs to `folder/train`, in a seeded order; returns what was counted."""
    from datasets import Dataset

    stage = request.stage
    assert isinstance(stage, DpoStage)
    counted: Counter[str] = Counter()
    screen = ContaminationScreen.for_targets(request.decontaminate, folder)
    pairs = list(_pairs(stage, tokenizer, counted, screen))
    if not pairs:
        raise ValueError(f"no preference pair is left to train on: {dict(counted)}")
    write_probes([formats.chat(pair["prompt"], add_generation_prompt=True) for pair in pairs[:4]], folder)
    random.Random(request.seed).shuffle(pairs)
    Dataset.from_list(pairs).save_to_disk(folder / "train")
    return {**counted, **screen.counts()}


def _pairs(
    stage: DpoStage, tokenizer: PreTrainedTokenizerBase, counted: Counter[str], screen: ContaminationScreen
) -> Iterator[Pair]:
    """Preference rows as conversations. Special strings in them are escaped; overlong rows are dropped and counted."""
    max_length = stage.train.get("max_length", 1024)
    for source in stage.data:
        for number, row in screen.clean_rows(source, counted):
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
    """Return a column of a preference row as messages, from messages or plain text."""
    if isinstance(value, str):
        value = [{"role": "user" if key == "prompt" else "assistant", "content": value}]
    messages = messages_of(value, f"{where}, {key}")
    return [
        {"role": message["role"], "content": formats.escape_special_text(message["content"])} for message in messages
    ]
