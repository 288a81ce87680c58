"""Write the GGUF metadata of a Qwen2 or Llama model: architecture, RoPE and YaRN, tokenizer, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alignment.export.checkpoint import Qwen2Checkpoint
from alignment.export.levels import Level
from alignment.export.vocabulary import Vocabulary

if TYPE_CHECKING:
    from gguf import GGUFWriter


@dataclass(frozen=True)
class ModelDescription:
    """Facts for metadata and model card that can't be read from the model's folder."""

    name: str
    license: str | None = None
    base_model: str | None = None
    """The base model as `owner/name`."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Arbitrary key-value pairs, for example recipe and fingerprint."""


def describe_model(
    writer: GGUFWriter, checkpoint: Qwen2Checkpoint, level: Level, description: ModelDescription
) -> None:
    """Write the `general.*` keys and the keys of the architecture, such as `qwen2.block_count`.

    Provenance is written to keys `alignment.*`, which other programs ignore.
    """
    from gguf import GGML_QUANT_VERSION, GGUFType, size_label

    config = checkpoint.config
    heads = config["num_attention_heads"]
    writer.add_type(GGUFType.MODEL)
    writer.add_name(description.name)
    writer.add_size_label(size_label(checkpoint.weights, checkpoint.weights, 0, 0))
    writer.add_license(description.license or "")
    if base := description.base_model:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, base.rsplit("/", 1)[-1])
        if base.count("/") == 1:
            writer.add_base_model_organization(0, base.split("/")[0])
    for key, value in sorted(description.provenance.items()):
        writer.add_string(f"alignment.{key}", str(value))
    writer.add_file_type(level.file_type)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_block_count(checkpoint.layers)
    writer.add_context_length(context_length(checkpoint))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    if checkpoint.architecture == "llama":
        writer.add_vocab_size(checkpoint.vocabulary_rows)
        writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    if head_dim := config.get("head_dim"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    _describe_rope(writer, checkpoint)


def context_length(checkpoint: Qwen2Checkpoint) -> int:
    """Return the context length in tokens. With YaRN it is the original length times the factor.

    Qwen2.5's model cards add YaRN to config.json and leave `max_position_embeddings` at 32768, but llama.cpp's server
    limits its context to the length in the GGUF file.
    """
    longest, rope = int(checkpoint.config["max_position_embeddings"]), checkpoint.rope
    if rope["rope_type"] != "yarn":
        return longest
    return max(longest, int(rope["factor"] * (rope.get("original_max_position_embeddings") or longest)))


def _describe_rope(writer: GGUFWriter, checkpoint: Qwen2Checkpoint) -> None:
    from gguf import RopeScalingType

    rope = checkpoint.rope
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    kind = rope["rope_type"]
    if kind == "default":
        return
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        return
    if kind != "yarn":
        raise ValueError(
            f"{checkpoint.folder}/config.json scales RoPE by {kind!r}; GGUF export supports linear and yarn"
        )
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(float(rope["factor"]))
    original = rope.get("original_max_position_embeddings") or checkpoint.config["max_position_embeddings"]
    writer.add_rope_scaling_orig_ctx_len(int(original))
    for key, add in (
        ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
        ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
        ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
    ):
        if rope.get(key) is not None:
            add(float(rope[key]))


def describe_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write the `tokenizer.*` keys."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for word, number in vocabulary.special.items():
        key = {"bos": "bos", "eos": "eos", "pad": "padding"}.get(word, word)
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", number)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
