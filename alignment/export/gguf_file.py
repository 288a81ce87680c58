"""Writing a GGUF file from a checkpoint: one tensor at a time, a few rows at a time, under a temporary name.

Memory stays at a few buffers of `CHUNK_WEIGHTS` numbers whatever the model's size. The final names appear only when
all is written.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignment.export.checkpoint import Checkpoint, StoredTensor, check_finite, to_float32
from alignment.export.gguf_metadata import describe_model, describe_vocabulary
from alignment.export.levels import Level, Shape, tensor_type
from alignment.export.llamacpp import Library
from alignment.export.vocabulary import Vocabulary, read_vocabulary

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTER_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_name(name: str) -> str:
    """GGUF's name of a Hugging Face tensor: `model.layers.3.mlp.up_proj.weight` is `blk.3.ffn_up.weight`."""
    if name in _OUTER_NAMES:
        return _OUTER_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{_LAYER_NAMES[module]}.{kind}"


@dataclass(frozen=True)
class Plan:
    """What becomes of one tensor."""

    name: str
    source: StoredTensor
    type_name: str
    type_number: int
    size_bytes: int
    fallback: bool


@dataclass(frozen=True)
class Written:
    """A finished GGUF: its files (more than one where it was split), their size and the types inside."""

    files: list[Path]
    size_bytes: int
    weights: int
    types: dict[str, int]
    fallback_tensors: int


def plan_tensors(checkpoint: Checkpoint, level: Level, imatrix: bool = False) -> list[Plan]:
    """The type and size of every tensor at `level`, in the order of the file."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    config = checkpoint.config
    heads = config["num_attention_heads"]
    model = Shape(checkpoint.layers, checkpoint.tied, heads // config.get("num_key_value_heads", heads))
    plans = []
    for source in checkpoint.tensors.values():
        name = gguf_name(source.name)
        type_name, fallback = tensor_type(level, name, source.shape, model, imatrix)
        kind = GGMLQuantizationType[type_name]
        block, block_bytes = GGML_QUANT_SIZES[kind]
        plans.append(Plan(name, source, type_name, int(kind), source.weights // block * block_bytes, fallback))
    return plans


def write_gguf(
    checkpoint: Checkpoint,
    level: Level,
    out: Path,
    *,
    imatrix: dict[str, np.ndarray] | None = None,
    split_bytes: int = 0,
    about: dict[str, Any] | None = None,
    threads: int | None = None,
) -> Written:
    """Write `checkpoint` at `level` to `out`; with `split_bytes`, as files of at most about that size each.

    `imatrix` maps GGUF tensor names to float32 weights per column. `about` holds what metadata can't be read from
    the folder: name, license, base_model, provenance. Raises ValueError for weights that are not finite or do not
    fit the type, for a full disk, and for all that `read_vocabulary` refuses; no file is left behind then.
    """
    vocabulary = read_vocabulary(checkpoint)
    plans = plan_tensors(checkpoint, level, imatrix is not None)
    need = sum(plan.size_bytes for plan in plans) + 64 * len(vocabulary.tokens)
    scratch = _scratch_folder(out, need)
    try:
        names = _write(checkpoint, vocabulary, level, plans, scratch / out.name, imatrix, split_bytes, about, threads)
        # The first part is the one that users open: it appears last.
        for name in reversed(names):
            (scratch / name).replace(out.parent / name)
    except OSError as error:
        raise ValueError(f"{out} could not be written ({error.strerror}); nothing is left of it") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    files = [out.parent / name for name in names]
    return Written(
        files,
        sum(file.stat().st_size for file in files),
        sum(plan.source.weights for plan in plans),
        dict(Counter(plan.type_name for plan in plans)),
        sum(plan.fallback for plan in plans),
    )


def _scratch_folder(out: Path, need: int) -> Path:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        require_space(out.parent, need)
        return Path(tempfile.mkdtemp(prefix=".partial-", dir=out.parent))
    except OSError as error:
        raise ValueError(
            f"{out.parent} can't be written to ({error.strerror}): choose another output folder"
        ) from error


def require_space(folder: Path, need: int) -> None:
    """ValueError where `folder`'s disk has fewer than `need` bytes free."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise ValueError(
            f"{folder} has {free / 1e9:.1f} GB free, the export needs {need / 1e9:.1f} GB: "
            "free some, or choose another output folder"
        )


def _write(
    checkpoint: Checkpoint,
    vocabulary: Vocabulary,
    level: Level,
    plans: list[Plan],
    path: Path,
    imatrix: dict[str, np.ndarray] | None,
    split_bytes: int,
    about: dict[str, Any] | None,
    threads: int | None,
) -> list[str]:
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, "qwen2", split_max_size=split_bytes)
    describe_model(writer, checkpoint, level, about or {})
    describe_vocabulary(writer, vocabulary)
    for plan in plans:
        kind = GGMLQuantizationType(plan.type_number)
        writer.add_tensor_info(plan.name, plan.source.shape, np.dtype(np.float32), plan.size_bytes, raw_dtype=kind)
    by_name = {plan.name: plan for plan in plans}
    library = None if level.is_float else Library()
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
            for stream, tensors in zip(writer.fout, writer.tensors, strict=True):
                writer.write_padding(stream, stream.tell())
                for name in tensors:
                    plan = by_name[name]
                    weights = None if imatrix is None else imatrix.get(name)
                    for piece in _encoded(plan, weights, library, pool):
                        stream.write(piece)
                    writer.write_padding(stream, plan.size_bytes)
        return [Path(stream.name).name for stream in writer.fout]
    finally:
        writer.close()


def _encoded(
    plan: Plan, imatrix: np.ndarray | None, library: Library | None, pool: ThreadPoolExecutor
) -> Iterator[memoryview]:
    """The bytes of one tensor, in order; as many runs of rows at work as the pool has threads, no more."""
    waiting: list[Any] = []
    for raw in plan.source.chunks():
        waiting.append(pool.submit(_encode, plan, raw, imatrix, library))
        if len(waiting) > pool._max_workers:
            yield waiting.pop(0).result().data
    for future in waiting:
        yield future.result().data


def _encode(plan: Plan, raw: np.ndarray, imatrix: np.ndarray | None, library: Library | None) -> np.ndarray:
    values = to_float32(raw, plan.source.dtype)
    check_finite(plan.source, values)
    if plan.type_name == "F32":
        return values
    if plan.type_name == "BF16":
        return np.ascontiguousarray(raw) if plan.source.dtype == "BF16" else to_bfloat16(values)
    if plan.type_name == "F16":
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.isfinite(halves).all():
            raise ValueError(
                f"{plan.source.file}: tensor {plan.source.name} holds {np.abs(values).max():g}, beyond float16's "
                "65504: export bf16 or f32"
            )
        return halves
    assert library is not None
    return library.quantize_rows(plan.type_number, values, imatrix)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Finite float32 to bfloat16 as unsigned 16-bit integers, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
