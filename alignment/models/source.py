"""Where a model comes from: a checkpoint or random weights, and the long-context settings it is loaded with.

Plain settings: nothing here imports torch. `alignment.models.loading` reads them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alignment.settings import Positive, Settings

DType = Literal["auto", "float32", "bfloat16", "float16"]
AttentionKernel = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]


class RandomInit(Settings):
    """The shape of a Qwen2 model with random weights; the vocabulary comes from the tokenizer."""

    hidden_size: Positive
    """Model width; a multiple of 2 x num_attention_heads."""
    intermediate_size: Positive
    """Width of the MLP."""
    num_hidden_layers: Positive
    """Number of layers."""
    num_attention_heads: Positive
    """Number of query heads."""
    num_key_value_heads: Positive
    """Number of key and value heads; divides num_attention_heads."""
    tie_word_embeddings: bool = True
    """Use the embedding as output layer too, as Qwen2.5-Coder's models up to 3B do."""
    max_position_embeddings: Positive = 32768
    """Longest sequence, in tokens."""
    rope_theta: Annotated[float, Field(gt=0)] = 1_000_000.0
    """RoPE base."""
    rms_norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    """Epsilon of RMSNorm."""
    initializer_range: Annotated[float, Field(gt=0)] = 0.02
    """Standard deviation of the random weights."""
    vocab_size: Positive | None = None
    """Number of rows of the embedding matrix. Default and minimum: the number of tokens of the tokenizer."""


class Context(Settings):
    """Long-context settings. They are saved in the model's config.json from this stage on."""

    rope_theta: Annotated[float, Field(gt=0)] | None = None
    """RoPE base. It may be raised (10,000 to 1,000,000 in the Qwen2.5-Coder report), never lowered."""
    yarn_factor: Annotated[float, Field(ge=1)] | None = None
    """YaRN factor; 4.0 takes Qwen2.5-Coder from 32,768 to 131,072 tokens."""
    original_max_position_embeddings: Positive | None = None
    """The length that YaRN stretches; by default the model's own."""
    max_position_embeddings: Positive | None = None
    """The length to write into config.json; by default what YaRN gives, else the model's own."""


class ModelSource(Settings):
    """A model to load: exactly one of `path` and `init` is set. All paths are absolute, or names on the hub."""

    path: str | None = None
    """Folder of a checkpoint, or its name on the Hugging Face hub."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    init: RandomInit | None = None
    """Random weights of this shape, drawn with the stage's seed."""
    tokenizer: str | None = None
    """Where the tokenizer is; by default with the checkpoint."""
    dtype: DType = "bfloat16"
    """The type the weights are loaded and saved in; `auto` is resolved by `alignment.models.precision`."""
    attn_implementation: AttentionKernel | None = None
    """Attention kernel, as transformers names it; None leaves the choice to `alignment.models.kernels`."""
    use_kernels: bool = False
    """Fused kernels for training from the Hugging Face hub."""

    @property
    def checkpoint(self) -> str:
        """Return `path`; the source must have one."""
        assert self.path is not None, "random weights are written to disk before they are loaded"
        return self.path
