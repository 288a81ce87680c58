"""Example of your own stage: count the parameters of a model, and fail if there are more than the recipe allows.

    stages:
      - name: count
        kind: custom
        run: examples/stage.py:count_parameters   # relative to the recipe
        model: sft                                # an earlier stage, or `base`
        settings: {most: 500_000_000}

The function runs in one separate process on one machine, after all earlier stages are done. Files that it writes to
`request.out` are kept in the stage's artifact. Later stages may read them, for example as `count/parameters.json`. The
returned mapping becomes `result` of `artifact.json`. After an edit of this file the stage runs again, as after a
changed setting.
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
