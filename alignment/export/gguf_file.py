"""Write a GGUF file from a checkpoint, a few rows of one tensor at a time.

Memory use is a few buffers of `CHUNK_WEIGHTS` numbers for models of any size. Files are written under temporary names,
and get their final names when all of them are complete.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignment.export.checkpoint import Qwen2Checkpoint, check_finite
from alignment.export.gguf_metadata import ModelDescription, describe_model, describe_vocabulary
from alignment.export.levels import Level, ModelTraits, tensor_type
from alignment.export.llamacpp import LlamaCppLibrary
from alignment.export.vocabulary import read_vocabulary
from alignment.models.rope_layout import neighbours, rotated_heads
from alignment.models.stored_tensors import StoredTensor, to_float32
from alignment.progress import Progress

if TYPE_CHECKING:
    from gguf import GGUFWriter

LAYER_NAMES = {
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
OUTER_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_name(name: str) -> str:
    """Translate a Hugging Face tensor name: `model.layers.3.mlp.up_proj.weight` becomes `blk.3.ffn_up.weight`."""
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{LAYER_NAMES[module]}.{kind}"


@dataclass(frozen=True)
class TensorPlan:
    """How one tensor is written: its name, type and size."""

    name: str
    """GGUF name of the tensor."""
    source: StoredTensor
    type_name: str
    type_number: int
    size_bytes: int
    fallback: bool
    """Whether the type is larger than the type that the level prescribes, see `tensor_type`."""
    heads: int = 0
    """For a query or key weight of a Llama model, the number of heads, whose rows llama.cpp has in another order. 0 for
    all other tensors."""

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the stored values in chunks of rows, in the order of the GGUF file."""
        if not self.heads:
            yield from self.source.chunks()
            return
        rows = self.source.raw()
        yield rows[neighbours(rows.shape[0], self.heads)]


@dataclass(frozen=True)
class GgufOutput:
    """The finished files of a GGUF."""

    files: list[Path]
    """The file, or all parts of a split GGUF. Runtimes open the first part."""
    size_bytes: int
    weights: int
    """Number of parameters."""
    types: dict[str, int]
    """GGUF type -> number of tensors."""
    fallback_tensors: int


def plan_tensors(checkpoint: Qwen2Checkpoint, level: Level, imatrix: bool = False) -> list[TensorPlan]:
    """Choose the type and size of every tensor at `level`. The plans are in the order of the file."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    config = checkpoint.config
    heads = config["num_attention_heads"]
    key_heads = config.get("num_key_value_heads", heads)
    model = ModelTraits(checkpoint.layers, checkpoint.tied, heads // key_heads)
    plans = []
    for source in checkpoint.tensors.values():
        name = gguf_name(source.name)
        type_name, fallback = tensor_type(level, name, source.shape, model, imatrix)
        kind = GGMLQuantizationType[type_name]
        block, block_bytes = GGML_QUANT_SIZES[kind]
        size = source.weights // block * block_bytes
        rotated = rotated_heads(source.name, heads, key_heads) if checkpoint.architecture == "llama" else 0
        plans.append(TensorPlan(name, source, type_name, int(kind), size, fallback, rotated))
    return plans


def write_gguf(
    checkpoint: Qwen2Checkpoint,
    level: Level,
    out: Path,
    *,
    imatrix: dict[str, np.ndarray] | None = None,
    split_bytes: int = 0,
    description: ModelDescription | None = None,
    threads: int | None = None,
) -> GgufOutput:
    """Write a checkpoint as GGUF.

    Args:
        checkpoint: The model.
        level: The GGUF level.
        out: The file to write.
        imatrix: GGUF name of a tensor -> importance of its columns, in float32.
        split_bytes: Approximate size of the parts `NAME-00001-of-00003.gguf`; 0 writes one file.
        description: Name, licence, base model and provenance, for the metadata.
        threads: Number of threads that encode; by default one per core.

    Raises:
        ValueError: Weights are not finite or do not fit the type, the disk is full, or the tokenizer is not supported
            (`read_vocabulary`). No file is left behind.
    """
    from gguf import GGUFWriter

    description = description or ModelDescription(checkpoint.folder.resolve().name)
    vocabulary = read_vocabulary(checkpoint)
    plans = plan_tensors(checkpoint, level, imatrix is not None)
    scratch = _scratch_folder(out, sum(plan.size_bytes for plan in plans) + 64 * len(vocabulary.tokens))
    try:
        writer = GGUFWriter(scratch / out.name, checkpoint.architecture, split_max_size=split_bytes)
        describe_model(writer, checkpoint, level, description)
        describe_vocabulary(writer, vocabulary)
        names = _write_tensors(writer, plans, imatrix, None if level.is_float else LlamaCppLibrary(), threads)
        # Users open the first part, so it gets its final name last.
        for name in reversed(names):
            (scratch / name).replace(out.parent / name)
    except OSError as error:
        raise ValueError(f"{out} could not be written ({error.strerror}); nothing is left of it") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    files = [out.parent / name for name in names]
    return GgufOutput(
        files,
        sum(file.stat().st_size for file in files),
        sum(plan.source.weights for plan in plans),
        dict(Counter(plan.type_name for plan in plans)),
        sum(plan.fallback for plan in plans),
    )


def _scratch_folder(out: Path, size_bytes: int) -> Path:
    """Make a temporary folder beside `out`. Raise ValueError if the disk has fewer than `size_bytes` free."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        require_space(out.parent, size_bytes)
        return Path(tempfile.mkdtemp(prefix=".partial-", dir=out.parent))
    except OSError as error:
        raise ValueError(f"cannot write to {out.parent} ({error.strerror}): choose another output folder") from error


def require_space(folder: Path, size_bytes: int) -> None:
    """Raise ValueError if the disk of `folder` has fewer than `size_bytes` free."""
    free = shutil.disk_usage(folder).free
    if size_bytes > free:
        raise ValueError(
            f"{folder} has {free / 1e9:.1f} GB free, the export needs {size_bytes / 1e9:.1f} GB: "
            "free some space, or choose another output folder"
        )


def _write_tensors(
    writer: GGUFWriter,
    plans: list[TensorPlan],
    imatrix: dict[str, np.ndarray] | None,
    library: LlamaCppLibrary | None,
    threads: int | None,
) -> list[str]:
    """Write the header, the metadata that `writer` holds, and all tensors. Return the paths of the written files."""
    from gguf import GGMLQuantizationType

    for plan in plans:
        kind = GGMLQuantizationType(plan.type_number)
        writer.add_tensor_info(plan.name, plan.source.shape, np.dtype(np.float32), plan.size_bytes, raw_dtype=kind)
    by_name = {plan.name: plan for plan in plans}
    workers = threads or os.cpu_count() or 1
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        progress = Progress(f"writing {Path(writer.fout[0].name).name}", len(plans), "tensors", amount_unit="MB")
        with ThreadPoolExecutor(workers) as pool:
            for stream, tensors in zip(writer.fout, writer.tensors, strict=True):
                writer.write_padding(stream, stream.tell())
                for name in tensors:
                    plan = by_name[name]
                    importance = None if imatrix is None else imatrix.get(name)
                    for piece in _encoded(plan, importance, library, pool, workers):
                        stream.write(piece)
                    writer.write_padding(stream, plan.size_bytes)
                    progress.advance(1, plan.size_bytes / 1e6)
        return [Path(stream.name).name for stream in writer.fout]
    finally:
        writer.close()


def _encoded(
    plan: TensorPlan,
    importance: np.ndarray | None,
    library: LlamaCppLibrary | None,
    pool: ThreadPoolExecutor,
    workers: int,
) -> Iterator[memoryview]:
    """Encode one tensor in a thread pool, and yield the bytes of each chunk of rows in order.

    At most `workers` + 1 chunks are in memory.
    """
    waiting: list[Future[np.ndarray]] = []
    for raw in plan.chunks():
        waiting.append(pool.submit(_encode, plan, raw, importance, library))
        if len(waiting) > workers:
            yield waiting.pop(0).result().data
    for future in waiting:
        yield future.result().data


def _encode(
    plan: TensorPlan, raw: np.ndarray, importance: np.ndarray | None, library: LlamaCppLibrary | None
) -> np.ndarray:
    """Encode rows of a tensor in the type that the plan prescribes."""
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
                "maximum of 65504: export bf16 or f32"
            )
        return halves
    assert library is not None
    return library.quantize_rows(plan.type_number, values, importance)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round finite float32 values to bfloat16 (nearest, ties to even). Return the bits as uint16."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
