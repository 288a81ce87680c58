"""Keeps `run.json` in a recipe's folder: the steps of the last run in order, and whether the run goes on.

Other programs (`align ui`) read the file to know which steps wait, without the recipe and its data.

    {"name": "shop", "seed": 1, "state": "running", "message": "", "steps": [{"name": "sft", "kind": "sft", ...}], ...}
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from alignment.chain.plan import Step
from alignment.files import write_json
from alignment.processes import StopRequested
from alignment.recipe import Recipe

RECORD = "run.json"
"""Name of the file."""


@contextmanager
def recorded_run(recipe: Recipe, steps: Sequence[Step], *, until: str | None, write: bool = True) -> Iterator[None]:
    """Write `run.json` when the body starts and when it ends.

    `state` is `running`, and afterwards `done`, `stopped` (by a signal or Ctrl-C) or `failed`. After `kill -9` it remains
    `running`, with the number of a process that no longer exists.

    Args:
        recipe: the recipe.
        steps: all steps of the recipe.
        until: name of the last step that this run is asked for.
        write: whether to write the file. Ranks other than 0 do not.
    """
    record: dict[str, Any] = {
        "name": recipe.name,
        "seed": recipe.seed,
        "base": next((step.base_model.path for step in steps if step.base_model is not None), None),
        "steps": [_summary(step) for step in steps],
        "until": until,
        "process": os.getpid(),
        "host": platform.node(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }

    def save(state: str, message: str = "") -> None:
        if write:
            with contextlib.suppress(OSError):  # a full disk is reported by the step that needs the space
                write_json(recipe.folder / RECORD, {**record, "state": state, "message": message})

    save("running")
    try:
        yield
    except (StopRequested, KeyboardInterrupt):
        save("stopped")
        raise
    except Exception as error:
        save("failed", str(error))
        raise
    save("done")


def _summary(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "kind": step.kind,
        "folder": step.folder.name,
        "model": step.model,
        "rung": step.rung,
        "inputs": list(step.inputs),
        "settings": step.request.stage.model_dump(mode="json"),
    }
