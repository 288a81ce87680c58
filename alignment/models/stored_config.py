"""Read the config of a model on disk without torch, from a model folder or a GGUF file."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
"""Architectures that can be imported from GGUF files and exported to them, named as in GGUF files and in `model_type` of
config.json -> name of the class in transformers."""
_GGUF_KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}


def is_gguf(path: str | Path) -> bool:
    """Whether the name of a path ends like a GGUF file's (`.gguf`).

    A recipe's run converts such a model before the first step uses it.
    """
    return Path(path).suffix == ".gguf"


def stored_config(path: Path) -> dict[str, Any] | None:
    """Return a model's config with the keys of config.json, or None if the config is missing or can't be read.

    Args:
        path: a model folder with config.json, or a GGUF file of a Qwen2 or Llama model.
    """
    if is_gguf(path) and path.is_file():
        return _gguf_config(path, path.stat().st_mtime_ns)
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


@functools.lru_cache(maxsize=8)
def _gguf_config(file: Path, changed: int) -> dict[str, Any] | None:
    """Read the config of a GGUF file.

    The result is cached by both arguments. `changed` is the file's modification time, so that a changed file is read
    again.
    """
    try:
        from gguf import GGUFReader

        reader = GGUFReader(file)
        kind = reader.fields["general.architecture"].contents()
        values = {key: reader.fields[f"{kind}.{name}"].contents() for key, name in _GGUF_KEYS.items()}
        name = reader.fields["general.name"].contents() if "general.name" in reader.fields else ""
        rows = next(tensor.shape[1] for tensor in reader.tensors if tensor.name == "token_embd.weight")
    except (ImportError, ValueError, IndexError, KeyError, OverflowError, OSError, StopIteration):
        return None
    # Sizes up to 3B have a tied embedding (Qwen2.5-Coder report, table 1). Only the import compares the two matrices.
    tied = values["hidden_size"] <= 2048
    named = {"_name_or_path": name} if name else {}
    return {**values, **named, "vocab_size": int(rows), "tie_word_embeddings": tied, "model_type": kind}
