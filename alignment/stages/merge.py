"""Merge the models of earlier stages or other checkpoints into one model, without training.

With `search:`, every candidate for the weights is merged and measured first. The artifact gets `model/` and, with a
search, `search/NUMBER` with the results of each candidate.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignment.evaluation import evaluate
from alignment.logs import get_logger
from alignment.models import loading
from alignment.models.model_family import family_of
from alignment.models.source import ModelSource
from alignment.models.weight_merging import merge_into
from alignment.recipe import MergeStage
from alignment.recipe.merge_stage import MergeSearch, NamedModel
from alignment.recipe.stage_request import StageRequest

logger = get_logger(__name__)
DEFAULT_DENSITY = 0.5


class _Inputs(NamedTuple):
    """The checkpoints that are merged, and the base model from which differences are taken (None for methods without
    differences).
    """

    sources: list[ModelSource]
    base: ModelSource | None


def run(request: StageRequest) -> dict[str, Any]:
    """Merge the models; see `alignment.recipe.MergeStage` for the settings.

    Returns:
        The weights that were used, whether the model ends its answers with `<|im_end|>` (`chat`), and with `search` the
        value of the metric for each candidate.

    Raises:
        ValueError: the models have different tensors, or the search's benchmark does not report the metric.
    """
    stage = request.stage
    assert isinstance(stage, MergeStage)
    inputs = _Inputs(
        [_source(request, entry, index) for index, entry in enumerate(stage.models)],
        _source(request, stage.task_base, len(stage.models)) if stage.task_base else None,
    )
    weights = [entry.weight for entry in stage.models]
    result: dict[str, Any] = {"device": "cpu"}
    if stage.search is not None:
        weights, result["search"] = _search(request, stage, stage.search, inputs)
    chat = write_merged(request, stage, inputs, weights, request.out / "model")
    shutil.rmtree(request.out / "base", ignore_errors=True)
    return {**result, "method": stage.method, "weights": weights, "chat": chat}


def _source(request: StageRequest, entry: NamedModel, index: int) -> ModelSource:
    """Return the checkpoint of one model on disk. Random weights are written, and hub models are downloaded."""
    if entry.model is not None:
        source = request.merged[entry.model]
    else:
        template = next(iter(request.merged.values()), ModelSource())
        source = template.model_copy(
            update={"path": str(entry.path), "init": None, "tokenizer": None, "revision": None}
        )
    folder = loading.checkpoint_of(source, request.seed, request.out / "base" / str(index))
    if not Path(folder).is_dir():
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            folder, revision=source.revision, allow_patterns=["*.safetensors", "*.json", "*.txt"]
        )
    return source.model_copy(update={"path": folder, "init": None})


def write_merged(
    request: StageRequest, stage: MergeStage, inputs: _Inputs, weights: Sequence[float], folder: Path
) -> bool:
    """Merge the checkpoints with these weights, and save the merged model. Return whether the model is a chat model."""
    first = inputs.sources[0]
    tokenizer = loading.load_tokenizer(first)
    chat = tokenizer.eos_token == family_of(tokenizer).end_of_turn if stage.chat is None else stage.chat
    model = loading.load(first, tokenizer)
    merge_into(
        model,
        [Path(source.checkpoint) for source in inputs.sources],
        weights,
        method=stage.method,
        base=Path(inputs.base.checkpoint) if inputs.base else None,
        density=DEFAULT_DENSITY if stage.density is None else stage.density,
        seed=request.seed,
    )
    loading.set_stop_tokens(model, tokenizer, chat)
    loading.save(model, tokenizer, folder)
    return chat


def _search(
    request: StageRequest, stage: MergeStage, search: MergeSearch, inputs: _Inputs
) -> tuple[list[float], list[dict[str, Any]]]:
    """Merge and measure every candidate for the weights.

    Return the weights with the best metric, and one row for each candidate.

    A row has `weights`, and `value`, `low`, `high` and `n` of the metric. After an interruption, candidates whose
    results are complete are not measured again.
    """
    rows: list[dict[str, Any]] = []
    folder = request.out / "candidate"
    for number, weights in enumerate(search.weights):
        write_merged(request, stage, inputs, weights, folder)
        figures = evaluate(
            folder,
            [search.benchmark],
            request.out / "search" / str(number),
            seed=request.seed,
            dtype=inputs.sources[0].dtype,
            sandbox=request.sandbox,
            preflight=False,
        )
        figure = next((figure for figure in figures if figure["metric"] == search.metric), None)
        if figure is None:
            known = ", ".join(sorted({figure["metric"] for figure in figures}))
            raise ValueError(f"search.metric: the benchmark does not report {search.metric!r}; it reports {known}")
        rows.append({"weights": weights, **{key: figure[key] for key in ("value", "low", "high", "n")}})
        logger.info(
            "weights %s: %s %.1f [%.1f, %.1f]",
            weights,
            search.metric,
            *(figure[key] for key in ("value", "low", "high")),
        )
        shutil.rmtree(folder)
    best = max(rows, key=lambda row: row["value"])
    return best["weights"], rows
