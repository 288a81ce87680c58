"""Supervised fine-tuning: conversations in ChatML, loss on the answers; documents may be mixed in."""

from __future__ import annotations

from typing import Any

from alignment.recipe.stage_request import Request
from alignment.stages.pretrain import run_on_tokens


def run(request: Request) -> dict[str, Any]:
    """Train on the stage's rows; see `alignment.recipe.SftStage`.

    As in Qwen2.5-Coder's own fine-tuning code, overlong rows are dropped unless the recipe says otherwise.
    """
    return run_on_tokens(request, overlong=request.stage.overlong, chat=True, packing=False)
