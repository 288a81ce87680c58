"""Choose the engine: llama.cpp for GGUF files, vLLM if it is installed and there is a GPU, else transformers.

On a CPU, `CpuEngine` decodes Qwen2 models in bfloat16. It does the same computation as transformers, with packed
weights.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from alignment.evaluation.engines.protocol import Engine
from alignment.evaluation.engines.transformers_engine import TransformersEngine
from alignment.logs import get_logger
from alignment.models.source import DType, EngineName
from alignment.models.stored_config import is_gguf

logger = get_logger(__name__)


def open_engine(
    model_path: str, name: EngineName = "auto", batch_size: int | None = None, dtype: DType = "auto"
) -> Engine:
    """Load a checkpoint into an engine.

    Args:
        model_path: a checkpoint folder, a name on the hub, or a GGUF file.
        name: which engine; `auto` is llamacpp for a GGUF file, vLLM if it is installed and there is a GPU, else
            transformers.
        batch_size: number of sequences at the same time; by default as many as fit into memory.
        dtype: number format of the weights; `auto` is bfloat16 on accelerators and on CPUs that multiply it in
            hardware, else float32.

    Raises:
        ValueError: the engine is not installed, or does not read this kind of checkpoint.
    """
    if is_gguf(model_path):
        if name not in ("auto", "llamacpp"):
            raise ValueError(
                f"{model_path}: the engine {name} does not read GGUF files. Use engine: llamacpp, or convert the file with "
                "`align import FILE FOLDER`"
            )
        from alignment.evaluation.engines.llamacpp_engine import LlamaCppEngine

        return LlamaCppEngine(model_path, batch_size=batch_size)
    if name == "llamacpp":
        raise ValueError(f"{model_path}: the engine llamacpp reads GGUF files only; `align export` writes them")
    installed = importlib.util.find_spec("vllm") is not None
    if name == "vllm" and not installed:
        raise ValueError("vLLM is not installed: pip install 'code-alignment[vllm]', or use engine: transformers")
    if name == "vllm" or (name == "auto" and installed and _has_gpu()):
        from alignment.evaluation.engines.vllm_engine import VllmEngine

        return VllmEngine(model_path, batch_size=batch_size)
    return _transformers_engine(model_path, batch_size, dtype)


def open_server(
    address: str, tokenizer_source: str | Path, *, served_model: str | None = None, batch_size: int | None = None
) -> Engine:
    """Connect to an OpenAI-compatible server (vLLM, llama.cpp, or another).

    The environment variable ALIGN_SERVER_TOKEN may hold a token for the server.

    Args:
        address: address without path, for example `http://127.0.0.1:8000`.
        tokenizer_source: folder or hub name of the served model's tokenizer.
        served_model: name of the model at the server. Can be omitted if the server serves one model only.
        batch_size: number of simultaneous requests.

    Raises:
        ValueError: the server does not answer, or does not serve the model.
    """
    from transformers import AutoTokenizer

    from alignment.evaluation.engines.decoding import end_token_ids
    from alignment.evaluation.engines.http_engine import HttpEngine

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_source)
    return HttpEngine(
        address,
        tokenizer,
        model=served_model,
        token=os.environ.get("ALIGN_SERVER_TOKEN"),
        stop_ids=end_token_ids(tokenizer, None),
        max_length=int(tokenizer.model_max_length),
        batch_size=batch_size,
    )


def _transformers_engine(model_path: str, batch_size: int | None, dtype: DType) -> Engine:
    engine = TransformersEngine(model_path, batch_size=batch_size, dtype=dtype)
    logger.info("%s computes in %s", model_path, engine.precision)
    if engine.device.type != "cpu" or engine.precision.dtype != "bfloat16":
        return engine
    from alignment.evaluation.engines.cpu_decoder import unsupported_reason

    if reason := unsupported_reason(engine.model):
        logger.info("decoded by transformers, not by the faster CPU decoder: %s", reason)
        return engine
    from alignment.evaluation.engines.cpu_engine import CpuEngine

    return CpuEngine(
        engine.model,
        engine.tokenizer,
        stop_ids=engine.stop_ids,
        max_length=engine.max_length,
        batch_size=batch_size,
    )


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
