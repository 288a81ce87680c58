"""Makes datasets: calls a builder, and leaves what it wrote in the artifact."""

from __future__ import annotations

import os
import shutil
from typing import Any

from alignment.logs import get_logger
from alignment.recipe import BuildStage, builders
from alignment.recipe.stage_request import StageRequest

logger = get_logger(__name__)


def run(request: StageRequest) -> dict[str, Any]:
    """Run the stage's builder into a scratch folder, then move its files to the artifact.

    A builder that was killed halfway starts anew, unless it goes on by itself: it is deterministic, and cheap against
    training.
    """
    stage = request.stage
    assert isinstance(stage, BuildStage)
    scratch = request.out / "building"
    if not builders.BUILDERS[stage.builder].resumes:
        shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)
    workers = len(os.sched_getaffinity(0))
    summary = builders.call(
        stage, scratch, seed=request.seed, request=request, workers=workers, sandbox=request.sandbox
    )
    for path in sorted(scratch.iterdir()):
        target = request.out / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    scratch.rmdir()
    for name, count in summary.items():
        if isinstance(count, int | float | str):
            logger.info("      %s: %s", name, count)
    return {"summary": summary, "device": "cpu"}
