"""Making each kind of target: written under a name that says it is unproven, measured, then given its final name."""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignment.export import quantized, runtimes
from alignment.export.adapter import write_adapter
from alignment.export.checkpoint import Checkpoint, open_checkpoint, read_json
from alignment.export.export_settings import Quantize
from alignment.export.export_targets import Target
from alignment.export.fresh_process import run_job
from alignment.export.gate import Gate, limits_of
from alignment.export.gguf_file import Written, write_gguf
from alignment.export.imatrix import read_imatrix
from alignment.export.levels import LEVELS, Level
from alignment.export.pass_rate import pass_at_1
from alignment.rows.row_texts import ModelText

# Names of what has not passed its gate yet, and of what failed it.
UNPROVEN, BROKEN = "unproven-", "broken-"


@dataclass
class Run:
    """What all targets of one export share."""

    checkpoint: Checkpoint
    out: Path
    about: dict[str, Any]
    judge: Gate
    calibration: list[ModelText]
    calibration_tokens: int
    sequence_length: int
    quantize: Quantize
    imatrix: dict[str, np.ndarray] | None = None
    imatrix_calibration: dict[str, Any] | None = None
    """What the importance matrix was made from, where it was made here."""
    split_bytes: int = 0
    seed: int = 0
    benchmark: dict[str, Any] | None = None
    original_pass_at_1: float | None = None
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rows of GGUF levels that exist already, by level."""

    @property
    def name(self) -> str:
        return str(self.about["name"])

    @property
    def threads(self) -> int:
        return int(self.judge.job["threads"])


def make(run: Run, target: Target, adapter: str | Path | None, adapter_base: str | Path | None) -> dict[str, Any]:
    """Make and measure one target; its row."""
    if target.level is not None:
        row = _gguf(run, target.level)
        if target.kind != "gguf" and row["passed"]:
            row = _runtime_folder(run, target, row)
    elif target.kind == "adapter":
        assert adapter is not None
        row = _adapter(run, Path(adapter), adapter_base)
    elif target.kind == "huggingface":
        row = _huggingface(run)
    else:
        row = _quantized(run, target)
    return {"target": target.text} | row


def _gguf(run: Run, level: Level) -> dict[str, Any]:
    if level.name in run.made:
        return run.made[level.name]
    started = time.perf_counter()
    file = run.out / f"{UNPROVEN}{run.name}-{level.name}.gguf"
    written = write_gguf(run.checkpoint, level, file, imatrix=run.imatrix, split_bytes=run.split_bytes, about=run.about)
    row = _gguf_row(run, level, written) | {"seconds": time.perf_counter() - started}
    row |= run.judge.measure(written.files[0], level.name, "llama.cpp")
    run.made[level.name] = _finish(run, row, level.name, "llama.cpp")
    return run.made[level.name]


def _gguf_row(run: Run, level: Level, written: Written) -> dict[str, Any]:
    weighed = run.imatrix is not None and not level.is_float
    row = {
        "level": level.name,
        "file": str(written.files[0]),
        "files": [str(file) for file in written.files],
        "size_bytes": written.size_bytes,
        "bits_per_weight": 8 * written.size_bytes / written.weights,
        "tensor_types": written.types,
        "fallback_tensors": written.fallback_tensors,
        "imatrix": weighed,
    }
    return row | ({"calibration": run.imatrix_calibration} if weighed and run.imatrix_calibration else {})


def _runtime_folder(run: Run, target: Target, row: dict[str, Any]) -> dict[str, Any]:
    """A folder for Ollama or llama.cpp's server around a GGUF that passed."""
    assert target.level is not None
    files = [Path(file) for file in row["files"]]
    folder = run.out / f"{run.name}-{target.kind}-{target.level.name}"
    if target.kind == "ollama":
        runtimes.write_ollama(run.checkpoint, files[0], folder, run.about["license"])
        command = f"ollama create {run.name} -f Modelfile"
    else:
        command = runtimes.write_llama_cpp(run.checkpoint, files, folder, run.name)
    return row | {"file": str(folder), "files": [str(folder)], "command": command}


def _huggingface(run: Run) -> dict[str, Any]:
    folder = run.out / f"{UNPROVEN}{run.name}-huggingface"
    started = time.perf_counter()
    runtimes.write_folder(run.checkpoint, folder, run.name, "")
    row = _folder_row(run, folder) | {"seconds": time.perf_counter() - started}
    row |= run.judge.measure(folder, "huggingface", "transformers")
    row["command"] = runtimes.vllm_command(run.checkpoint, run.name)
    return _finish(run, row, "huggingface", "transformers")


def _quantized(run: Run, target: Target) -> dict[str, Any]:
    started = time.perf_counter()
    folder = run.out / f"{UNPROVEN}{run.name}-{target.text}"
    done = quantized.make(
        run.checkpoint,
        target,
        folder,
        run.calibration,
        run.quantize,
        tokens=run.calibration_tokens,
        sequence_length=run.sequence_length,
        threads=run.threads,
        seed=run.seed,
    )
    runtimes.write_serve_script(folder, runtimes.vllm_command(run.checkpoint, run.name))
    row = _folder_row(run, folder) | {"seconds": time.perf_counter() - started, "calibration": done.calibration}
    row |= run.judge.measure(folder, target.text, "transformers", done.python)
    row |= {"command": runtimes.vllm_command(run.checkpoint, run.name), "engine": run.quantize.engine}
    return _finish(run, row, target.text, "transformers", done.python)


def _folder_row(run: Run, folder: Path) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    bits = 8 * size / run.checkpoint.weights
    return {"file": str(folder), "files": [str(folder)], "size_bytes": size, "bits_per_weight": bits}


def _adapter(run: Run, adapter: Path, base: str | Path | None) -> dict[str, Any]:
    """The adapter as PEFT wrote it and as GGUF, proven in llama.cpp over its base model against transformers."""
    if not (adapter / "adapter_config.json").is_file():
        raise ValueError(f"{adapter} has no adapter_config.json: it is no PEFT adapter")
    started = time.perf_counter()
    checkpoint = open_checkpoint(base or read_json(adapter / "adapter_config.json")["base_model_name_or_path"])
    file = write_adapter(adapter, checkpoint, run.out / f"{UNPROVEN}{run.name}-lora.gguf")
    folder = run.out / f"{UNPROVEN}{run.name}-lora"
    runtimes.copy_adapter(adapter, folder)
    seconds = time.perf_counter() - started
    # The base goes to GGUF without loss, so that what is measured is the adapter.
    stored = next(iter(checkpoint.tensors.values())).dtype.lower()
    with Gate(checkpoint, run.judge.job["texts"], run.judge.settings, run.out, adapter) as judge:
        base_file = write_gguf(checkpoint, LEVELS.get(stored, LEVELS["f32"]), judge.folder / "base.gguf").files[0]
        measured = judge.measure(base_file, "adapter", "llama.cpp", adapter=file)
    row = {"file": str(file), "files": [str(file), str(folder)], "size_bytes": file.stat().st_size, "seconds": seconds}
    return _finish(dataclasses.replace(run, benchmark=None), row | measured, "adapter", "llama.cpp")


def make_imatrix(run: Run) -> None:
    """Make the importance matrix from the run's calibration texts; it stays in the export's folder."""
    file = run.out / f"{run.name}-imatrix.gguf"
    settings = run.judge.settings
    job = {
        "model": str(run.checkpoint.folder),
        "texts": [(text.text, text.form) for text in run.calibration],
        "context": settings.context,
        "tokens": run.calibration_tokens,
        "dtype": settings.dtype,
        "device": settings.device,
        "threads": run.threads,
        "out": str(file),
    }
    try:
        run.imatrix_calibration = run_job("alignment.export.imatrix", job)
    except RuntimeError as error:
        raise ValueError(f"no importance matrix could be made: {error}") from error
    run.imatrix = read_imatrix(file)


def _finish(run: Run, row: dict[str, Any], level: str, runtime: str, python: str | None = None) -> dict[str, Any]:
    """Give what was measured its final name: its own where it passed, `broken-` before it where it did not."""
    if run.benchmark is not None and row["passed"]:
        row = row | _benchmark(run, Path(row["file"]), level, runtime, python)
    prefix, other = ("", BROKEN) if row["passed"] else (BROKEN, "")
    settled = []
    for path in map(Path, row["files"]):
        name = path.name.removeprefix(UNPROVEN)
        for old in (path.with_name(prefix + name), path.with_name(other + name)):
            _remove(old)
        settled.append(str(path.replace(path.with_name(prefix + name))))
    return row | {"file": settled[0], "files": settled}


def _benchmark(run: Run, model: Path, level: str, runtime: str, python: str | None) -> dict[str, Any]:
    """pass@1 beside the original's, and whether it fell too far."""
    assert run.benchmark is not None and run.original_pass_at_1 is not None
    out = run.out / "benchmark" / level
    found = pass_at_1(
        model, run.checkpoint.folder, run.benchmark, out, runtime=runtime, threads=run.threads, python=python
    )
    row = {"pass_at_1": found, "original_pass_at_1": run.original_pass_at_1}
    allowed = limits_of(run.judge.settings, level).max_pass_at_1_drop
    if run.original_pass_at_1 - found > allowed:
        reason = f"pass@1 {found:.1f}%, the original {run.original_pass_at_1:.1f}% (may fall by {allowed:g} points)"
        return row | {"passed": False, "reasons": [reason]}
    return row


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write a text file under its name only when all of it is there."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
