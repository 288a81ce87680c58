"""Settings for the source of a model: a checkpoint or random weights, and long-context settings.

This module does not import torch. `alignment.models.loading` loads models from these settings.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alignment.settings import Positive, Settings

DType = Literal["auto", "float32", "bfloat16", "float16"]
EngineName = Literal["auto", "transformers", "vllm", "llamacpp"]
"""Names of the engines that load a model and generate. `alignment.evaluation.engines.selection` describes them."""
AttentionKernel = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]


class RandomInit(Settings):
    """The shape of a Qwen2 model with random weights. The vocabulary comes from the tokenizer."""

    hidden_size: Positive
    """Model width, a multiple of 2 x num_attention_heads."""
    intermediate_size: Positive
    """Width of the MLP."""
    num_hidden_layers: Positive
    """Number of layers."""
    num_attention_heads: Positive
    """Number of query heads."""
    num_key_value_heads: Positive
    """Number of key and value heads. num_attention_heads must be a multiple of this number."""
    tie_word_embeddings: bool = True
    """Whether the embedding is also the output layer, as in Qwen2.5-Coder up to 3B."""
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
    yarn_factor: Annotated[float, Field(ge=1, le=1024)] | None = None
    """YaRN factor. 4.0 extends Qwen2.5-Coder from 32,768 to 131,072 tokens."""
    original_max_position_embeddings: Positive | None = None
    """Context length that YaRN multiplies by the factor; by default the model's length."""
    max_position_embeddings: Positive | None = None
    """Context length to write into config.json; by default the length with YaRN, or the model's length without YaRN."""


class ModelSource(Settings):
    """A model to load. Exactly one of `path` and `init` is set. All paths are absolute, or names on the hub."""

    path: str | None = None
    """Folder of a checkpoint, or a name on the Hugging Face hub."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    init: RandomInit | None = None
    """Random weights of this shape, drawn with the stage's seed."""
    tokenizer: str | None = None
    """Folder or hub name of the tokenizer; by default the tokenizer in the checkpoint's folder."""
    dtype: DType = "bfloat16"
    """Type in which the weights are loaded and saved. `alignment.models.precision` resolves `auto`."""
    attn_implementation: AttentionKernel | None = None
    """Name of the attention kernel in transformers. None leaves the choice to `alignment.models.kernels`."""
    use_kernels: bool = False
    """Whether to train with fused kernels from the Hugging Face hub."""

    @property
    def checkpoint(self) -> str:
        """The source's `path`. Must be used only if `path` is not None."""
        assert self.path is not None, "random weights are written to disk before they are loaded"
        return self.path
