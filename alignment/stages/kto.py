"""Kahneman-Tversky optimization (KTO) on accepted and rejected answers, with TRL's KTOTrainer.

Unlike DPO, KTO needs no pairs: each row is one answer with a label. Rows may be answers in conversations and
fill-in-the-middle completions from editors, also mixed. The artifact gets `model/` (and `adapter/` with LoRA),
`metrics.jsonl`, `probes.json` (prompts for the check that answers end), and `contamination.jsonl` if rows were removed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.models import formats
from alignment.models.model_family import family_of
from alignment.recipe import KtoStage
from alignment.recipe.stage_request import StageRequest
from alignment.rows.feedback_rows import ChatFeedback, feedback_of
from alignment.rows.kinds import kind_of
from alignment.stages.training import load_stage_tokenizer, train
from alignment.tokenization.feedback_tokens import FeedbackSample, tokenize_feedback
from alignment.tokenization.prepare import prepare_once, write_probes
from alignment.tokenization.screen import ContaminationScreen
from alignment.tokenization.segments import PROBES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def run(request: StageRequest) -> dict[str, Any]:
    """Train on the stage's feedback rows; see `alignment.recipe.KtoStage` for the settings.

    If all rows are completions from editors, the model keeps the end token of the model that it starts from.
    """
    tokenizer = load_stage_tokenizer(request)
    is_chat_model = tokenizer.eos_token == family_of(tokenizer).end_of_turn
    tokenizer.chat_template = formats.training_template(tokenizer)
    folder, counts = prepare_once(request, lambda folder: prepare_feedback(request, tokenizer, folder))

    def make_trainer(model: Any, args: Any, lora: Any) -> Any:
        from datasets import load_from_disk

        from alignment.stages.feedback_trainer import FeedbackTrainer

        return FeedbackTrainer(
            model=model,
            args=args,
            train_dataset=load_from_disk(str(folder / "train")),
            processing_class=tokenizer,
            peft_config=lora,
        )

    chat = is_chat_model or counts.get("chat", 0) > 0
    return {**train(request, tokenizer, make_trainer, chat=chat, counts=counts), "chat": chat}


def prepare_feedback(request: StageRequest, tokenizer: PreTrainedTokenizerBase, folder: Path) -> dict[str, Any]:
    """Tokenize the rows and write them to `folder/train`, in a seeded random order. Return the counts for the artifact.

    Raises:
        ValueError: a row is wrong, no row is left, or all rows have the same label.
    """
    from datasets import Dataset

    stage = request.stage
    assert isinstance(stage, KtoStage)
    counted: Counter[str] = Counter()
    screen = ContaminationScreen.for_targets(request.decontaminate, folder)
    probes: list[str] = []
    samples = list(_samples(stage, tokenizer, counted, screen, probes))
    if not samples:
        raise ValueError(f"no feedback is left to train on: {dict(counted)}")
    if not (counted["accepted"] and counted["rejected"]):
        label = "accepted" if counted["accepted"] else "rejected"
        raise ValueError(
            f"all {len(samples)} rows are {label}: KTO needs both kinds. For good answers alone, use an sft stage"
        )
    if probes:  # without conversations, the check uses its general prompt
        write_probes(probes, folder)
    random.Random(request.seed).shuffle(samples)
    Dataset.from_list([dict(sample) for sample in samples]).save_to_disk(folder / "train")
    return {**counted, **screen.counts()}


def _samples(
    stage: KtoStage,
    tokenizer: PreTrainedTokenizerBase,
    counted: Counter[str],
    screen: ContaminationScreen,
    probes: list[str],
) -> Iterator[FeedbackSample]:
    """Tokenize feedback rows. Overlong rows are dropped and counted in `counted`.

    The prompts of the first `PROBES` conversations are added to `probes`, for the check that answers end.
    """
    max_length = stage.train.get("max_length", 1024)
    for source in stage.data:
        for number, row in screen.clean_rows(source, counted):
            where = f"{source.data}, row {number}"
            if kind_of(row, where) != "feedback":
                raise ValueError(f"{where}: KTO needs `completion`, `label`, and `prompt` or `prefix` and `suffix`")
            counted["rows"] += 1
            feedback = feedback_of(row, where)
            sample = tokenize_feedback(feedback, tokenizer)
            length = len(sample["prompt_ids"]) + len(sample["completion_ids"])
            if max_length is not None and length > max_length:
                if stage.overlong == "error":
                    raise ValueError(f"{where}: {length} tokens, max_length is {max_length}")
                counted["dropped_overlong"] += 1
                continue
            counted["accepted" if sample["label"] else "rejected"] += 1
            if isinstance(feedback, ChatFeedback):
                counted["chat"] += 1
                if len(probes) < PROBES:
                    family = family_of(tokenizer)
                    probes.append(formats.chat(feedback.prompt, True, tools=feedback.tools, escape=True, family=family))
            yield sample
