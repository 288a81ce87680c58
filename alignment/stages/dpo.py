"""Direct preference optimization, with TRL's DPOTrainer.

The stage tokenizes the rows (`alignment.tokenization.pair_tokens`). The trainer handles the reference model. With LoRA,
the reference is the model without its adapter. With full weights, TRL keeps a frozen copy of the model, or only the
copy's log-probabilities if the recipe sets `precompute_ref_log_probs`. The artifact gets `model/` (and `adapter/` with
LoRA), `metrics.jsonl`, `probes.json` (prompts for the check that answers end), and `contamination.jsonl` if rows were
removed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.models import formats
from alignment.models.model_family import family_of
from alignment.recipe import DpoStage
from alignment.recipe.stage_request import StageRequest
from alignment.rows.dialogue_pairs import pair_of
from alignment.rows.kinds import kind_of
from alignment.stages.training import load_stage_tokenizer, train
from alignment.tokenization.pair_tokens import PairSample, tokenize_pair
from alignment.tokenization.prepare import prepare_once, write_probes
from alignment.tokenization.screen import ContaminationScreen
from alignment.tokenization.segments import PROBES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def run(request: StageRequest) -> dict[str, Any]:
    """Train on the stage's preference rows; see `alignment.recipe.DpoStage` for the settings."""
    tokenizer = load_stage_tokenizer(request)
    tokenizer.chat_template = formats.training_template(tokenizer)
    folder, counts = prepare_once(request, lambda folder: prepare_pairs(request, tokenizer, folder))

    def make_trainer(model: Any, args: Any, lora: Any) -> Any:
        from datasets import load_from_disk

        from alignment.stages.pair_trainer import PairTrainer

        return PairTrainer(
            model=model,
            args=args,
            train_dataset=load_from_disk(str(folder / "train")),
            processing_class=tokenizer,
            peft_config=lora,
        )

    return train(request, tokenizer, make_trainer, chat=True, counts=counts)


def prepare_pairs(request: StageRequest, tokenizer: PreTrainedTokenizerBase, folder: Path) -> dict[str, Any]:
    """Tokenize the pairs and write them to `folder/train`, in a seeded random order.

    Return the counts for the artifact.
    """
    from datasets import Dataset

    stage = request.stage
    assert isinstance(stage, DpoStage)
    counted: Counter[str] = Counter()
    screen = ContaminationScreen.for_targets(request.decontaminate, folder)
    probes: list[str] = []
    pairs = list(_pairs(stage, tokenizer, counted, screen, probes))
    if not pairs:
        raise ValueError(f"no preference pair is left to train on: {dict(counted)}")
    write_probes(probes, folder)
    random.Random(request.seed).shuffle(pairs)
    Dataset.from_list([dict(pair) for pair in pairs]).save_to_disk(folder / "train")
    return {**counted, **screen.counts()}


def _pairs(
    stage: DpoStage,
    tokenizer: PreTrainedTokenizerBase,
    counted: Counter[str],
    screen: ContaminationScreen,
    probes: list[str],
) -> Iterator[PairSample]:
    """Tokenize preference rows. Pairs with two equal answers and overlong pairs are dropped and counted in `counted`.

    The prompts of the first `PROBES` pairs are added to `probes`, for the check that answers end.
    """
    max_length = stage.train.get("max_length", 1024)
    for source in stage.data:
        for number, row in screen.clean_rows(source, counted):
            where = f"{source.data}, row {number}"
            if kind_of(row, where) != "preference":
                raise ValueError(f"{where}: DPO needs `prompt`, `chosen` and `rejected`")
            counted["rows"] += 1
            pair = pair_of(row, where)
            if pair is None:
                counted["same_answers"] += 1
                continue
            sample = tokenize_pair(pair, tokenizer)
            longest = len(sample["prompt_ids"]) + max(len(sample["chosen_ids"]), len(sample["rejected_ids"]))
            if max_length is not None and longest > max_length:
                if stage.overlong == "error":
                    raise ValueError(f"{where}: {longest} tokens, max_length is {max_length}")
                counted["dropped_overlong"] += 1
                continue
            counted["pairs"] += 1
            if len(probes) < PROBES:
                probe = formats.chat(pair.prompt, True, tools=pair.tools, escape=True, family=family_of(tokenizer))
                probes.append(probe)
            yield sample
