"""Opens the trackers that a recipe names, for one stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignment.recipe.stage_request import StageRequest
from alignment.tracking.background_tracker import Backend, BackgroundTracker, TrackedRun
from alignment.tracking.weights_and_biases import log_to_wandb, run_id


def open_trackers(request: StageRequest) -> list[BackgroundTracker]:
    """Start a run in each tracker that the recipe names beside Weights & Biases. Ranks other than 0 get an empty list."""
    if request.rank != 0:
        return []
    run = TrackedRun(
        project=request.tracking.project,
        group=request.recipe,
        name=f"{request.recipe}/{request.name}",
        key=run_id(request),
        settings=dict(_settings(request.stage.model_dump(mode="json", include={"kind", "train", "peft"}))),
    )
    return [BackgroundTracker(backend, run) for backend in _backends(request)]


def log_figures(request: StageRequest, figures: Sequence[Mapping[str, Any]]) -> None:
    """Log the results of an evaluation to every tracker of the recipe. Only rank 0 logs.

    Args:
        request: the request of the stage.
        figures: rows with `benchmark`, `metric` and `value`.
    """
    if request.rank != 0:
        return
    log_to_wandb(request, figures)
    metrics = {f"{figure['benchmark']}/{figure['metric']}": float(figure["value"]) for figure in figures}
    for tracker in open_trackers(request):
        tracker.log(metrics, step=0)
        tracker.finish()


def _backends(request: StageRequest) -> Iterator[Backend]:
    tracking, output = request.tracking, request.out.parents[2]  # OUTPUT/RECIPE/artifacts/STEP
    if tracking.mlflow is not None:
        from alignment.tracking.mlflow_backend import MlflowBackend

        yield MlflowBackend((output / "mlflow").as_uri() if tracking.mlflow == "local" else tracking.mlflow)
    if tracking.trackio:
        from alignment.tracking.trackio_backend import TrackioBackend

        yield TrackioBackend(output / "trackio")


def _settings(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, text) of every setting that is not a mapping. None is left out."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _settings(item, f"{place}.{key}" if place else str(key))
    elif value is not None:
        yield place, str(value)
