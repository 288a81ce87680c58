"""Weights & Biases: one group per chain, one run per stage, with an id that a resume continues.

Offline by default: files stay in the artifact until `wandb sync` is run by hand.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignment.recipe.stage_request import StageRequest


def wandb_environment(request: StageRequest) -> dict[str, str]:
    """The settings that wandb reads from the environment, for one stage."""
    identity = re.sub(r"[^A-Za-z0-9_-]", "-", f"{request.recipe}-{request.name}-{request.fingerprint[:12]}")
    found = {
        "WANDB_MODE": request.tracking.wandb,
        "WANDB_PROJECT": request.tracking.project,
        "WANDB_RUN_GROUP": request.recipe,
        "WANDB_RUN_ID": identity,
        "WANDB_RESUME": "allow",
        "WANDB_NAME": f"{request.recipe}/{request.name}",
        "WANDB_DIR": str(request.out),
        "WANDB_SILENT": "true",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_LOG_MODEL": "false",
    }
    if request.tracking.entity:
        found["WANDB_ENTITY"] = request.tracking.entity
    Path(found["WANDB_DIR"]).mkdir(parents=True, exist_ok=True)
    return found


def log_figures(request: StageRequest, figures: list[dict[str, Any]]) -> None:
    """Log an evaluation's figures as one run's summary; does nothing where tracking is disabled."""
    if request.tracking.wandb == "disabled" or request.rank != 0:
        return
    import os

    os.environ.update(wandb_environment(request))
    import wandb

    with wandb.init(config={"stage": request.name}) as run:
        run.log({f"{figure['benchmark']}/{figure['metric']}": figure["value"] for figure in figures})
