"""Open the Hugging Face folder of a Qwen2 or Llama model without torch, and check its tensors against its config.json.

Errors in the folder are found before an export writes anything: an adapter instead of a model, a truncated or missing
shard, tensors that do not fit the config, tied embeddings with different values.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignment.models.stored_config import ARCHITECTURES
from alignment.models.stored_tensors import FLOAT_DTYPES, StoredTensor, read_safetensors_header, to_float32

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)
"""Keys of config.json whose values must be positive integers."""


@dataclass(frozen=True)
class Qwen2Checkpoint:
    """A folder with a Qwen2 model, or a Llama model of the same shape, that passed the checks of `open_checkpoint`."""

    folder: Path
    config: dict[str, Any]
    """Content of config.json."""
    tensors: dict[str, StoredTensor]
    """Hugging Face name -> tensor, for exactly the tensors that the config requires."""
    tied: bool
    """Whether the output head shares the embedding's weights."""

    @property
    def architecture(self) -> str:
        """`model_type` of config.json, which is also the architecture in GGUF files."""
        return str(self.config["model_type"])

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return int(self.config["num_hidden_layers"])

    @property
    def weights(self) -> int:
        """Number of parameters."""
        return sum(tensor.weights for tensor in self.tensors.values())

    @property
    def vocabulary_rows(self) -> int:
        """Number of rows of the embedding, which may exceed the number of the tokenizer's tokens."""
        return int(self.config["vocab_size"])

    @property
    def rope(self) -> dict[str, Any]:
        """RoPE settings in the form of transformers 5 (`rope_type`, `rope_theta`, `factor`, ...).

        config.json may have them in the form of transformers 4 or 5.
        """
        rope = dict(self.config.get("rope_parameters") or self.config.get("rope_scaling") or {})
        rope.setdefault("rope_theta", self.config.get("rope_theta", 10000.0))
        rope["rope_type"] = rope.get("rope_type", rope.pop("type", None)) or "default"
        rope.pop("type", None)
        return rope

    def require_finite(self) -> None:
        """Read every weight once. Raise ValueError for the first tensor that holds NaN or infinity."""
        for tensor in self.tensors.values():
            for raw in tensor.chunks():
                check_finite(tensor, to_float32(raw, tensor.dtype))


def check_finite(tensor: StoredTensor, values: np.ndarray) -> None:
    """Raise ValueError if `values` contain NaN or infinity.

    `tensor` is the tensor from which they were read, for the message.
    """
    if not np.isfinite(values).all():
        raise ValueError(
            f"{tensor.file}: tensor {tensor.name} holds NaN or infinity: the training run diverged. Train again, for "
            "example with a lower learning rate"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object. Raise ValueError if the file holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Copy it again from the model's source.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a JSON object. Copy it again from the model's source.")
    return content


def open_checkpoint(folder: str | Path) -> Qwen2Checkpoint:
    """Open a folder with a Qwen2 or Llama model.

    Raises:
        ValueError: The folder, its config or its weights are wrong. The message names the file and says what to do.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no model folder {folder}")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ValueError(
                f"{folder} holds a LoRA adapter, not a model: merge it into its base model first, "
                "or export it with the target 'adapter'"
            )
        raise ValueError(f"{folder} has no config.json: it is not a Hugging Face model folder")
    config = read_json(folder / "config.json")
    if config.get("model_type") not in ARCHITECTURES:
        raise ValueError(
            f"{folder}/config.json has model_type {config.get('model_type')!r}: only {' and '.join(ARCHITECTURES)} models can "
            "be exported"
        )
    if config["model_type"] == "llama" and (config.get("attention_bias") or config.get("mlp_bias")):
        raise ValueError(
            f"{folder}/config.json has attention_bias or mlp_bias: Llama models with biases can't be exported"
        )
    if "quantization_config" in config:
        raise ValueError(f"{folder} is already quantized: export the full-precision model that it was made from")
    if config.get("use_sliding_window"):
        raise ValueError(
            f"{folder}/config.json uses sliding-window attention, which llama.cpp's qwen2 does not support"
        )
    _check_config(folder / "config.json", config)
    tied = bool(config.get("tie_word_embeddings", False))
    return Qwen2Checkpoint(folder, config, _check_tensors(folder, config, _stored_tensors(folder), tied), tied)


def _check_config(file: Path, config: dict[str, Any]) -> None:
    for key in SIZES:
        value = config.get(key)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{file}: {key} is {value!r}, not a positive integer. Copy the file again.")
    eps = config.get("rms_norm_eps")
    if not isinstance(eps, float) or eps <= 0:
        raise ValueError(f"{file}: rms_norm_eps is {eps!r}, not a positive number. Copy the file again.")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{file}: hidden_act is {config['hidden_act']!r}; llama.cpp's qwen2 supports silu only")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ValueError(f"{file}: the RoPE settings are {rope!r}, not a JSON object. Copy the file again.")
    kind = rope.get("rope_type", rope.get("type")) or "default"
    if kind != "default" and not isinstance(rope.get("factor"), (int, float)):
        raise ValueError(f"{file}: RoPE of type {kind!r} needs a number as `factor`, not {rope.get('factor')!r}")


def _stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return all tensors in the folder's weight files."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        if not names:
            raise ValueError(f"{index} names no shard. Copy it again from the model's source.")
    elif (folder / "model.safetensors").is_file():
        names = ["model.safetensors"]
    else:
        raise ValueError(
            f"{folder} has neither model.safetensors nor model.safetensors.index.json: "
            "save the model with save_pretrained(..., safe_serialization=True)"
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder} lacks the shards {', '.join(missing)}: copy them from the model's source")
    stored: dict[str, StoredTensor] = {}
    for name in names:
        stored.update(read_float_tensors(folder / name))
    return stored


def read_float_tensors(file: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file. Raise ValueError if a tensor is not of a float type."""
    tensors = read_safetensors_header(file)
    for tensor in tensors.values():
        if tensor.dtype not in FLOAT_DTYPES:
            raise ValueError(f"{file}: tensor {tensor.name} has type {tensor.dtype}; only floats can be exported")
    return tensors


def expected_shapes(config: dict[str, Any], tied: bool) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of a Qwen2 or Llama model that has this config.json."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    query, key = heads * head_dim, config.get("num_key_value_heads", heads) * head_dim
    rows = config["vocab_size"]
    layer = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (query, hidden),
        "self_attn.q_proj.bias": (query,),
        "self_attn.k_proj.weight": (key, hidden),
        "self_attn.k_proj.bias": (key,),
        "self_attn.v_proj.weight": (key, hidden),
        "self_attn.v_proj.bias": (key,),
        "self_attn.o_proj.weight": (hidden, query),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (ffn, hidden),
        "mlp.up_proj.weight": (ffn, hidden),
        "mlp.down_proj.weight": (hidden, ffn),
    }
    if config["model_type"] == "llama":
        layer = {name: shape for name, shape in layer.items() if not name.endswith(".bias")}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (rows, hidden)}
    for number in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not tied:
        shapes["lm_head.weight"] = (rows, hidden)
    return shapes


def _check_tensors(
    folder: Path, config: dict[str, Any], stored: dict[str, StoredTensor], tied: bool
) -> dict[str, StoredTensor]:
    """Return the tensors that the config requires, in the order of `expected_shapes`."""
    shapes = expected_shapes(config, tied)
    missing = [name for name in shapes if name not in stored]
    if missing:
        others = [name for name in stored if name not in shapes]
        hint = f" (instead it has {others[0]})" if others else ""
        if missing == ["lm_head.weight"]:
            hint = " (config.json does not tie it to the embedding)"
        raise ValueError(f"{folder} lacks {len(missing)} tensors, first {missing[0]}{hint}: save the model again")
    for name, shape in shapes.items():
        if stored[name].shape != shape:
            raise ValueError(
                f"{stored[name].file}: tensor {name} has shape {stored[name].shape}; config.json requires {shape}"
            )
    surplus = [name for name in stored if name not in shapes and not name.endswith("rotary_emb.inv_freq")]
    if tied and "lm_head.weight" in surplus:
        surplus.remove("lm_head.weight")
        if not np.array_equal(stored["lm_head.weight"].raw(), stored["model.embed_tokens.weight"].raw()):
            raise ValueError(
                f"{folder} stores an lm_head.weight that differs from the embedding, but config.json ties the two: "
                "set tie_word_embeddings to false if the head was trained, otherwise save the model again"
            )
    if surplus:
        kind = (
            "unmerged adapter tensors"
            if any("lora_" in name for name in surplus)
            else f"tensors no {config['model_type']} model has"
        )
        raise ValueError(f"{folder} holds {len(surplus)} {kind}, first {surplus[0]}: merge or remove them")
    return {name: stored[name] for name in shapes}
