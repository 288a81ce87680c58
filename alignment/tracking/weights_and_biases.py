"""Logs to Weights & Biases, with one group per chain and one run per stage. A resumed stage continues its run.

By default wandb is offline: its files stay in the artifact until the user uploads them with `align track upload`. An
offline run can't be continued: each time a stage starts, wandb writes to a new folder, and when two folders with the same
run id are uploaded by `wandb sync`, the second replaces the first (wandb/wandb#3841, #5865). If a stage starts again, its
metrics therefore go to a separate run of the same group, with a number at the end of id and name. `wandb_upload` joins
these runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.recipe.stage_request import StageRequest


def run_id(request: StageRequest) -> str:
    """Return the id of a stage's run in trackers. A resumed stage keeps the id, and a changed stage gets another one."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", f"{request.recipe}-{request.name}-{request.fingerprint[:12]}")


def wandb_environment(request: StageRequest) -> dict[str, str]:
    """Return the environment variables that configure wandb for one stage. Create the folder for wandb's files."""
    identifier, name = run_id(request), f"{request.recipe}/{request.name}"
    request.out.mkdir(parents=True, exist_ok=True)
    offline = request.tracking.wandb == "offline"
    if offline and (starts := len(list((request.out / "wandb").glob("offline-run-*")))):
        identifier, name = f"{identifier}-{starts + 1}", f"{name} ({starts + 1})"
    variables = {
        "WANDB_MODE": request.tracking.wandb,
        "WANDB_PROJECT": request.tracking.project,
        "WANDB_RUN_GROUP": request.recipe,
        "WANDB_RUN_ID": identifier,
        "WANDB_RESUME": "never" if offline else "allow",
        "WANDB_NAME": name,
        "WANDB_DIR": str(request.out),
        "WANDB_SILENT": "true",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_LOG_MODEL": "false",
    }
    if request.tracking.entity:
        variables["WANDB_ENTITY"] = request.tracking.entity
    return variables


def log_to_wandb(request: StageRequest, figures: Sequence[Mapping[str, Any]]) -> None:
    """Log the results of an evaluation to the wandb run of the evaluated stage. Do nothing if wandb is disabled.

    Args:
        request: the request of the stage. Only rank 0 calls this function.
        figures: rows with `benchmark`, `metric` and `value`.
    """
    if request.tracking.wandb == "disabled":
        return
    variables = wandb_environment(request)
    os.environ.update(variables)
    import wandb

    # wandb reads the environment once per process: a process that logged before has the values of then.
    with wandb.init(
        config={"stage": request.name},
        id=variables["WANDB_RUN_ID"],
        name=variables["WANDB_NAME"],
        group=request.recipe,
        project=request.tracking.project,
        entity=request.tracking.entity,
        dir=str(request.out),
        mode=request.tracking.wandb,
    ) as run:
        run.log({f"{figure['benchmark']}/{figure['metric']}": figure["value"] for figure in figures})
