"""`export`: from a model folder to tested files, one row of figures per target."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.export.checkpoint import Checkpoint, open_checkpoint
from alignment.export.gate import Gate, GateSettings
from alignment.export.gguf_file import write_gguf
from alignment.export.targets import Target, parse_targets
from alignment.export.texts import read_rows, row_text, standard_library_texts


def export(
    model_path: str | Path,
    targets: Sequence[str],
    out_dir: str | Path,
    *,
    calibration: str | Path | Sequence[dict[str, Any]] | None = None,
    held_out: str | Path | Sequence[dict[str, Any]] | None = None,
    gate: dict[str, Any] | GateSettings | None = None,
    imatrix: bool = False,
    split_bytes: int = 0,
    name: str | None = None,
    license: str | None = None,
    base_model: str | None = None,
    provenance: dict[str, str] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Export the Qwen2 model in `model_path` to each of `targets` and prove each against the original.

    `targets` are GGUF levels (`q4_K_M`), or what `alignment.export.targets` lists besides. `calibration` and
    `held_out` are rows (a list, or a JSONL or Parquet file): the first for importance matrices, GPTQ and AWQ, the
    second for the gate, which takes code of Python's standard library where there are none.

    Returns a row per target: target, level, file, files, size_bytes, bits_per_weight, perplexity,
    original_perplexity, perplexity_increase (percent), top1_agreement (percent), kl_divergence (nats),
    greedy_agreement (percent), tokenization_equal, tokens_per_second, passed, reasons... The rows also go to
    `out_dir/export.json`. What fails its gate is kept under a name that begins with `broken-`; nothing raises for it.
    ValueError says what else is wrong, before any long work where that can be known.
    """
    wanted = parse_targets(targets)
    settings = GateSettings.read(gate)
    checkpoint = open_checkpoint(model_path)
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    texts = [row_text(row)[0] for row in read_rows(held_out)] or standard_library_texts()
    about = {
        "name": name or checkpoint.folder.resolve().name,
        "license": license,
        "base_model": base_model,
        "provenance": provenance,
    }
    rows: list[dict[str, Any]] = []
    with Gate(checkpoint, texts, settings, out) as judge:
        for target in wanted:
            rows.append(_export_gguf(checkpoint, target, out, about, split_bytes, judge))
            _write_json(out / "export.json", rows)
    return rows


def _export_gguf(
    checkpoint: Checkpoint, target: Target, out: Path, about: dict[str, Any], split_bytes: int, judge: Gate
) -> dict[str, Any]:
    started = time.perf_counter()
    assert target.level is not None
    file = out / f"{about['name']}-{target.level.name}.gguf"
    written = write_gguf(checkpoint, target.level, file, split_bytes=split_bytes, about=about)
    seconds = time.perf_counter() - started
    measured = judge.measure(written.files[0], target.level.name, "llama.cpp")
    files = written.files if measured["passed"] else _set_aside(written.files)
    return {
        "target": target.text,
        "level": target.level.name,
        "file": str(files[0]),
        "files": [str(path) for path in files],
        "size_bytes": written.size_bytes,
        "bits_per_weight": 8 * written.size_bytes / written.weights,
        "tensor_types": written.types,
        "fallback_tensors": written.fallback_tensors,
        "seconds": seconds,
    } | measured


def _set_aside(files: list[Path]) -> list[Path]:
    """Rename files that failed their gate, so that nobody takes them for good ones."""
    broken = [file.with_name(f"broken-{file.name}") for file in files]
    for file, name in zip(files, broken, strict=True):
        file.replace(name)
    return broken


def _write_json(file: Path, value: Any) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(file)
