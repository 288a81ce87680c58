"""LoRA adapters as GGUF adapters, for llama.cpp's `--lora`, without torch and without merging."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from alignment.export.checkpoint import (
    Checkpoint,
    StoredTensor,
    check_finite,
    expected_shapes,
    read_json,
    read_safetensors_header,
    to_float32,
)
from alignment.export.gguf_file import gguf_name

# Settings that change what the two matrices mean; llama.cpp knows plain LoRA only.
_UNSUPPORTED = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "trainable_token_indices")


def write_adapter(adapter: str | Path, base: Checkpoint, out: Path) -> Path:
    """Write the PEFT adapter folder `adapter`, trained on `base`, as one GGUF file in float32.

    Raises ValueError for what is no plain LoRA adapter of this base model.
    """
    folder = Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder} has no adapter_config.json: it is no PEFT adapter")
    config = read_json(folder / "adapter_config.json")
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{folder} is a {config.get('peft_type')} adapter; only LoRA can be exported")
    used = [key for key in _UNSUPPORTED if config.get(key)]
    if used:
        raise ValueError(f"{folder} uses {', '.join(used)}, which GGUF adapters lack: merge it into its base model")
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ValueError(f"{folder} has no adapter_model.safetensors")
    pairs = _pairs(file, read_safetensors_header(file), base)
    _write(out, pairs, _effective_alpha(config))
    return out


def _effective_alpha(config: dict[str, Any]) -> float:
    """llama.cpp scales by alpha / rank; rank-stabilized LoRA by alpha / sqrt(rank), so alpha grows by sqrt(rank)."""
    alpha = float(config["lora_alpha"])
    return alpha * float(config["r"]) ** 0.5 if config.get("use_rslora") else alpha


def _pairs(file: Path, stored: dict[str, StoredTensor], base: Checkpoint) -> dict[str, np.ndarray]:
    shapes = expected_shapes(base.config, base.tied)
    pairs: dict[str, np.ndarray] = {}
    for name, tensor in sorted(stored.items()):
        module, _, kind = name.removeprefix("base_model.model.").rpartition(".lora_")
        target = f"{module}.weight"
        if kind not in ("A.weight", "B.weight") or shapes.get(target) is None or "embed_tokens" in target:
            raise ValueError(f"{file}: tensor {name} is no LoRA matrix of a linear layer of the base model")
        side = 1 if kind[0] == "A" else 0
        if tensor.shape[side] != shapes[target][side]:
            raise ValueError(f"{file}: tensor {name} has shape {tensor.shape}: the adapter is of another base model")
        values = to_float32(tensor.raw(), tensor.dtype)
        check_finite(tensor, values)
        pairs[f"{gguf_name(target)}.lora_{kind[0].lower()}"] = values
    alone = [name for name in pairs if f"{name[:-1]}{'b' if name[-1] == 'a' else 'a'}" not in pairs]
    if alone or not pairs:
        raise ValueError(f"{file} lacks the other half of {alone[0] if alone else 'every LoRA matrix'}")
    return pairs


def _write(out: Path, pairs: dict[str, np.ndarray], alpha: float) -> None:
    from gguf import GGUFType, GGUFWriter

    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=out.parent))
    try:
        writer = GGUFWriter(scratch / out.name, "qwen2")
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        for name, values in pairs.items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        (scratch / out.name).replace(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
