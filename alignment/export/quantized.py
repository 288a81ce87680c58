"""Quantize with GPTQ and AWQ by llm-compressor or gptqmodel, in a fresh process and in the engine's environment.

    python -m alignment.export.quantized JOB.json

JOB.json holds a `QuantizeJob`.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from alignment.export.checkpoint import Qwen2Checkpoint
from alignment.export.engine_environment import engine_python
from alignment.export.export_row import CalibrationUse
from alignment.export.export_settings import Quantize
from alignment.export.export_targets import Target
from alignment.export.fresh_process import run_job, serve_job
from alignment.models.formats import Tokenizer
from alignment.rows.row_texts import ModelText

SHORTEST_SAMPLE = 16
"""Least number of tokens in a calibration sample. Shorter pieces of rows are not used."""

Sample = dict[str, list[int]]
"""`input_ids` and `attention_mask` of one calibration sample."""


@dataclass(frozen=True)
class QuantizeJob:
    """Model and settings of one quantization."""

    model: str
    """Absolute path of the model's folder. `out` is absolute too."""
    out: str
    method: str
    """gptq or awq."""
    bits: int
    engine: str
    group_size: int
    act_order: str
    device: str
    texts: list[tuple[str, str]]
    """Calibration texts as pairs (text, form). The form is `plain`, `chat`, `fim` or `repository`."""
    tokens: int
    """Largest number of calibration tokens in total."""
    sequence_length: int
    """Largest number of tokens in one sample."""
    threads: int
    """Number of CPU threads; 0 keeps torch's default."""
    seed: int


@dataclass(frozen=True)
class QuantizedFolder:
    """Result of a quantization."""

    python: str
    """Path of the Python interpreter with whose packages the quantized folder can be loaded."""
    calibration: CalibrationUse


def quantize_folder(
    checkpoint: Qwen2Checkpoint,
    target: Target,
    out: Path,
    texts: list[ModelText],
    settings: Quantize,
    *,
    tokens: int,
    sequence_length: int,
    threads: int = 0,
    seed: int = 0,
) -> QuantizedFolder:
    """Quantize a model with GPTQ or AWQ.

    Args:
        checkpoint: The model.
        target: A target of kind gptq or awq.
        out: The folder to write.
        texts: Calibration texts.
        settings: Settings of the quantization: engine, group size, order of the columns, device.
        tokens: Largest number of calibration tokens in total.
        sequence_length: Largest number of tokens in one calibration sample.
        threads: Number of CPU threads; 0 keeps torch's default.
        seed: Seed of the engine.

    Raises:
        ValueError: Rows of weights can't be divided into groups, weights are not finite, the engine's environment can't
            be made, or the engine failed. No files are left behind.
    """
    group = settings.group_size
    columns = sorted({tensor.shape[1] for name, tensor in checkpoint.tensors.items() if "_proj.weight" in name})
    uneven = [number for number in columns if group > 0 and number % group]
    if uneven:
        raise ValueError(
            f"rows of {uneven[0]} weights can't be divided into groups of {group}: set quantize.group_size to a divisor"
        )
    checkpoint.require_finite()
    python = engine_python(settings.engine)
    partial = out.with_name(f".partial-{out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    job = QuantizeJob(
        **settings.model_dump(),
        model=str(checkpoint.folder.resolve()),
        out=str(partial.resolve()),
        method=target.kind,
        bits=target.bits,
        texts=[(text.text, text.form) for text in texts],
        tokens=tokens,
        sequence_length=sequence_length,
        threads=threads,
        seed=seed,
    )
    try:
        # The job runs in a temporary folder because gptqmodel writes a folder of logs into its working directory.
        calibration = run_job(
            "alignment.export.quantized", asdict(job), python, in_own_folder=True, label=f"quantizing {target.text}"
        )
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{target.text}: {settings.engine} failed: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return QuantizedFolder(python, cast(CalibrationUse, calibration))


def calibration_samples(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, str]], length: int, tokens: int
) -> tuple[list[list[int]], CalibrationUse]:
    """Cut texts into calibration samples.

    The first sample of every text is taken first, then further samples of the texts, until there are `tokens` tokens. A
    long text therefore does not displace other texts.

    Args:
        tokenizer: The model's tokenizer.
        texts: Texts as pairs (text, form). The form is `plain`, `chat`, `fim` or `repository`.
        length: Largest number of tokens in one sample.
        tokens: Largest number of tokens in total.

    Returns:
        The token ids of each sample, and how many rows and tokens were used.

    Raises:
        ValueError: No text has at least `SHORTEST_SAMPLE` tokens.
    """
    rows: Counter[str] = Counter()
    samples: list[list[int]] = []
    rest: list[list[int]] = []
    total = 0
    for text, form in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        pieces = [ids[start : start + length] for start in range(0, len(ids), length)]
        pieces = [piece for piece in pieces if len(piece) >= SHORTEST_SAMPLE]
        if not pieces:
            continue
        if samples and total + len(pieces[0]) > tokens:
            break
        rows[form] += 1
        total += len(pieces[0])
        samples.append(pieces[0])
        rest += pieces[1:]
    if not samples:
        raise ValueError(f"no calibration row has {SHORTEST_SAMPLE} tokens or more: name longer rows in `calibration`")
    for piece in rest:
        if total + len(piece) <= tokens:
            total += len(piece)
            samples.append(piece)
    return samples, {"rows": dict(rows), "samples": len(samples), "tokens": total}


def run_engine(job: QuantizeJob) -> CalibrationUse:
    """Quantize in this process, which must run in the engine's environment. Return how much data was used."""
    if job.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # gptqmodel 7.7.0 needs two workers to load a model, but uses (cores + 1) // 2, which is one on two cores.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, (os.cpu_count() or 1) // 2)))
    import torch
    from transformers import AutoTokenizer

    if job.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("quantize.device is cuda, but there is no GPU: set quantize.device to cpu or auto")
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(job.model)
    samples, used = calibration_samples(tokenizer, job.texts, job.sequence_length, job.tokens)
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in samples]
    if job.engine == "llm-compressor":
        _run_llm_compressor(job, rows)
    else:
        _run_gptqmodel(job, rows)
    tokenizer.save_pretrained(job.out)
    return used


def _run_llm_compressor(job: QuantizeJob, rows: list[Sample]) -> None:
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache
    from transformers import AutoModelForCausalLM

    if not torch.cuda.is_available():
        # llm-compressor 0.14.0.1 pins memory for AWQ (transform/awq/base.py) even without a device that could use it.
        IntermediatesCache.pin_memory = lambda *_, **__: None
    group = job.group_size
    weights: dict[str, Any] = {"num_bits": job.bits, "type": "int", "symmetric": job.method == "gptq"}
    weights |= {"strategy": "group", "group_size": group} if group > 0 else {"strategy": "channel"}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    if job.method == "awq":
        recipe = [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=["lm_head"])]
    else:
        order = None if job.act_order == "none" else job.act_order
        recipe = [GPTQModifier(config_groups=groups, ignore=["lm_head"], actorder=order)]
    oneshot(
        model=AutoModelForCausalLM.from_pretrained(job.model, dtype="auto"),
        dataset=Dataset.from_list(rows),
        recipe=recipe,
        max_seq_length=job.sequence_length,
        num_calibration_samples=len(rows),
        shuffle_calibration_samples=False,
        pipeline="sequential",
        output_dir=job.out,
    )


def _run_gptqmodel(job: QuantizeJob, rows: list[Sample]) -> None:
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig

    settings: dict[str, Any] = {"bits": job.bits, "group_size": job.group_size}
    if job.method == "awq":
        settings |= {"method": "awq", "format": "gemm", "sym": False}
    else:
        settings |= {"desc_act": job.act_order == "group", "act_group_aware": job.act_order == "static"}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = GPTQModel.load(job.model, QuantizeConfig(**settings), device=device)
    model.quantize(rows, batch_size=1)
    model.save(job.out)


def run(job: dict[str, Any]) -> CalibrationUse:
    """Run a job in this process: the entry point for `serve_job`."""
    return run_engine(QuantizeJob(**job))


if __name__ == "__main__":
    serve_job(run)
