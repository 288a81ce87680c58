"""Continued pretraining on documents, with TRL's SFTTrainer.

A share of the documents (`fim.rate`) becomes fill-in-the-middle documents. Documents are tokenized and packed into
rows; there is no attention between the documents of a row. The loss covers all text. The artifact gets `model/` (and
`adapter/` with LoRA), `metrics.jsonl`, and `contamination.jsonl` if rows were removed.
"""

from __future__ import annotations

from typing import Any

from alignment.recipe import PretrainStage
from alignment.recipe.stage_request import StageRequest
from alignment.stages.sft import train_on_tokens


def run(request: StageRequest) -> dict[str, Any]:
    """Train on the stage's documents; see `alignment.recipe.PretrainStage` for the settings."""
    assert isinstance(request.stage, PretrainStage)
    return train_on_tokens(request, request.stage, overlong="split", chat=False, packing=True)
