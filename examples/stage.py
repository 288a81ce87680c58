"""A stage of your own: counts the parameters of a model, and fails if there are more than the recipe allows.

    stages:
      - name: count
        kind: custom
        run: examples/stage.py:count_parameters   # relative to the recipe
        model: sft                                # an earlier stage, or `base`
        settings: {most: 500_000_000}

The chain calls the function in a process of its own, on one machine and one process, when everything before it is done.
What it writes into `request.out` is kept in the stage's artifact, and later stages may read it as `count/parameters.json`.
What it returns becomes `result` of `artifact.json`. Editing this file makes the stage stale, like a changed setting.
"""

import json
import math
from pathlib import Path
from typing import Any

from safetensors import safe_open

from alignment.recipe.stage_request import StageRequest


def count_parameters(request: StageRequest) -> dict[str, Any]:
    """Count the parameters of each tensor in the model's safetensors files."""
    if request.model is None:
        raise ValueError("name the model to count with `model:`")
    counts: dict[str, int] = {}
    for file in sorted(Path(request.model.checkpoint).glob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a mapping
                counts[name] = math.prod(weights.get_slice(name).get_shape())
    total = sum(counts.values())
    (request.out / "parameters.json").write_text(json.dumps(counts, indent=2))
    most = request.stage.settings.get("most")
    if most is not None and total > most:
        raise ValueError(f"the model has {total:,} parameters, and the recipe allows {most:,}")
    return {"parameters": total, "tensors": len(counts)}
