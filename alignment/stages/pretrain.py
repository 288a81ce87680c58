"""Continued pretraining: documents, a share of them as fill-in-the-middle, packed without contact, loss on all text."""

from __future__ import annotations

from typing import Any

from alignment.recipe.stage_request import Request
from alignment.stages.training import tokenizer_of, train
from alignment.tokenization.prepare import once, training_rows
from alignment.tokenization.segments import Rules


def run(request: Request) -> dict[str, Any]:
    """Train on the stage's documents; see `alignment.recipe.PretrainStage`."""
    return run_on_tokens(request, overlong="split", chat=False, packing=True)


def run_on_tokens(request: Request, *, overlong: str, chat: bool, packing: bool) -> dict[str, Any]:
    """Pretraining and SFT alike: prepared token ids, TRL's SFTTrainer."""
    stage = request.stage
    tokenizer = tokenizer_of(request)
    rules = Rules(
        max_length=stage.train.get("max_length", 1024),
        overlong=overlong,
        fim_rate=stage.fim.rate,
        spm_rate=stage.fim.spm_rate,
        fim_spans=stage.fim.spans,
        packing=stage.train.get("packing_strategy", "fill") if stage.train.get("packing", packing) else None,
    )
    order = stage.train.get("train_sampling_strategy", "group_by_length")
    by_length = rules.packing is None and order == "group_by_length"
    folder, counts = once(
        request,
        lambda folder: training_rows(stage.data, tokenizer, rules, request.seed, folder, request.decontaminate),
    )

    def make_trainer(model: Any, args: Any, lora: Any) -> Any:
        from datasets import load_from_disk

        from alignment.stages.token_trainer import TokenTrainer

        return TokenTrainer(
            packed=rules.packing is not None,
            by_length=by_length,
            model=model,
            args=args,
            train_dataset=load_from_disk(str(folder / "train")),
            processing_class=tokenizer,
            peft_config=lora,
        )

    return train(request, tokenizer, make_trainer, chat=chat, counts=counts)
