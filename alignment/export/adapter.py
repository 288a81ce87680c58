"""Write LoRA adapters as GGUF adapters for llama.cpp's `--lora`, without torch and without merging."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from alignment.export.checkpoint import Qwen2Checkpoint, check_finite, expected_shapes, read_float_tensors, read_json
from alignment.export.gguf_file import gguf_name
from alignment.models.stored_tensors import StoredTensor, to_float32

UNSUPPORTED = (
    "use_dora", "modules_to_save", "trainable_token_indices", "lora_bias", "target_parameters", "alora_invocation_tokens",
    "layer_replication", "kasa_config", "velora_config", "monteclora_config", "arrow_config", "use_bdlora", "use_qalora",
)  # fmt: skip
"""PEFT settings that a GGUF adapter can't represent, since llama.cpp supports plain LoRA only."""
CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")
"""Beginnings of values of `init_lora_weights` with which PEFT changes the base weights when the adapter is made."""


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read adapter_config.json of a PEFT adapter. Raise ValueError if the folder does not have that file."""
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder} has no adapter_config.json: it is not a PEFT adapter")
    return read_json(folder / "adapter_config.json")


def write_adapter(adapter: str | Path, base: Qwen2Checkpoint, out: Path) -> Path:
    """Write a PEFT adapter as one GGUF file in float32.

    Args:
        adapter: Folder of the adapter.
        base: The model that the adapter was trained on.
        out: The file to write.

    Raises:
        ValueError: The folder is not a plain LoRA adapter of this base model.
    """
    folder = Path(adapter)
    config = read_adapter_config(folder)
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{folder} is a {config.get('peft_type')} adapter; only LoRA can be exported")
    unsupported = [key for key in UNSUPPORTED if config.get(key)]
    if config.get("bias", "none") != "none":
        unsupported.append("bias")
    if unsupported:
        raise ValueError(
            f"{folder} uses {', '.join(unsupported)}, which GGUF adapters do not support: merge the adapter into its base "
            "model and export the merged model"
        )
    start = str(config.get("init_lora_weights"))
    if start.startswith(CHANGES_BASE):
        raise ValueError(
            f"{folder} was made with init_lora_weights: {start}, which changes the base weights: save it as an adapter of the "
            "unchanged base (`path_initial_model_for_weight_conversion` of PEFT's save_pretrained). Adapters that a stage of a "
            "recipe trained are saved in that form."
        )
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ValueError(f"{folder} has no adapter_model.safetensors")
    _write(out, _lora_matrices(file, read_float_tensors(file), base, config), _effective_alpha(config))
    return out


def _effective_alpha(config: dict[str, Any], module: str = "") -> float:
    """Return the alpha for which llama.cpp's scale, alpha / rank, equals PEFT's scale.

    Rank-stabilized LoRA scales by alpha / sqrt(rank). Its alpha is therefore multiplied by sqrt(rank).

    Args:
        config: the adapter's config.
        module: full name of a module for which `alpha_pattern` and `rank_pattern` may give other values; by default none.
    """
    alpha = float(_of_module(config.get("alpha_pattern"), module, config["lora_alpha"]))
    rank = float(_of_module(config.get("rank_pattern"), module, config["r"]))
    return alpha * rank**0.5 if config.get("use_rslora") else alpha


def _of_module(patterns: dict[str, Any] | None, module: str, default: Any) -> Any:
    """Return the value of the first pattern that fits a module's name, as PEFT chooses it, or the default."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _lora_matrices(
    file: Path, stored: dict[str, StoredTensor], base: Qwen2Checkpoint, config: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Return a mapping: GGUF name (`blk.0.attn_q.weight.lora_a`) -> A or B matrix in float32.

    A GGUF adapter has one alpha. B matrices of modules with another alpha are scaled instead.

    Raises:
        ValueError: A tensor is not a LoRA matrix of the base model, or an A or B matrix is missing.
    """
    shapes = expected_shapes(base.config, base.tied)
    matrices: dict[str, np.ndarray] = {}
    for name, tensor in sorted(stored.items()):
        module, _, kind = name.removeprefix("base_model.model.").rpartition(".lora_")
        target = f"{module}.weight"
        if kind not in ("A.weight", "B.weight") or shapes.get(target) is None or "embed_tokens" in target:
            raise ValueError(f"{file}: tensor {name} is not a LoRA matrix of a linear layer of the base model")
        side = 1 if kind[0] == "A" else 0
        if tensor.shape[side] != shapes[target][side]:
            raise ValueError(
                f"{file}: tensor {name} has shape {tensor.shape}: the adapter belongs to another base model"
            )
        values = to_float32(tensor.raw(), tensor.dtype)
        check_finite(tensor, values)
        if kind[0] == "B":
            values = values * np.float32(_effective_alpha(config, module) / _effective_alpha(config))
        matrices[f"{gguf_name(target)}.lora_{kind[0].lower()}"] = values
    single = [name for name in matrices if f"{name[:-1]}{'b' if name[-1] == 'a' else 'a'}" not in matrices]
    if single or not matrices:
        raise ValueError(
            f"{file} has {f'only one matrix of the pair of {single[0]}' if single else 'no LoRA matrix'}: save the adapter "
            "again"
        )
    return matrices


def _write(out: Path, matrices: dict[str, np.ndarray], alpha: float) -> None:
    from gguf import GGUFType, GGUFWriter

    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=out.parent))
    try:
        writer = GGUFWriter(scratch / out.name, "qwen2")
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        for name, values in matrices.items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        (scratch / out.name).replace(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
