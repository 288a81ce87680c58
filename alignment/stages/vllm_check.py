"""Whether a GRPO stage's vLLM settings can run here, checked before a model is loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any


def check_vllm(train: Mapping[str, Any]) -> None:
    """Check a GRPO stage's `train:`.

    Raises:
        ValueError: `use_vllm` is set and vLLM is not installed, or TRL's comparison of log-probabilities is off.
    """
    if train.get("use_vllm") and importlib.util.find_spec("vllm") is None:
        raise ValueError(
            "`use_vllm` needs vLLM: pip install 'code-alignment[vllm]', or generate with transformers: "
            "--set stages.grpo.train.use_vllm=false"
        )
    if train.get("use_vllm") and train.get("vllm_importance_sampling_correction") is False:
        raise ValueError(
            "`vllm_importance_sampling_correction: false` hides whether vLLM samples from the weights that are trained: TRL "
            "compares their log-probabilities only with it. Leave it out"
        )
