"""Convert GGUF files into model folders, with dequantized weights and the tokenizer of the GGUF file.

    import_gguf(Path("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"), Path("models/0.5b-instruct"))

The import reads every tensor type that llama.cpp's quantizer writes, with the dequantization of the `gguf` package. It
writes a Qwen2 or Llama model in safetensors. The rounding of quantization can't be undone. `quantization.json` in the folder
says how large the rounding errors are, for each tensor type.

Transformers 5.23 can read GGUF files too, with the same token ids. It is not used here because it counts the padding
rows of the vocabulary as tokens, keeps two copies of a tied embedding, and holds the whole model in memory in float32.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignment.files import write_json
from alignment.models.gguf_tokenizer import field_value, write_tokenizer
from alignment.models.rope_layout import rotated_heads, split_halves
from alignment.models.stored_config import ARCHITECTURES
from alignment.progress import track

QUANTIZATION_FILE = "quantization.json"
SHARD_BYTES = 4 * 2**30
# Cosine of the angle between embedding and output layer above which the two count as tied. Two quantizations of the
# same matrix have a cosine above 0.98 down to 3 bits. The two matrices of an untied Qwen2.5-Coder (7B and larger) are
# below 0.3.
_TIED_COSINE = 0.9
_TOP_LEVEL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_PER_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

StoredType = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class TypeRounding:
    """Number of tensors and weights of one tensor type, and the estimated rounding error of these weights."""

    tensors: int
    weights: int
    bits_per_weight: float
    relative_rounding: float
    """Estimated rounding error: root mean square of the error, as a share of the root mean square of the weights."""


@dataclass(frozen=True)
class GgufImport:
    """Summary of an import, which is written to `quantization.json` beside the weights."""

    file: str
    bytes: int
    architecture: str
    parameters: int
    tied_embedding: bool
    types: Mapping[str, TypeRounding]

    def sentence(self) -> str:
        """Return the summary as one sentence, for logs and model cards."""
        parts = [
            f"{name} ({rounding.tensors} tensors, {rounding.bits_per_weight:.1f} bits, "
            f"about {rounding.relative_rounding:.1%} rounding)"
            for name, rounding in self.types.items()
            if rounding.relative_rounding
        ]
        return (
            f"The base weights were dequantized from {self.file}: {', '.join(parts)}."
            if parts
            else f"The base weights come from {self.file}, which is not quantized."
        )


def import_gguf(file: Path, folder: Path, dtype: StoredType = "bfloat16") -> GgufImport:
    """Convert a GGUF file into a Hugging Face model folder.

    Args:
        file: The GGUF file. A model that is split into several files is not supported.
        folder: The folder to write. It appears only when all files are complete.
        dtype: The type of the weights in the folder.

    Raises:
        ValueError: The file is not a GGUF file, is cut off, has another architecture or tokenizer, or lacks tensors.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists: remove it, or name another folder")
    reader, config, tensors = _described(file)
    _check_complete(file, tensors, config)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    types = _write_weights(tensors, partial, dtype, file.name, config)
    config.dtype = dtype
    config.save_pretrained(partial)
    write_tokenizer(file, reader, partial)
    summary = GgufImport(
        file=file.name,
        bytes=file.stat().st_size,
        architecture=config.model_type,
        parameters=sum(int(np.prod(tensor.shape)) for tensor in tensors.values()),
        tied_embedding=config.tie_word_embeddings,
        types=types,
    )
    write_json(partial / QUANTIZATION_FILE, asdict(summary))
    partial.replace(folder)
    return summary


def write_config_and_tokenizer(file: Path, folder: Path) -> None:
    """Write config, tokenizer and generation config of a GGUF file to a new folder, without weights.

    Raises:
        ValueError: The file is not a GGUF file, is cut off, or has another architecture or tokenizer.
    """
    reader, config, _ = _described(file)
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    write_tokenizer(file, reader, folder)


def _described(file: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Open a GGUF file.

    Returns:
        The GGUFReader of the file, the config that the metadata describes, and the tensors keyed by their Hugging Face
        names.
    """
    reader = _open(file)
    config = _config(file, reader)
    config.architectures = [ARCHITECTURES[config.model_type]]
    tensors = {_tensor_name(file, tensor.name): tensor for tensor in reader.tensors}
    config.tie_word_embeddings, stored_twice = _tied_embedding(tensors)
    if stored_twice:
        tensors["model.embed_tokens.weight"] = tensors.pop("lm_head.weight")
    return reader, config, tensors


def read_import(folder: Path) -> GgufImport | None:
    """Read the summary from a model folder that `import_gguf` wrote. Return None for any other folder."""
    try:
        values = json.loads((folder / QUANTIZATION_FILE).read_text(encoding="utf-8"))
        types = {name: TypeRounding(**rounding) for name, rounding in values.pop("types").items()}
        return GgufImport(types=types, **values)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open(file: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ValueError("GGUF files need the package gguf: pip install 'code-alignment[gguf]'") from None
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError, OverflowError, OSError) as error:
        raise ValueError(f"{file} is not a GGUF file, or is cut off: {error}. Download it again") from None


def _config(file: Path, reader: Any) -> Any:
    """Build the Qwen2Config or LlamaConfig that the metadata describes."""
    from transformers import LlamaConfig, Qwen2Config

    architecture = field_value(reader, "general.architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"{file}: architecture {architecture!r} is not supported: use a file of {' or '.join(ARCHITECTURES)} "
            "(Qwen2.5-Coder, SmolLM2)"
        )

    def value(key: str, default: Any = None) -> Any:
        number = field_value(reader, f"{architecture}.{key}", default)
        if number is None:
            raise ValueError(f"{file}: metadata has no {architecture}.{key}")
        return number

    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(value("rope.freq_base", 10_000.0))}
    if field_value(reader, f"{architecture}.rope.scaling.type") == "yarn":
        original = int(value("rope.scaling.original_context_length"))
        rope |= {"rope_type": "yarn", "factor": float(value("rope.scaling.factor"))}
        rope["original_max_position_embeddings"] = original
    rows = next((tensor.shape[1] for tensor in reader.tensors if tensor.name == "token_embd.weight"), None)
    if rows is None:
        raise ValueError(f"{file}: has no tensor token_embd.weight")
    config_class: Any = Qwen2Config if architecture == "qwen2" else LlamaConfig
    return config_class(
        hidden_size=int(value("embedding_length")),
        intermediate_size=int(value("feed_forward_length")),
        num_hidden_layers=int(value("block_count")),
        num_attention_heads=int(value("attention.head_count")),
        num_key_value_heads=int(value("attention.head_count_kv")),
        max_position_embeddings=int(value("context_length")),
        # Stored in float32: 9.99999997e-07 is the 1e-06 of the released config.
        rms_norm_eps=float(f"{value('attention.layer_norm_rms_epsilon'):.6g}"),
        rope_parameters=rope,
        vocab_size=int(rows),
        bos_token_id=field_value(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_id=field_value(reader, "tokenizer.ggml.eos_token_id"),
        pad_token_id=None,
    )


def _tensor_name(file: Path, name: str) -> str:
    """Translate the name of a GGUF tensor to the Hugging Face name."""
    if name in _TOP_LEVEL:
        return _TOP_LEVEL[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _PER_LAYER:
        return f"model.layers.{parts[1]}.{_PER_LAYER[parts[2]]}.{parts[3]}"
    raise ValueError(f"{file}: a Qwen2 or Llama model has no tensor {name}")


def _tied_embedding(tensors: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether the output layer is tied to the embedding, and whether the file stores the tied matrix twice.

    For some levels, llama.cpp stores the matrix of a tied model twice: as embedding, and with more bits as output
    layer. The copy with more bits becomes the tied matrix.
    """
    output, embedding = tensors.get("lm_head.weight"), tensors.get("model.embed_tokens.weight")
    if output is None or embedding is None:
        return True, False
    rows = slice(0, min(4096, output.data.shape[0]))
    first, second = (dequantized(tensor, rows).ravel().astype(np.float64) for tensor in (output, embedding))
    norms = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    cosine = float(first @ second) / max(norms, 1e-30)
    if cosine < _TIED_COSINE:
        return False, False
    return True, True


def _check_complete(file: Path, tensors: Mapping[str, Any], config: Any) -> None:
    """Raise ValueError unless names and shapes of the tensors are exactly those of the config."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if missing := sorted(set(wanted) - set(tensors)):
        raise ValueError(f"{file}: {len(missing)} tensors are missing, the first is {missing[0]}")
    for name, tensor in tensors.items():
        shape = tuple(int(size) for size in reversed(tensor.shape))
        if name not in wanted:
            raise ValueError(f"{file}: tensor {name} has no place in the model that the metadata describes")
        if shape != wanted[name]:
            raise ValueError(f"{file}: tensor {name} has shape {shape}, the metadata asks for {wanted[name]}")


def dequantized(tensor: Any, rows: slice = slice(None)) -> np.ndarray:
    """Dequantize a tensor of a GGUF file to float32 [rows, columns]. `rows` selects some of the rows."""
    from gguf import dequantize

    data = tensor.data[rows] if tensor.data.ndim > 1 else tensor.data
    return np.asarray(dequantize(data, tensor.tensor_type), dtype=np.float32)


def _write_weights(
    tensors: Mapping[str, Any], folder: Path, dtype: StoredType, source: str, config: Any
) -> dict[str, TypeRounding]:
    """Write the tensors of the file `source` in shards of at most 4 GiB. Return the rounding of each tensor type."""
    import torch
    from safetensors.torch import save_file

    stored = getattr(torch, dtype)
    roundings: dict[str, list[tuple[int, float, float, float]]] = {}
    shards: list[dict[str, Any]] = [{}]
    size = 0
    names: dict[str, int] = {}
    for name, tensor in track(list(tensors.items()), f"importing {source}", "tensors"):
        values = dequantized(tensor)
        error, power = _rounding(values, tensor)
        entry = (values.size, float(tensor.n_bytes), error, power)
        roundings.setdefault(tensor.tensor_type.name.lower(), []).append(entry)
        heads = rotated_heads(name, config.num_attention_heads, config.num_key_value_heads)
        if heads and config.model_type == "llama":
            values = values[split_halves(values.shape[0], heads)]
        weight = torch.from_numpy(values.copy() if not values.flags.writeable else values).to(stored)
        if size and size + weight.nbytes > SHARD_BYTES:
            save_file(shards[-1], folder / _shard_name(len(shards)), metadata={"format": "pt"})
            shards[-1] = dict.fromkeys(shards[-1])  # keep the names, release the weights
            shards.append({})
            size = 0
        shards[-1][name] = weight
        names[name] = len(shards)
        size += weight.nbytes
    save_file(shards[-1], folder / _shard_name(len(shards)), metadata={"format": "pt"})
    _finish_shards(folder, names, len(shards))
    return {name: _summary(entries) for name, entries in sorted(roundings.items())}


def _shard_name(number: int) -> str:
    return f"shard-{number}.safetensors"


def _finish_shards(folder: Path, names: Mapping[str, int], count: int) -> None:
    """Rename the shards as transformers expects, and write the index file."""
    if count == 1:
        (folder / _shard_name(1)).rename(folder / "model.safetensors")
        return
    for number in range(1, count + 1):
        (folder / _shard_name(number)).rename(folder / f"model-{number:05}-of-{count:05}.safetensors")
    weight_map = {name: f"model-{number:05}-of-{count:05}.safetensors" for name, number in names.items()}
    total = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _rounding(values: np.ndarray, tensor: Any) -> tuple[float, float]:
    """Estimate the sum of squared rounding errors of a tensor. Also return the sum of its squared weights.

    The weights in a block of a quantized tensor are multiples of a step. The step is estimated by the smallest distance
    between two different weights in the block. Rounding to multiples of a step has a root mean square error of
    step / sqrt(12).
    """
    from gguf import GGML_QUANT_SIZES

    power = float(np.square(values, dtype=np.float64).sum())
    if tensor.tensor_type.name in ("F32", "F16", "BF16", "F64"):
        return 0.0, power
    # In k-quants each sub-block of 16 or 32 weights has a scale; other types have one scale per block of 32.
    block = min(
        int(GGML_QUANT_SIZES[tensor.tensor_type][0]), 16 if tensor.tensor_type.name in ("Q2_K", "Q3_K", "Q6_K") else 32
    )
    sample = values.reshape(-1, block)
    stride = max(1, sample.shape[0] // 4096)
    blocks = np.sort(sample[::stride].astype(np.float64), axis=1)
    gaps = np.diff(blocks, axis=1)
    scale = np.abs(blocks).max(axis=1, keepdims=True)
    gaps = np.where(gaps > 1e-5 * scale, gaps, np.inf).min(axis=1)
    steps = np.where(np.isfinite(gaps), gaps, 0.0)
    return float(np.square(steps).mean() / 12 * values.size), power


def _summary(entries: list[tuple[int, float, float, float]]) -> TypeRounding:
    weights, size, error, power = (sum(column) for column in zip(*entries, strict=True))
    return TypeRounding(
        tensors=len(entries),
        weights=int(weights),
        bits_per_weight=round(8 * size / weights, 2),
        relative_rounding=round(float(np.sqrt(error / power)) if power else 0.0, 4),
    )
