"""Supervised fine-tuning on conversations in ChatML, with TRL's SFTTrainer.

The loss covers the assistant's answers. Documents may be mixed with the conversations. The artifact gets `model/` (and
`adapter/` with LoRA), `metrics.jsonl`, `probes.json` (prompts for the check that answers end), and
`contamination.jsonl` if rows were removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, Literal

from alignment.logs import get_logger
from alignment.models.model_family import family_of
from alignment.recipe import PretrainStage, SftStage
from alignment.recipe.stage_parts import Fim
from alignment.recipe.stage_request import StageRequest
from alignment.stages.training import load_stage_tokenizer, train
from alignment.tokenization.prepare import prepare_once, write_training_rows
from alignment.tokenization.segments import TokenizationRules

logger = get_logger(__name__)

DEFAULT_EPOCHS, DEFAULT_BATCH = 3, 8
"""TRL's defaults of num_train_epochs and per_device_train_batch_size (SFTConfig of TRL 1.16)."""


def run(request: StageRequest) -> dict[str, Any]:
    """Train on the stage's rows; see `alignment.recipe.SftStage` for the settings.

    By default overlong rows are dropped, as in the fine-tuning code of Qwen2.5-Coder.
    """
    stage = request.stage
    assert isinstance(stage, SftStage)
    return train_on_tokens(request, stage, overlong=stage.overlong, chat=True, packing=False)


def train_on_tokens(
    request: StageRequest,
    stage: PretrainStage | SftStage,
    *,
    overlong: Literal["drop", "error", "split"],
    chat: bool,
    packing: bool,
) -> dict[str, Any]:
    """Tokenize and pack the rows of an SFT or pretraining stage, then train on them.

    Args:
        request: the request to run the stage.
        stage: the stage's settings.
        overlong: what happens to a row that is longer than `max_length`.
        chat: whether the model ends its answers with `<|im_end|>`; see `train`.
        packing: whether rows are packed if `train:` does not set `packing`.

    Returns:
        The stage's part of artifact.json; see `train`.
    """
    tokenizer = load_stage_tokenizer(request)
    fim = _fim_of(request, stage, tokenizer)
    rules = TokenizationRules(
        max_length=stage.train.get("max_length", 1024),
        overlong=overlong,
        fim_rate=fim.rate,
        spm_rate=fim.spm_rate,
        fim_spans=fim.spans or "characters",
        packing=stage.train.get("packing_strategy", "fill") if stage.train.get("packing", packing) else None,
        context_fim=fim if fim.level == "context" else None,
    )
    order = stage.train.get("train_sampling_strategy", "group_by_length")
    by_length = rules.packing is None and order == "group_by_length"
    folder, counts = prepare_once(
        request,
        lambda folder: write_training_rows(
            stage.data,
            tokenizer,
            rules,
            request.seed,
            folder,
            request.decontaminate,
            lambda rows: epochs_of(stage.train, rows, request.world_size),
        ),
    )

    def make_trainer(model: Any, args: Any, lora: Any) -> Any:
        from datasets import load_from_disk

        from alignment.stages.token_trainer import TokenTrainer

        return TokenTrainer(
            packed=rules.packing is not None,
            by_length=by_length,
            epochs=counts.get("epochs", 1),
            model=model,
            args=args,
            train_dataset=load_from_disk(str(folder / "train")),
            processing_class=tokenizer,
            peft_config=lora,
        )

    return train(request, tokenizer, make_trainer, chat=chat, counts=counts)


def _fim_of(request: StageRequest, stage: PretrainStage | SftStage, tokenizer: Any) -> Fim:
    """Return the stage's `fim:`, or a rate of 0 if the model's family has no fill-in-the-middle.

    Raises:
        ValueError: a pretraining stage asks for fill-in-the-middle that the family does not have.
    """
    family = family_of(tokenizer)
    if family.trains_fim:
        return stage.fim
    if stage.fim.rate and isinstance(stage, PretrainStage):
        raise ValueError(f"fim.rate: {family.no_fim()}: set `fim: {{rate: 0}}`")
    if stage.fim.rate and request.rank == 0:
        logger.info("      %s: documents among the rows are trained as plain text", family.no_fim())
    return Fim(level="document", rate=0.0)


def epochs_of(train: Mapping[str, Any], rows: int, world_size: int) -> int:
    """Return for how many epochs a stage trains, rounded up.

    Args:
        train: the stage's `train:`.
        rows: number of rows in one epoch.
        world_size: number of processes.
    """
    steps = train.get("max_steps", -1)
    if steps <= 0:
        return ceil(train.get("num_train_epochs", DEFAULT_EPOCHS))
    batch = train.get("per_device_train_batch_size", DEFAULT_BATCH) * world_size
    return ceil(steps * batch * train.get("gradient_accumulation_steps", 1) / rows)
