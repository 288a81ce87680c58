"""Selection of the engine: vLLM if it is installed and there is a GPU, else transformers."""

from __future__ import annotations

import importlib.util
from typing import Literal

from alignment.evaluation.engines.protocol import Engine
from alignment.evaluation.engines.transformers_engine import TransformersEngine

EngineName = Literal["auto", "transformers", "vllm"]


def open_engine(model_path: str, name: EngineName = "auto", batch_size: int | None = None) -> Engine:
    """Load a checkpoint into an engine.

    Args:
        model_path: a checkpoint folder, or a name on the hub.
        name: which engine; `auto` is vLLM if it is installed and there is a GPU, else transformers.
        batch_size: sequences at the same time; by default as many as fit.

    Raises:
        ValueError: `vllm` is asked for and not installed.
    """
    installed = importlib.util.find_spec("vllm") is not None
    if name == "vllm" and not installed:
        raise ValueError("vLLM is not installed: pip install 'code-alignment[vllm]', or use engine: transformers")
    if name == "vllm" or (name == "auto" and installed and _has_gpu()):
        from alignment.evaluation.engines.vllm_engine import VllmEngine

        return VllmEngine(model_path, batch_size=batch_size)
    return TransformersEngine(model_path, batch_size=batch_size)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
