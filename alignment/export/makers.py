"""Make each kind of export target: write files with the prefix `unproven-`, measure them, then rename them."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, cast

import numpy as np

from alignment.export import serving_files
from alignment.export.adapter import read_adapter_config, write_adapter
from alignment.export.checkpoint import Qwen2Checkpoint, open_checkpoint
from alignment.export.export_options import ExportOptions
from alignment.export.export_row import CalibrationUse, ExportRow
from alignment.export.export_targets import Target
from alignment.export.fresh_process import run_job
from alignment.export.gate import ExportGate, thresholds_of
from alignment.export.gguf_file import GgufOutput, write_gguf
from alignment.export.gguf_metadata import ModelDescription
from alignment.export.imatrix import ImatrixJob, read_imatrix
from alignment.export.levels import LEVELS, Level
from alignment.export.pass_rate import pass_at_1
from alignment.export.quantized import quantize_folder
from alignment.rows.row_texts import ModelText

# Prefixes of the names of files that have not been measured yet, and of files that missed their limits.
UNPROVEN, BROKEN = "unproven-", "broken-"

RuntimeName = Literal["llama.cpp", "transformers"]


@dataclass
class ExportRun:
    """Data that all targets of one export share."""

    checkpoint: Qwen2Checkpoint
    out: Path
    options: ExportOptions
    description: ModelDescription
    gate: ExportGate
    calibration_texts: list[ModelText]
    imatrix: dict[str, np.ndarray] | None = None
    imatrix_calibration: CalibrationUse | None = None
    """How much calibration data the importance matrix used, if this run made the importance matrix."""
    original_pass_at_1: float | None = None
    """The original's pass@1 in percent, if there is a benchmark."""
    gguf_rows: dict[str, ExportRow] = field(default_factory=dict)
    """GGUF level -> its row, for the levels made so far. A target that is a folder with a GGUF file (for Ollama or
    llama.cpp's server) reuses the file of that row."""

    @property
    def name(self) -> str:
        """The model's name in file names."""
        return self.description.name


def make_target(run: ExportRun, target: Target) -> ExportRow:
    """Make and measure one target. Return its row."""
    if target.level is not None:
        row = _make_gguf(run, target.level)
        if target.kind != "gguf" and row["passed"]:
            row = _make_runtime_folder(run, target, row)
    elif target.kind == "adapter":
        row = _make_adapter(run)
    elif target.kind == "huggingface":
        row = _make_huggingface(run)
    else:
        row = _make_quantized(run, target)
    head: ExportRow = {"target": target.text}
    return head | row


def _make_gguf(run: ExportRun, level: Level) -> ExportRow:
    if level.name in run.gguf_rows:
        return run.gguf_rows[level.name]
    started = time.perf_counter()
    written = write_gguf(
        run.checkpoint,
        level,
        run.out / f"{UNPROVEN}{run.name}-{level.name}.gguf",
        imatrix=run.imatrix,
        split_bytes=run.options.split_bytes,
        description=run.description,
    )
    row = _gguf_row(run, level, written)
    row["seconds"] = time.perf_counter() - started
    row = row | run.gate.measure(written.files[0], level.name, "llama.cpp")
    run.gguf_rows[level.name] = _finish(run, row, level.name, "llama.cpp")
    return run.gguf_rows[level.name]


def _gguf_row(run: ExportRun, level: Level, written: GgufOutput) -> ExportRow:
    weighed = run.imatrix is not None and not level.is_float
    row: ExportRow = {
        "level": level.name,
        "file": str(written.files[0]),
        "files": [str(file) for file in written.files],
        "size_bytes": written.size_bytes,
        "bits_per_weight": 8 * written.size_bytes / written.weights,
        "tensor_types": written.types,
        "fallback_tensors": written.fallback_tensors,
        "imatrix": weighed,
    }
    if weighed and run.imatrix_calibration:
        row["calibration"] = run.imatrix_calibration
    return row


def _make_runtime_folder(run: ExportRun, target: Target, row: ExportRow) -> ExportRow:
    """Make a folder for Ollama or llama.cpp's server, with a GGUF file that passed. Return the row of the target."""
    assert target.level is not None
    files = [Path(file) for file in row["files"]]
    folder = run.out / f"{run.name}-{target.kind}-{target.level.name}"
    if target.kind == "ollama":
        serving_files.write_ollama(run.checkpoint, files[0], folder, run.name, run.description.license)
        command = f"ollama create {run.name} -f Modelfile"
    else:
        command = serving_files.write_llama_cpp(run.checkpoint, files, folder, run.name)
    return row | {"file": str(folder), "files": [str(folder)], "command": command}


def _make_huggingface(run: ExportRun) -> ExportRow:
    folder = run.out / f"{UNPROVEN}{run.name}-huggingface"
    started = time.perf_counter()
    serving_files.write_folder(run.checkpoint, folder, run.name, "")
    row = _folder_row(run, folder)
    row["seconds"] = time.perf_counter() - started
    row = row | run.gate.measure(folder, "huggingface", "transformers")
    row["command"] = serving_files.vllm_command(run.checkpoint, run.name)
    return _finish(run, row, "huggingface", "transformers")


def _make_quantized(run: ExportRun, target: Target) -> ExportRow:
    calibration = run.options.calibration
    assert calibration is not None
    started = time.perf_counter()
    folder = run.out / f"{UNPROVEN}{run.name}-{target.text}"
    quantized = quantize_folder(
        run.checkpoint,
        target,
        folder,
        run.calibration_texts,
        run.options.quantize,
        tokens=calibration.tokens,
        sequence_length=calibration.sequence_length,
        threads=run.gate.threads,
        seed=run.options.seed,
    )
    command = serving_files.vllm_command(run.checkpoint, run.name)
    serving_files.write_serve_script(folder, command)
    row = _folder_row(run, folder)
    row["seconds"] = time.perf_counter() - started
    row["calibration"] = quantized.calibration
    row = row | run.gate.measure(folder, target.text, "transformers", quantized.python)
    row["command"], row["engine"] = command, run.options.quantize.engine
    return _finish(run, row, target.text, "transformers", quantized.python)


def _folder_row(run: ExportRun, folder: Path) -> ExportRow:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    bits = 8 * size / run.checkpoint.weights
    return {"file": str(folder), "files": [str(folder)], "size_bytes": size, "bits_per_weight": bits}


def _make_adapter(run: ExportRun) -> ExportRow:
    """Export the adapter as PEFT folder and as GGUF file.

    The GGUF file is measured in llama.cpp with the base model.
    """
    adapter = run.options.adapter
    assert adapter is not None
    base = run.options.adapter_base or read_adapter_config(adapter)["base_model_name_or_path"]
    started = time.perf_counter()
    checkpoint = open_checkpoint(base)
    file = write_adapter(adapter, checkpoint, run.out / f"{UNPROVEN}{run.name}-lora.gguf")
    folder = run.out / f"{UNPROVEN}{run.name}-lora"
    serving_files.copy_adapter(adapter, folder)
    row: ExportRow = {
        "file": str(file),
        "files": [str(file), str(folder)],
        "size_bytes": file.stat().st_size,
        "seconds": time.perf_counter() - started,
    }
    # The base model is written without quantization, so that the measurement shows the effect of the adapter alone.
    stored = next(iter(checkpoint.tensors.values())).dtype.lower()
    with ExportGate(checkpoint, run.gate.texts, run.gate.settings, run.out, adapter) as gate:
        base_file = write_gguf(checkpoint, LEVELS.get(stored, LEVELS["f32"]), gate.folder / "base.gguf").files[0]
        row = row | gate.measure(base_file, "adapter", "llama.cpp", adapter=file)
    return _rename_files(row)


def make_imatrix(run: ExportRun) -> None:
    """Make the importance matrix from the calibration texts. The file is kept in the output folder."""
    assert run.options.calibration is not None
    file = run.out / f"{run.name}-imatrix.gguf"
    settings = run.gate.settings
    job = ImatrixJob(
        model=str(run.checkpoint.folder),
        texts=[(text.text, text.form) for text in run.calibration_texts],
        context=settings.context,
        tokens=run.options.calibration.tokens,
        dtype=settings.dtype,
        device=settings.device,
        threads=run.gate.threads,
        out=str(file),
    )
    try:
        run.imatrix_calibration = cast(CalibrationUse, run_job("alignment.export.imatrix", asdict(job)))
    except RuntimeError as error:
        raise ValueError(f"no importance matrix could be made: {error}") from error
    run.imatrix = read_imatrix(file)


def _finish(run: ExportRun, row: ExportRow, level: str, runtime: RuntimeName, python: str | None = None) -> ExportRow:
    """Measure pass@1 of a target that passed the comparison with the original, if a benchmark is set.

    Then rename the files of the target to their final names.
    """
    if run.options.benchmark is not None and row["passed"]:
        row = row | _pass_rate(run, Path(row["file"]), level, runtime, python)
    return _rename_files(row)


def _pass_rate(run: ExportRun, model: Path, level: str, runtime: RuntimeName, python: str | None) -> ExportRow:
    """Measure pass@1 of an export. In the returned row, `passed` is False if pass@1 is too far below the original's."""
    assert run.options.benchmark is not None and run.original_pass_at_1 is not None
    rate = pass_at_1(
        model,
        run.checkpoint.folder,
        run.options.benchmark,
        run.out / "benchmark" / level,
        runtime=runtime,
        threads=run.gate.threads,
        python=python,
    )
    row: ExportRow = {"pass_at_1": rate, "original_pass_at_1": run.original_pass_at_1}
    allowed = thresholds_of(run.gate.settings, level).max_pass_at_1_drop
    if run.original_pass_at_1 - rate > allowed:
        row["passed"] = False
        row["reasons"] = [
            f"pass@1 {rate:.1f}%, the original {run.original_pass_at_1:.1f}% (may fall by {allowed:g} points)"
        ]
    return row


def _rename_files(row: ExportRow) -> ExportRow:
    """Give the files their final names, with the prefix `broken-` if the target failed.

    Remove older files of the target.
    """
    prefix, other = ("", BROKEN) if row["passed"] else (BROKEN, "")
    final = []
    for path in map(Path, row["files"]):
        name = path.name.removeprefix(UNPROVEN)
        for old in (path.with_name(prefix + name), path.with_name(other + name)):
            _remove(old)
        final.append(str(path.replace(path.with_name(prefix + name))))
    return row | {"file": final[0], "files": final}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
