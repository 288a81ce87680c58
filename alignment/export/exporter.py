"""`export`: from a model folder to tested files, one row of figures per target."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.export import makers
from alignment.export.card import commands, model_card
from alignment.export.checkpoint import Checkpoint, open_checkpoint
from alignment.export.engine_environment import engine_python
from alignment.export.export_settings import Calibration, Comparison, Push, Quantize, read_settings
from alignment.export.export_targets import Target, missing_packages, parse_targets
from alignment.export.gate import Gate, read_comparison
from alignment.export.imatrix import read_imatrix
from alignment.export.makers import Run
from alignment.export.pass_rate import pass_at_1
from alignment.export.publish import publish
from alignment.export.texts import calibration_texts, read_rows, standard_library_texts
from alignment.rows.row_texts import ModelText, model_text

Rows = str | Path | Sequence[dict[str, Any]]
HELD_OUT_ROWS = 10_000


def export(
    model_path: str | Path,
    targets: Sequence[str],
    out_dir: str | Path,
    *,
    held_out: Rows | None = None,
    gate: Comparison | Mapping[str, Any] | None = None,
    benchmark: Mapping[str, Any] | None = None,
    calibration: Calibration | Rows | None = None,
    calibration_tokens: int = 65_536,
    sequence_length: int = 512,
    imatrix: bool | str | Path = False,
    quantize: Quantize | Mapping[str, Any] | None = None,
    split_bytes: int = 0,
    name: str | None = None,
    license: str | None = None,
    base_model: str | None = None,
    adapter: str | Path | None = None,
    adapter_base: str | Path | None = None,
    provenance: dict[str, str] | None = None,
    push: Push | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Export the Qwen2 model in `model_path` to each of `targets` and prove each against the original.

    Args:
        targets: names as `parse_targets` explains them.
        held_out: rows for the gate (a list, or a JSONL or Parquet file); code of Python's standard library else.
        gate: how to compare, see `Comparison`.
        benchmark: `{request, sandbox, seed}` as `benchmark.pass_at_1` takes it, to measure pass@1 as well.
        calibration: what importance matrices, GPTQ and AWQ see, see `Calibration`; or rows, with `calibration_tokens`
            and `sequence_length` beside them.
        imatrix: True makes an importance matrix from `calibration`; a path takes one in llama.cpp's GGUF form.
        quantize: settings of GPTQ and AWQ, see `Quantize`.
        split_bytes: size of the parts of a GGUF; 0 writes one file.
        name, license, base_model, provenance: for file names, metadata and the model card.
        adapter, adapter_base: the LoRA adapter that the model was merged from and its base model (by default the one
            its config names), for the target `adapter`.
        push: where to send what passed, see `Push`; nothing leaves the machine without it.

    Returns a row per target: target, file, size_bytes, bits_per_weight, perplexity, original_perplexity,
    perplexity_increase (percent), top1_agreement (percent), kl_divergence (nats), greedy_agreement (percent),
    tokenization_equal, tokens_per_second, seconds, passed, reasons; pass_at_1 and original_pass_at_1 (percent) with a
    benchmark; level, tensor_types and fallback_tensors for GGUF; calibration (rows by form, samples, tokens) where it
    was used. The rows also go to `out_dir/export.json`, and into the table of `out_dir/README.md`. What fails its gate
    is kept under a name that begins with `broken-`; nothing raises for it. ValueError says what else is wrong, before
    any long work where that can be known.
    """
    wanted = parse_targets(targets)
    settings = read_comparison(gate)
    pushing = read_settings(Push, "push", push) if push is not None else None
    quantizing = read_settings(Quantize, "quantize", quantize)
    if message := quantizing.contradiction():
        raise ValueError(f"quantize.act_order: {message}")
    if not isinstance(calibration, Calibration):
        texts = _texts(read_rows(calibration), seed)
    else:
        rows = [row for source in calibration.data for row in read_rows(source.data.path(), source.rows)]
        texts = _texts(rows, seed, calibration.fim)
        calibration_tokens, sequence_length = calibration.tokens, calibration.sequence_length
    own = [model_text(row).text for row in read_rows(held_out, HELD_OUT_ROWS)]
    matrices = read_imatrix(imatrix) if isinstance(imatrix, (str, Path)) else None
    checkpoint = open_checkpoint(model_path)
    name = name or checkpoint.folder.resolve().name
    out = Path(out_dir)
    _check(wanted, checkpoint, texts, imatrix is True, adapter, split_bytes)
    _check_output(out, name, checkpoint)
    if any(target.is_calibrated for target in wanted):
        engine_python(quantizing.engine)  # what can't be installed is better known now
    about = {"name": name, "license": license, "base_model": base_model, "provenance": provenance}
    out.mkdir(parents=True, exist_ok=True)
    made: list[dict[str, Any]] = []
    with Gate(checkpoint, own or standard_library_texts(), settings, out) as judge:
        run = Run(checkpoint, out, about, judge, texts, calibration_tokens, sequence_length, quantizing, matrices)
        run.split_bytes, run.seed = split_bytes, seed
        if benchmark is not None:
            _measure_original(run, dict(benchmark))
        if imatrix is True:
            makers.make_imatrix(run)
        for target in wanted:
            made.append(makers.make(run, target, adapter, adapter_base))
            makers.write_text(out / "export.json", json.dumps(made, indent=1, ensure_ascii=False))
    measured_on = f"{len(own)} held-out rows" if own else "code of Python's standard library"
    shown = commands(checkpoint, run.name, out, made)
    card = model_card(about, made, measured_on=measured_on, commands=shown)
    makers.write_text(out / "README.md", card)
    for target, row in zip(wanted, made, strict=True):
        if target.kind in ("huggingface", "gptq", "awq", "llama.cpp") and row["passed"]:
            makers.write_text(Path(row["file"]) / "README.md", card)
    if pushing is not None:
        publish(out, made, pushing)
    return made


def _texts(rows: list[dict[str, Any]], seed: int, fim: float = 0.5) -> list[ModelText]:
    random.Random(seed).shuffle(rows)
    return calibration_texts(rows, seed, fim)


def _check(
    wanted: Sequence[Target],
    checkpoint: Checkpoint,
    texts: Sequence[ModelText],
    imatrix: bool,
    adapter: str | Path | None,
    split_bytes: int,
) -> None:
    if message := missing_packages(wanted):
        raise ValueError(message)
    if any(target.kind == "adapter" for target in wanted) and adapter is None:
        raise ValueError("the target 'adapter' needs the adapter's folder: set `adapter`")
    if (imatrix or any(target.is_calibrated for target in wanted)) and not texts:
        raise ValueError("importance matrices, GPTQ and AWQ need rows to calibrate on: set `calibration`")
    if split_bytes and any(target.kind == "ollama" for target in wanted):
        raise ValueError("Ollama takes one GGUF file: leave `split_bytes` out, or the target 'ollama'")
    if any(not target.is_gguf for target in wanted):
        checkpoint.require_finite()


def _check_output(out: Path, name: str, checkpoint: Checkpoint) -> None:
    """An export replaces an older one and nothing else: neither the model that it reads nor files of the user's."""
    if name != Path(name).name or name.startswith("."):
        raise ValueError(f"the name {name!r} is part of file names: leave out slashes and a dot in front")
    model, folder = checkpoint.folder.resolve(), out.resolve()
    if model == folder or (model.parent == folder and model.name.startswith(f"{name}-")):
        raise ValueError(
            f"the export to {out} would replace the model {checkpoint.folder}: choose another output folder"
        )
    if (out / "README.md").exists() and not (out / "export.json").exists():
        raise ValueError(f"{out} holds a README.md that is no model card of an export: choose another output folder")


def _measure_original(run: Run, benchmark: dict[str, Any]) -> None:
    run.benchmark = benchmark
    folder = run.checkpoint.folder
    run.original_pass_at_1 = pass_at_1(
        folder, folder, benchmark, run.out / "benchmark" / "original", runtime="transformers", threads=run.threads
    )
