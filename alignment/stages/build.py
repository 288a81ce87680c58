"""Make a dataset with a builder of `data_builders`, or with a builder that the user wrote.

This stage uses no TRL trainer. The artifact gets the files that the builder writes (rows as JSONL or Parquet). The
builder's counts become `summary` of artifact.json.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from alignment.logs import get_logger
from alignment.recipe import BuildStage
from alignment.recipe.builders import builder_of
from alignment.recipe.stage_request import StageRequest
from data_builders.builder import BuildContext

logger = get_logger(__name__)


def run(request: StageRequest) -> dict[str, Any]:
    """Run the stage's builder in a scratch folder, then move the files from the scratch folder to the artifact.

    After an interruption, a builder that can't resume starts from the beginning. That is acceptable because builders
    are deterministic, and quick compared to training.
    """
    stage = request.stage
    assert isinstance(stage, BuildStage)
    builder = builder_of(stage)
    scratch = request.out / "building"
    if not builder.resumes:
        shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)
    context = BuildContext(
        out=scratch,
        seed=request.seed,
        workers=len(os.sched_getaffinity(0)),
        model=_checkpoint(request),
        dtype=request.model.dtype if request.model is not None else "auto",
        sandbox=request.sandbox,
    )
    counts = builder.run(builder.validate(stage.settings), context)
    for path in sorted(scratch.iterdir()):
        target = request.out / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    scratch.rmdir()
    for name, count in counts.items():
        if isinstance(count, int | float | str):
            logger.info("      %s: %s", name, count)
    return {"summary": counts, "sources": context.repositories, "device": "cpu"}


def _checkpoint(request: StageRequest) -> Path | None:
    """Return the folder or hub name of the stage's model. Random weights are first written to the artifact."""
    if request.model is None:
        return None
    if request.model.init is None:
        return Path(request.model.checkpoint)
    from alignment.models import loading

    return Path(loading.checkpoint_of(request.model, request.seed, request.out / "base"))
