"""Shapes of the Qwen2.5-Coder models, for plans and checks that do not load weights.

Source: table 1 of the Qwen2.5-Coder report (arXiv 2409.12186). RoPE base, context length and the number of embedding
rows (which is larger than the tokenizer's 151,665 tokens) are from the released configs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Qwen2Config

ROPE_THETA = 1_000_000.0
MAX_POSITION_EMBEDDINGS = 32_768


@dataclass(frozen=True)
class Shape:
    """Settings of the architecture that differ between the model sizes, under their names in transformers."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    tie_word_embeddings: bool
    vocab_size: int
    rms_norm_eps: float

    @property
    def key_value_size(self) -> int:
        """Width of the keys of one token. The values have the same width."""
        return self.hidden_size // self.num_attention_heads * self.num_key_value_heads

    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """Return (inputs, outputs) of each linear layer in one decoder layer, by the name in transformers."""
        hidden, key_value, feed_forward = self.hidden_size, self.key_value_size, self.intermediate_size
        return {
            "q_proj": (hidden, hidden),
            "k_proj": (hidden, key_value),
            "v_proj": (hidden, key_value),
            "o_proj": (hidden, hidden),
            "gate_proj": (hidden, feed_forward),
            "up_proj": (hidden, feed_forward),
            "down_proj": (feed_forward, hidden),
        }

    @property
    def parameters(self) -> int:
        """Number of weights. Tied embeddings count once."""
        hidden, feed_forward = self.hidden_size, self.intermediate_size
        key_value = self.key_value_size
        # Weights of q and o, weights of k and v, biases of q, k and v.
        attention = 2 * hidden * hidden + 2 * hidden * key_value + hidden + 2 * key_value
        layer = attention + 3 * hidden * feed_forward + 2 * hidden
        embeddings = self.vocab_size * hidden * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * layer + embeddings + hidden


SHAPES = {
    "0.5b": Shape(896, 24, 14, 2, 4864, True, 151_936, 1e-6),
    "1.5b": Shape(1536, 28, 12, 2, 8960, True, 151_936, 1e-6),
    "3b": Shape(2048, 36, 16, 2, 11008, True, 151_936, 1e-6),
    "7b": Shape(3584, 28, 28, 4, 18944, False, 152_064, 1e-6),
    "14b": Shape(5120, 48, 40, 8, 13824, False, 152_064, 1e-5),
    "32b": Shape(5120, 64, 40, 8, 27648, False, 152_064, 1e-5),
}


def config(size: str) -> Qwen2Config:
    """Return the transformers config of one size.

    Args:
        size: `0.5b`, `1.5b`, `3b`, `7b`, `14b` or `32b`.

    Raises:
        ValueError: there is no such size.
    """
    from transformers import Qwen2Config

    if size.lower() not in SHAPES:
        raise ValueError(f"there is no Qwen2.5-Coder of size {size!r}; choose from {', '.join(SHAPES)}")
    return Qwen2Config(
        **asdict(SHAPES[size.lower()]),
        max_position_embeddings=MAX_POSITION_EMBEDDINGS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        dtype="bfloat16",
    )
