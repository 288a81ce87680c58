"""Measure a model on benchmarks: on the benchmarks of a stage of kind `evaluate`, or of the recipe's `evaluate:` after
a training stage.

This stage uses no TRL trainer. The artifact gets the metrics (pass@k and text scores with 95% intervals),
`verdicts.jsonl` and the completions of every task. `alignment.evaluation` describes the files.
"""

from __future__ import annotations

from typing import Any

from alignment.evaluation import evaluate
from alignment.models import loading
from alignment.recipe import EvaluateStage
from alignment.recipe.stage_request import StageRequest
from alignment.tracking.stage_trackers import log_figures


def run(request: StageRequest) -> dict[str, Any]:
    """Evaluate the request's model; see `alignment.recipe.EvaluateStage` for the settings."""
    assert request.model is not None and isinstance(request.stage, EvaluateStage)
    figures = evaluate(
        loading.checkpoint_of(request.model, request.seed, request.out / "base"),
        request.stage.benchmarks,
        request.out,
        seed=request.seed,
        engine=request.stage.engine,
        dtype=request.model.dtype,
        sandbox=request.sandbox,
        # Trained models have passed the checks of alignment.models.contract, and a base model may lack chat settings.
        preflight=False,
    )
    rows = [dict(figure) for figure in figures]
    log_figures(request, rows)
    return {"figures": rows, "device": "cpu"}
