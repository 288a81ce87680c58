"""Reading a Hugging Face folder of a Qwen2 model without torch: memory-mapped, tensor by tensor, and checked.

Everything that a user can get wrong is found before a byte is written: an adapter in place of a model, a truncated
or missing shard, tensors that the config does not ask for, tied embeddings that differ.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<f8"),
}
CHUNK_WEIGHTS = 1 << 22


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a safetensors file."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    def raw(self) -> np.ndarray:
        """The stored numbers as rows and columns, memory-mapped; bfloat16 as unsigned 16-bit integers."""
        shape = self.shape if len(self.shape) > 1 else (1, *self.shape)
        return np.memmap(str(self.file), _DTYPES[self.dtype], "r", self.offset, shape)

    def chunks(self, weights: int = CHUNK_WEIGHTS) -> Iterator[np.ndarray]:
        """Runs of whole rows of `raw()`, of about `weights` numbers each."""
        array = self.raw()
        step = max(1, weights // array.shape[1])
        for start in range(0, array.shape[0], step):
            yield array[start : start + step]


def to_float32(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Stored numbers as float32; exact for F32, F16 and BF16."""
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(raw, dtype=np.float32)


def check_finite(tensor: StoredTensor, values: np.ndarray) -> None:
    """ValueError where `values`, some of the tensor's, hold NaN or infinity."""
    if not np.isfinite(values).all():
        raise ValueError(f"{tensor.file}: tensor {tensor.name} holds NaN or infinity; the training run broke")


@dataclass(frozen=True)
class Checkpoint:
    """A checked model folder. `tensors` is keyed by Hugging Face name and has what the config asks for, no more."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]
    tied: bool

    @property
    def layers(self) -> int:
        return int(self.config["num_hidden_layers"])

    @property
    def weights(self) -> int:
        return sum(tensor.weights for tensor in self.tensors.values())

    def require_finite(self) -> None:
        """ValueError names the first tensor that holds NaN or infinity. Reads every weight once."""
        for tensor in self.tensors.values():
            for raw in tensor.chunks():
                check_finite(tensor, to_float32(raw, tensor.dtype))

    @property
    def vocabulary_rows(self) -> int:
        return int(self.config["vocab_size"])

    @property
    def rope(self) -> dict[str, Any]:
        """RoPE settings in one form, whichever of the two forms config.json uses: rope_type, rope_theta, factor..."""
        found = dict(self.config.get("rope_parameters") or self.config.get("rope_scaling") or {})
        found.setdefault("rope_theta", self.config.get("rope_theta", 10000.0))
        found["rope_type"] = found.get("rope_type", found.pop("type", None)) or "default"
        found.pop("type", None)
        return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file as a dict; ValueError names the file where it can't be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON ({error}); copy it anew from the model's source") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object; copy it anew from the model's source")
    return found


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Open a Qwen2 model folder and check it against its config.

    Raises ValueError that says what is wrong, where, and what to do.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no model folder {folder}")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ValueError(
                f"{folder} holds a LoRA adapter, not a model: merge it into its base model first, "
                "or export it as an adapter with the target 'adapter'"
            )
        raise ValueError(f"{folder} has no config.json: it is no Hugging Face model folder")
    config = read_json(folder / "config.json")
    if config.get("model_type") != "qwen2":
        raise ValueError(
            f"{folder}/config.json says model_type {config.get('model_type')!r}: only qwen2 models are exported"
        )
    if "quantization_config" in config:
        raise ValueError(f"{folder} is quantized already: export from the full-precision model it was made from")
    if config.get("use_sliding_window"):
        raise ValueError(f"{folder}/config.json uses sliding-window attention, which llama.cpp's qwen2 has not")
    _check_config(folder / "config.json", config)
    stored = _stored_tensors(folder)
    tied = bool(config.get("tie_word_embeddings", False))
    return Checkpoint(folder, config, _check_tensors(folder, config, stored, tied), tied)


_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)


def _check_config(file: Path, config: dict[str, Any]) -> None:
    for key in _SIZES:
        value = config.get(key)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{file}: {key} is {value!r}, not a positive whole number; copy it anew")
    eps = config.get("rms_norm_eps")
    if not isinstance(eps, float) or eps <= 0:
        raise ValueError(f"{file}: rms_norm_eps is {eps!r}, not a positive number; copy it anew")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{file}: hidden_act is {config['hidden_act']!r}; qwen2 models of llama.cpp have silu only")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ValueError(f"{file}: the RoPE settings are {rope!r}, not a JSON object; copy it anew")
    kind = rope.get("rope_type", rope.get("type")) or "default"
    if kind != "default" and not isinstance(rope.get("factor"), (int, float)):
        raise ValueError(f"{file}: RoPE of type {kind!r} needs a factor, not {rope.get('factor')!r}")


def _stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        if not names:
            raise ValueError(f"{index} names no shard; copy it anew from the model's source")
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
        stored.update(read_safetensors_header(folder / name))
    return stored


def read_safetensors_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file, after checking that the file is as long as its header says."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if prefix == b"version ":
            raise ValueError(f"{file} is a pointer of Git LFS, not the weights: run `git lfs pull` where it came from")
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size:
            raise ValueError(f"{file} is truncated: its header does not fit into its {size} bytes; copy it anew")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise ValueError(f"{file} is damaged: its header is no JSON; copy it anew") from error
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end != size:
        state = "truncated" if size < end else "longer than its header says"
        raise ValueError(f"{file} is {state}: {size} bytes where {end} are expected; copy it anew")
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{file}: tensor {name} has type {entry['dtype']}; only floats can be exported")
        start, stop = entry["data_offsets"]
        if stop - start != math.prod(entry["shape"]) * _DTYPES[entry["dtype"]].itemsize:
            raise ValueError(f"{file} is damaged: tensor {name} has not the bytes that its shape takes; copy it anew")
        tensors[name] = StoredTensor(
            name, file, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
        )
    return tensors


def expected_shapes(config: dict[str, Any], tied: bool) -> dict[str, tuple[int, ...]]:
    """Every tensor of a Qwen2 model by Hugging Face name, with its shape."""
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
    shapes = expected_shapes(config, tied)
    missing = [name for name in shapes if name not in stored]
    if missing:
        others = [name for name in stored if name not in shapes]
        hint = f" (there is {others[0]} instead)" if others else ""
        if missing == ["lm_head.weight"]:
            hint = " (config.json does not tie it to the embedding)"
        raise ValueError(f"{folder} lacks {len(missing)} tensors, the first is {missing[0]}{hint}: save the model anew")
    for name, shape in shapes.items():
        if stored[name].shape != shape:
            raise ValueError(
                f"{stored[name].file}: tensor {name} has shape {stored[name].shape}, config.json asks for {shape}"
            )
    surplus = [name for name in stored if name not in shapes and not name.endswith("rotary_emb.inv_freq")]
    if tied and "lm_head.weight" in surplus:
        surplus.remove("lm_head.weight")
        if not np.array_equal(stored["lm_head.weight"].raw(), stored["model.embed_tokens.weight"].raw()):
            raise ValueError(
                f"{folder} stores an lm_head.weight that differs from the embedding, while config.json ties the two: "
                "set tie_word_embeddings to false if the head was trained, else save the model anew"
            )
    if surplus:
        kind = "unmerged adapters" if any("lora_" in name for name in surplus) else "tensors no Qwen2 model has"
        raise ValueError(f"{folder} holds {len(surplus)} {kind}, the first is {surplus[0]}: merge or remove them")
    return {name: stored[name] for name in shapes}
