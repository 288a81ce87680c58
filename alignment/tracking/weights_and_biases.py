"""Logs to Weights & Biases, with one group per chain and one run per stage. A resumed stage continues its run.

By default wandb is offline: its files stay in the artifact until the user runs `wandb sync`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.recipe.stage_request import StageRequest


def wandb_environment(request: StageRequest) -> dict[str, str]:
    """Return the environment variables that configure wandb for one stage. Create the folder for wandb's files."""
    run_id = re.sub(r"[^A-Za-z0-9_-]", "-", f"{request.recipe}-{request.name}-{request.fingerprint[:12]}")
    request.out.mkdir(parents=True, exist_ok=True)
    variables = {
        "WANDB_MODE": request.tracking.wandb,
        "WANDB_PROJECT": request.tracking.project,
        "WANDB_RUN_GROUP": request.recipe,
        "WANDB_RUN_ID": run_id,
        "WANDB_RESUME": "allow",
        "WANDB_NAME": f"{request.recipe}/{request.name}",
        "WANDB_DIR": str(request.out),
        "WANDB_SILENT": "true",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_LOG_MODEL": "false",
    }
    if request.tracking.entity:
        variables["WANDB_ENTITY"] = request.tracking.entity
    return variables


def log_figures(request: StageRequest, figures: Sequence[Mapping[str, Any]]) -> None:
    """Log the results of an evaluation to the wandb run of the evaluated stage. Do nothing if tracking is disabled.

    Args:
        request: the request of the stage. Only rank 0 logs.
        figures: rows with `benchmark`, `metric` and `value`.
    """
    if request.tracking.wandb == "disabled" or request.rank != 0:
        return
    os.environ.update(wandb_environment(request))
    import wandb

    with wandb.init(config={"stage": request.name}) as run:
        run.log({f"{figure['benchmark']}/{figure['metric']}": figure["value"] for figure in figures})
