"""Translate the rows of Llama's query and key weights between the layouts of Hugging Face and of llama.cpp.

RoPE rotates pairs of numbers of each head. Hugging Face pairs the first half of a head with the second half. For Llama
models, llama.cpp pairs neighbours, so GGUF files hold these rows in another order. Qwen2 has the same order in both.
"""

from __future__ import annotations

import numpy as np


def rotated_heads(name: str, query_heads: int, key_heads: int) -> int:
    """Return the number of heads of a query or key weight, or 0 for all other tensors.

    Args:
        name: the Hugging Face name of the tensor.
        query_heads: number of attention heads.
        key_heads: number of heads of keys and values.
    """
    if name.endswith("self_attn.q_proj.weight"):
        return query_heads
    return key_heads if name.endswith("self_attn.k_proj.weight") else 0


def split_halves(rows: int, heads: int) -> np.ndarray:
    """Return, for each row in Hugging Face's order, the index of the row in llama.cpp's order."""
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(rows)


def neighbours(rows: int, heads: int) -> np.ndarray:
    """Return, for each row in llama.cpp's order, the index of the row in Hugging Face's order."""
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(rows)
