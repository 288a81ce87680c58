"""Check whether a GRPO stage's vLLM settings can run on this machine, before a model is loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any


def check_vllm(train: Mapping[str, Any]) -> None:
    """Check the vLLM settings of a GRPO stage's `train:`.

    Raises:
        ValueError: `use_vllm` is set, but vLLM is not installed, or the setting turns off TRL's comparison of the
            log-probabilities of vLLM and the trainer.
    """
    if train.get("use_vllm") and importlib.util.find_spec("vllm") is None:
        raise ValueError(
            "`use_vllm` needs vLLM: pip install 'code-alignment[vllm]', or generate with transformers: "
            "--set stages.grpo.train.use_vllm=false"
        )
    if train.get("use_vllm") and train.get("vllm_importance_sampling_correction") is False:
        raise ValueError(
            "remove `vllm_importance_sampling_correction: false` from the stage's `train:`. The setting hides whether vLLM "
            "samples from the weights that are trained: without the correction TRL does not compare the log-probabilities "
            "of vLLM and the trainer"
        )
