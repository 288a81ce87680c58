"""GPTQ and AWQ through llm-compressor or gptqmodel, in a fresh process and in the engine's own environment.

python -m alignment.export.quantized JOB.json
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.export.checkpoint import Checkpoint
from alignment.export.engine_environment import engine_python
from alignment.export.export_settings import Quantize
from alignment.export.export_targets import Target
from alignment.export.fresh_process import run_job, serve_job
from alignment.rows.row_texts import ModelText

SHORTEST_SAMPLE = 16


@dataclass(frozen=True)
class Quantized:
    """A finished folder: the interpreter that can load it, and what it was calibrated on."""

    python: str
    calibration: dict[str, Any]


def make(
    checkpoint: Checkpoint,
    target: Target,
    out: Path,
    texts: list[ModelText],
    settings: Quantize,
    *,
    tokens: int = 65_536,
    sequence_length: int = 512,
    threads: int = 0,
    seed: int = 0,
) -> Quantized:
    """Quantize `checkpoint` into the folder `out`, calibrated on at most `tokens` tokens of `texts`.

    ValueError says why that can't be: a layer that does not divide into groups, weights that are not finite, an
    engine whose environment can't be made, or what the engine itself reports. Nothing is left then.
    """
    group = settings.group_size
    columns = sorted({tensor.shape[1] for name, tensor in checkpoint.tensors.items() if "_proj.weight" in name})
    odd = [number for number in columns if group > 0 and number % group]
    if odd:
        raise ValueError(f"rows of {odd[0]} weights do not divide into groups of {group}: set quantize.group_size")
    checkpoint.require_finite()
    python = engine_python(settings.engine)
    partial = out.with_name(f".partial-{out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    job = settings.model_dump() | {
        "model": str(checkpoint.folder.resolve()),
        "method": target.kind,
        "bits": target.bits,
        "texts": [(text.text, text.form) for text in texts],
        "tokens": tokens,
        "sequence_length": sequence_length,
        "threads": threads,
        "seed": seed,
        "out": str(partial.resolve()),
    }
    try:
        # gptqmodel leaves a folder of logs wherever it runs.
        calibration = run_job("alignment.export.quantized", job, python, in_own_folder=True)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{target.text}: {settings.engine} failed: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Quantized(python, calibration)


def calibration_samples(
    tokenizer: Any, texts: list[tuple[str, str]], length: int, tokens: int
) -> tuple[list[list[int]], dict[str, Any]]:
    """Token ids of at most `length` each, and what was used: rows by form, samples, tokens.

    First the beginning of every row, then what follows it, until there are `tokens`: a long row takes the place of no
    other.
    """
    rows: Counter[str] = Counter()
    beginnings: list[list[int]] = []
    rest: list[list[int]] = []
    total = 0
    for text, form in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        pieces = [ids[start : start + length] for start in range(0, len(ids), length)]
        pieces = [piece for piece in pieces if len(piece) >= SHORTEST_SAMPLE]
        if not pieces:
            continue
        if beginnings and total + len(pieces[0]) > tokens:
            break
        rows[form] += 1
        total += len(pieces[0])
        beginnings.append(pieces[0])
        rest += pieces[1:]
    if not beginnings:
        raise ValueError(f"the calibration rows hold no text of {SHORTEST_SAMPLE} tokens or more")
    for piece in rest:
        if total + len(piece) <= tokens:
            total += len(piece)
            beginnings.append(piece)
    return beginnings, {"rows": dict(rows), "samples": len(beginnings), "tokens": total}


def quantize(job: dict[str, Any]) -> dict[str, Any]:
    """Run the engine; called in its own process and environment."""
    if job["device"] == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # gptqmodel 7.7.0 wants two workers to load a model and takes (cores + 1) // 2, one on a machine with two cores.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, (os.cpu_count() or 1) // 2)))
    import torch
    from transformers import AutoTokenizer

    if job["device"] == "cuda" and not torch.cuda.is_available():
        raise ValueError("quantize.device is cuda, and there is no GPU here: set it to cpu, or leave it out")
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    samples, used = calibration_samples(tokenizer, job["texts"], job["sequence_length"], job["tokens"])
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in samples]
    (_llm_compressor if job["engine"] == "llm-compressor" else _gptqmodel)(job, rows)
    tokenizer.save_pretrained(job["out"])
    return used


def _llm_compressor(job: dict[str, Any], rows: list[dict[str, list[int]]]) -> None:
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache
    from transformers import AutoModelForCausalLM

    if not torch.cuda.is_available():
        # llm-compressor 0.14.0.1 pins memory for AWQ (transform/awq/base.py) even where no device could read it.
        IntermediatesCache.pin_memory = lambda *_, **__: None
    group = job["group_size"]
    weights = {"num_bits": job["bits"], "type": "int", "symmetric": job["method"] == "gptq"}
    weights |= {"strategy": "group", "group_size": group} if group > 0 else {"strategy": "channel"}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    if job["method"] == "awq":
        recipe = [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=["lm_head"])]
    else:
        order = None if job["act_order"] == "none" else job["act_order"]
        recipe = [GPTQModifier(config_groups=groups, ignore=["lm_head"], actorder=order)]
    oneshot(
        model=AutoModelForCausalLM.from_pretrained(job["model"], dtype="auto"),
        dataset=Dataset.from_list(rows),
        recipe=recipe,
        max_seq_length=job["sequence_length"],
        num_calibration_samples=len(rows),
        shuffle_calibration_samples=False,
        pipeline="sequential",
        output_dir=job["out"],
    )


def _gptqmodel(job: dict[str, Any], rows: list[dict[str, list[int]]]) -> None:
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig

    settings: dict[str, Any] = {"bits": job["bits"], "group_size": job["group_size"]}
    if job["method"] == "awq":
        settings |= {"method": "awq", "format": "gemm", "sym": False}
    else:
        settings |= {"desc_act": job["act_order"] == "group", "act_group_aware": job["act_order"] == "static"}
    model = GPTQModel.load(
        job["model"], QuantizeConfig(**settings), device="cuda" if torch.cuda.is_available() else "cpu"
    )
    model.quantize(rows, batch_size=1)
    model.save(job["out"])


if __name__ == "__main__":
    serve_job(quantize)
