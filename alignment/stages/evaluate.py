"""Measures a model on held-out tasks: the recipe's `evaluate:` set after a training stage, or benchmarks of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment.logs import get_logger
from alignment.models import loading
from alignment.recipe.stage_request import Request
from alignment.tracking.weights_and_biases import log_figures

logger = get_logger(__name__)


def run(request: Request) -> dict[str, Any]:
    """Evaluate the request's model; random weights are written down first, so that all see the same."""
    from alignment.evaluation import evaluate

    assert request.model is not None
    path = request.model["path"]
    if request.model.get("init"):
        path = str(request.out / "base")
        loading.write_random(request.model, loading.load_tokenizer(request.model), request.seed, Path(path))
    figures = evaluate(
        path,
        request.stage.benchmarks,
        request.out,
        seed=request.seed,
        sandbox=request.sandbox,
        progress=lambda text: logger.info(f"      {text}"),
        preflight=False,  # the contract has proven what the chain trained; a base may well lack chat settings
    )
    plain = [dict(figure) for figure in figures]
    log_figures(request, plain)
    return {"figures": plain, "device": "cpu"}
