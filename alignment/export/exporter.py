"""`export`: from a model folder to tested files, one row of figures per target."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignment.export import quantized, runtimes
from alignment.export.adapter import write_adapter
from alignment.export.card import commands, model_card
from alignment.export.checkpoint import Checkpoint, open_checkpoint, read_json
from alignment.export.gate import Gate, GateSettings
from alignment.export.gguf_file import Written, write_gguf
from alignment.export.imatrix import read_imatrix
from alignment.export.levels import LEVELS, Level
from alignment.export.process import run_job
from alignment.export.publish import check_push, publish
from alignment.export.targets import Target, parse_targets
from alignment.export.texts import calibration_texts, read_rows, row_text, standard_library_texts

# Names of what has not passed its gate yet, and of what failed it.
UNPROVEN, BROKEN = "unproven-", "broken-"
Rows = str | Path | Sequence[dict[str, Any]]


@dataclass
class _Run:
    """What all targets of one export share."""

    checkpoint: Checkpoint
    out: Path
    about: dict[str, Any]
    judge: Gate
    calibration: list[str]
    calibration_tokens: int
    quantize: dict[str, Any]
    imatrix: dict[str, np.ndarray] | None = None
    split_bytes: int = 0
    benchmark: Callable[[Path], float] | None = None
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rows of GGUF levels that exist already, by level."""

    @property
    def name(self) -> str:
        return str(self.about["name"])


def export(
    model_path: str | Path,
    targets: Sequence[str],
    out_dir: str | Path,
    *,
    calibration: Rows | None = None,
    held_out: Rows | None = None,
    gate: dict[str, Any] | GateSettings | None = None,
    imatrix: bool | str | Path = False,
    calibration_tokens: int = 65536,
    quantize: dict[str, Any] | None = None,
    split_bytes: int = 0,
    name: str | None = None,
    license: str | None = None,
    base_model: str | None = None,
    adapter: str | Path | None = None,
    adapter_base: str | Path | None = None,
    provenance: dict[str, str] | None = None,
    benchmark: Callable[[Path], float] | None = None,
    push: dict[str, Any] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Export the Qwen2 model in `model_path` to each of `targets` and prove each against the original.

    Args:
        targets: names as `parse_targets` explains them.
        calibration: rows (a list, or a JSONL or Parquet file) for importance matrices, GPTQ and AWQ.
        held_out: rows for the gate; code of Python's standard library where there are none.
        gate: settings of `GateSettings`, as a recipe gives them.
        imatrix: True makes an importance matrix from `calibration`; a path takes one in llama.cpp's GGUF form.
        calibration_tokens: tokens of calibration data, at most.
        quantize: settings of `quantized.QuantizeSettings` for GPTQ and AWQ: group_size, act_order...
        split_bytes: size of the parts of a GGUF; 0 writes one file.
        name, license, base_model, provenance: for file names, metadata and the model card.
        adapter, adapter_base: the LoRA adapter that the model was merged from and its base model (by default the one
            its config names), for the target `adapter`.
        benchmark: gives pass@1 in percent of an exported GGUF file or folder.
        push: `{repository, visibility}`, see `publish.check_push`; nothing leaves the machine without it.

    Returns a row per target: target, file, size_bytes, bits_per_weight, perplexity, original_perplexity,
    perplexity_increase (percent), top1_agreement (percent), kl_divergence (nats), greedy_agreement (percent),
    tokenization_equal, tokens_per_second, seconds, passed, reasons, and level, tensor_types and fallback_tensors for
    GGUF. The rows also go to `out_dir/export.json`, and into the table of `out_dir/README.md`. What fails its gate is
    kept under a name that begins with `broken-`; nothing raises for it. ValueError says what else is wrong, before any
    long work where that can be known.
    """
    wanted = parse_targets(targets)
    settings = GateSettings.read(gate)
    pushing = check_push(push)
    quantize_settings = quantized.check_settings(quantize)
    _check_engines(wanted)
    checkpoint = open_checkpoint(model_path)
    if any(target.kind == "adapter" for target in wanted) and adapter is None:
        raise ValueError("the target 'adapter' needs the adapter's folder: set `adapter`")
    texts, counts = calibration_texts(read_rows(calibration), seed)
    if (imatrix is True or any(target.kind in ("gptq", "awq") for target in wanted)) and not texts:
        raise ValueError("importance matrices, GPTQ and AWQ need rows to calibrate on: set `calibration`")
    matrices = read_imatrix(imatrix) if isinstance(imatrix, (str, Path)) else None
    own = [row_text(row)[0] for row in read_rows(held_out)]
    measured_on = f"{len(own)} held-out rows" if own else "code of Python's standard library"
    about = {
        "name": name or checkpoint.folder.resolve().name,
        "license": license,
        "base_model": base_model,
        "provenance": provenance,
    }
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with Gate(checkpoint, own or standard_library_texts(), settings, out) as judge:
        run = _Run(checkpoint, out, about, judge, texts, calibration_tokens, quantize_settings, matrices, split_bytes)
        run.benchmark = benchmark
        if imatrix is True:
            run.imatrix = _make_imatrix(run)
        for target in wanted:
            rows.append(_export_one(run, target, adapter, adapter_base))
            _write_text(out / "export.json", json.dumps(rows, indent=1, ensure_ascii=False))
    stated = ", ".join(f"{count} {form} rows" for form, count in sorted(counts.items())) or None
    card = model_card(
        about, rows, measured_on=measured_on, calibration=stated, commands=commands(checkpoint, run.name, out, rows)
    )
    _write_text(out / "README.md", card)
    for target, row in zip(wanted, rows, strict=True):
        if target.kind in ("huggingface", "gptq", "awq") and row["passed"]:
            _write_text(Path(row["file"]) / "README.md", card)
    if pushing:
        publish(out, rows, *pushing)
    return rows


def _check_engines(wanted: Sequence[Target]) -> None:
    kinds = {target.kind for target in wanted}
    for module in ("gguf", "xllamacpp") if kinds & {"gguf", "ollama", "adapter"} else ():
        if importlib.util.find_spec(module) is None:
            raise ValueError(f"GGUF export needs {module}: pip install 'code-alignment[gguf]'")


def _export_one(
    run: _Run, target: Target, adapter: str | Path | None, adapter_base: str | Path | None
) -> dict[str, Any]:
    if target.kind == "gguf":
        assert target.level is not None
        return {"target": target.text} | _gguf(run, target.level)
    if target.kind == "ollama":
        return {"target": target.text} | _ollama(run, target)
    if target.kind == "adapter":
        assert adapter is not None
        return {"target": target.text} | _adapter(run, Path(adapter), adapter_base)
    if target.kind == "huggingface":
        return {"target": target.text} | _huggingface(run)
    return {"target": target.text} | _quantized(run, target)


def _gguf(run: _Run, level: Level) -> dict[str, Any]:
    if level.name in run.made:
        return run.made[level.name]
    started = time.perf_counter()
    file = run.out / f"{UNPROVEN}{run.name}-{level.name}.gguf"
    written = write_gguf(run.checkpoint, level, file, imatrix=run.imatrix, split_bytes=run.split_bytes, about=run.about)
    seconds = time.perf_counter() - started
    measured = run.judge.measure(written.files[0], level.name, "llama.cpp")
    run.made[level.name] = _finish(run, _gguf_row(run, level, written) | {"seconds": seconds} | measured)
    return run.made[level.name]


def _gguf_row(run: _Run, level: Level, written: Written) -> dict[str, Any]:
    return {
        "level": level.name,
        "file": str(written.files[0]),
        "files": [str(file) for file in written.files],
        "size_bytes": written.size_bytes,
        "bits_per_weight": 8 * written.size_bytes / written.weights,
        "tensor_types": written.types,
        "fallback_tensors": written.fallback_tensors,
        "imatrix": run.imatrix is not None and not level.is_float,
    }


def _ollama(run: _Run, target: Target) -> dict[str, Any]:
    """An Ollama folder around the GGUF of the level, which is made where it is not there yet."""
    assert target.level is not None
    row = _gguf(run, target.level)
    if not row["passed"]:
        return row
    if len(row["files"]) > 1:
        raise ValueError("Ollama takes one GGUF file: leave `split_bytes` out, or the target 'ollama'")
    folder = run.out / f"{run.name}-ollama-{target.level.name}"
    runtimes.write_ollama(run.checkpoint, Path(row["file"]), folder, run.about["license"])
    command = f"ollama create {run.name} -f Modelfile"
    return row | {"file": str(folder), "files": [str(folder)], "command": command}


def _huggingface(run: _Run) -> dict[str, Any]:
    folder = run.out / f"{UNPROVEN}{run.name}-huggingface"
    runtimes.write_folder(run.checkpoint, folder, run.name, "")
    row = _folder_row(run, folder) | run.judge.measure(folder, "huggingface", "transformers")
    row["command"] = runtimes.vllm_command(run.checkpoint, run.name)
    return _finish(run, row)


def _quantized(run: _Run, target: Target) -> dict[str, Any]:
    started = time.perf_counter()
    folder = run.out / f"{UNPROVEN}{run.name}-{target.text}"
    python = quantized.make(run.checkpoint, target, folder, run.calibration, run.calibration_tokens, run.quantize)
    runtimes.write_serve_script(folder, runtimes.vllm_command(run.checkpoint, run.name))
    seconds = time.perf_counter() - started
    row = _folder_row(run, folder) | {"seconds": seconds}
    row |= run.judge.measure(folder, target.text, "transformers", python)
    row["command"] = runtimes.vllm_command(run.checkpoint, run.name)
    return _finish(run, row)


def _folder_row(run: _Run, folder: Path) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    bits = 8 * size / run.checkpoint.weights
    return {"file": str(folder), "files": [str(folder)], "size_bytes": size, "bits_per_weight": bits}


def _adapter(run: _Run, adapter: Path, base: str | Path | None) -> dict[str, Any]:
    """The adapter as PEFT wrote it and as GGUF, proven in llama.cpp over its base model against transformers."""
    if not (adapter / "adapter_config.json").is_file():
        raise ValueError(f"{adapter} has no adapter_config.json: it is no PEFT adapter")
    checkpoint = open_checkpoint(base or read_json(adapter / "adapter_config.json")["base_model_name_or_path"])
    file = write_adapter(adapter, checkpoint, run.out / f"{UNPROVEN}{run.name}-lora.gguf")
    folder = run.out / f"{UNPROVEN}{run.name}-lora"
    folder.mkdir(exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(adapter / name, folder / name)
    # The base goes to GGUF without loss, so that what is measured is the adapter.
    stored = next(iter(checkpoint.tensors.values())).dtype.lower()
    with Gate(checkpoint, run.judge.job["texts"], run.judge.settings, run.out, adapter) as judge:
        base_file = write_gguf(checkpoint, LEVELS.get(stored, LEVELS["f32"]), judge.folder / "base.gguf").files[0]
        measured = judge.measure(base_file, "adapter", "llama.cpp", adapter=file)
    size = file.stat().st_size
    row = {"file": str(file), "files": [str(file), str(folder)], "size_bytes": size} | measured
    return _finish(run, row)


def _make_imatrix(run: _Run) -> dict[str, np.ndarray]:
    file = run.out / f"{run.name}-imatrix.gguf"
    settings = run.judge.settings
    job = {
        "model": str(run.checkpoint.folder),
        "texts": run.calibration,
        "context": settings.context,
        "tokens": run.calibration_tokens,
        "dtype": settings.dtype,
        "device": settings.device,
        "threads": run.judge.job["threads"],
        "out": str(file),
    }
    try:
        run_job("alignment.export.imatrix", job)
    except RuntimeError as error:
        raise ValueError(f"no importance matrix could be made: {error}") from error
    return read_imatrix(file)


def _finish(run: _Run, row: dict[str, Any]) -> dict[str, Any]:
    """Give what was measured its final name: its own where it passed, `broken-` before it where it did not."""
    prefix, other = ("", BROKEN) if row["passed"] else (BROKEN, "")
    settled = []
    for path in map(Path, row["files"]):
        name = path.name.removeprefix(UNPROVEN)
        for old in (path.with_name(prefix + name), path.with_name(other + name)):
            _remove(old)
        settled.append(str(path.replace(path.with_name(prefix + name))))
    row = row | {"file": settled[0], "files": settled}
    if run.benchmark is not None and row["passed"]:
        row["pass_at_1"] = run.benchmark(Path(settled[0]))
    return row


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_text(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
