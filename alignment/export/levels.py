"""Choose the type of each tensor of a Qwen2 model at each GGUF level.

A level mixes several types. The mixtures equal those of `llama_model_quantize` in llama.cpp 0.5.0
(`src/llama-quant.cpp`), for dense Qwen2 models. A nightly test compares the files byte by byte with files that
llama.cpp writes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """A GGUF level, for example `q4_K_M`."""

    name: str
    file_type: int
    """Value of `llama_ftype` in llama.cpp that stands for the level."""
    matrix_type: str
    """Type of a matrix for which the level has no special rule."""

    @property
    def is_float(self) -> bool:
        """Whether the level stores all tensors as floats, without quantization."""
        return self.matrix_type in FLOATS


FLOATS = ("F32", "F16", "BF16")
LEVELS = {
    level.name: level
    for level in (
        Level("f32", 0, "F32"),
        Level("f16", 1, "F16"),
        Level("bf16", 32, "BF16"),
        Level("q8_0", 7, "Q8_0"),
        Level("q6_K", 18, "Q6_K"),
        Level("q5_K_M", 17, "Q5_K"),
        Level("q5_0", 8, "Q5_0"),
        Level("q4_K_M", 15, "Q4_K"),
        Level("q4_0", 2, "Q4_0"),
        Level("q3_K_M", 12, "Q3_K"),
        Level("q2_K", 10, "Q2_K"),
    )
}

# k-quants have blocks of 256 weights. If the length of a row is not a multiple of 256, the row gets the next larger
# type with blocks of 32.
_SMALL_BLOCK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def get_level(name: str) -> Level:
    """Return the level with this name, ignoring upper and lower case. Raise ValueError if no level has this name."""
    for level in LEVELS.values():
        if level.name.lower() == name.lower():
            return level
    raise ValueError(f"there is no GGUF level {name!r}; choose from {', '.join(LEVELS)}")


def block_size(type_name: str) -> int:
    """Return the number of weights in one block of a type. The length of a row must be a multiple of this number."""
    if type_name in FLOATS:
        return 1
    return 256 if type_name.endswith("_K") else 32


@dataclass(frozen=True)
class ModelTraits:
    """Properties of a model on which the types of its tensors depend."""

    layers: int
    tied: bool
    query_heads_per_kv_head: int


def tensor_type(
    level: Level, name: str, shape: tuple[int, ...], model: ModelTraits, imatrix: bool = False
) -> tuple[str, bool]:
    """Choose the type of a tensor.

    Args:
        level: The level of the file.
        name: The tensor's GGUF name.
        shape: The tensor's shape: rows and columns.
        model: Properties of the model.
        imatrix: Whether there is an importance matrix.

    Returns:
        The type, and whether the type is a fallback. A fallback is larger than the type that the level prescribes; it
        is used if the number of columns is not a multiple of the prescribed type's block size. Vectors (norms, biases)
        are always F32.
    """
    if len(shape) < 2:
        return "F32", False
    columns = shape[-1]
    if level.is_float:
        return level.matrix_type, False
    wanted = _wanted_type(level, name, columns, model, imatrix)
    chosen = wanted
    if columns % block_size(chosen):
        chosen = _SMALL_BLOCK.get(chosen, chosen)
    if columns % block_size(chosen):
        chosen = "F16"
    head_fallback = _is_head(name, model) and columns % block_size(level.matrix_type) != 0
    return chosen, chosen != wanted or head_fallback


def _is_head(name: str, model: ModelTraits) -> bool:
    return name == "output.weight" or (model.tied and name == "token_embd.weight")


def _wanted_type(level: Level, name: str, columns: int, model: ModelTraits, imatrix: bool) -> str:
    default = level.matrix_type
    if _is_head(name, model):
        if columns % block_size(default) or default == "Q8_0":
            return "Q8_0"
        return "Q6_K"
    if not name.startswith("blk."):
        return default
    layer = int(name.split(".")[1])
    role = name.split(".")[2]
    more_bits = _more_bits(layer, model.layers)
    if role == "attn_v":
        return {
            "q2_K": "Q4_K" if model.query_heads_per_kv_head >= 4 else "Q3_K",
            "q3_K_M": "Q5_K" if layer < 2 else "Q4_K",
            "q4_K_M": "Q6_K" if more_bits else default,
            "q5_K_M": "Q6_K" if more_bits else default,
        }.get(level.name, default)
    if role == "ffn_down":
        first_eighth = imatrix and layer < model.layers // 8
        return {
            "q2_K": "Q3_K",
            "q3_K_M": "Q5_K" if layer < model.layers // 16 else "Q4_K",
            "q4_K_M": "Q6_K" if more_bits else default,
            "q5_K_M": "Q6_K" if more_bits else default,
            "q4_0": "Q4_1" if first_eighth else default,
            "q5_0": "Q5_1" if first_eighth else default,
        }.get(level.name, default)
    if role == "attn_output":
        return {"q2_K": "Q3_K", "q3_K_M": "Q4_K"}.get(level.name, default)
    return default


def _more_bits(layer: int, layers: int) -> bool:
    """Whether a layer gets more bits: a layer in the first or last eighth, or every third layer between them."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
