"""Export a model folder to several formats, and measure each export against the original."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from alignment.export import makers
from alignment.export.card import model_card, run_commands
from alignment.export.checkpoint import Qwen2Checkpoint, open_checkpoint
from alignment.export.engine_environment import engine_python
from alignment.export.export_options import CalibrationRows, ExportOptions
from alignment.export.export_row import ExportRow
from alignment.export.export_targets import Target, missing_packages, parse_targets
from alignment.export.gate import ExportGate, check_levels
from alignment.export.gguf_metadata import ModelDescription
from alignment.export.imatrix import read_imatrix
from alignment.export.makers import ExportRun
from alignment.export.pass_rate import pass_at_1
from alignment.export.publish import DOCUMENTS, publish
from alignment.export.texts import calibration_texts, excerpts, read_rows, standard_library_texts
from alignment.files import write_text
from alignment.rows.row_texts import ModelText, model_text

HELD_OUT_ROWS = 10_000
"""Largest number of held-out rows that are read."""


def export(
    model_path: str | Path, targets: Sequence[str], out_dir: str | Path, options: ExportOptions | None = None
) -> list[ExportRow]:
    """Export a Qwen2 model and compare each export with the original.

    The returned rows are also written to `out_dir/export.json`, and to the table of the model card `out_dir/README.md`.
    If a target misses its limits, no error is raised; its files are kept under names that begin with `broken-`.

    Args:
        model_path: Folder of the model.
        targets: Names of formats, see `parse_targets`.
        out_dir: Folder for the files.
        options: How to compare, calibrate, quantize and describe the model.

    Returns:
        One row per target, in the order of `targets`.

    Raises:
        ValueError: The options, the model folder or the output folder are wrong, a package is missing, or the disk is
            full. If possible, the error is raised before any long work.
    """
    options = options or ExportOptions()
    parsed = parse_targets(targets)
    _check_options(options)
    calibration = _calibration_texts(options.calibration, options.seed)
    held_out = [model_text(row).text for row in read_rows(options.held_out, HELD_OUT_ROWS)]
    imatrix = read_imatrix(options.imatrix_file) if options.imatrix_file is not None else None
    checkpoint = open_checkpoint(model_path)
    name = options.name or checkpoint.folder.resolve().name
    description = ModelDescription(name, options.license, options.base_model, options.provenance)
    out = Path(out_dir)
    _check_targets(parsed, checkpoint, options, has_calibration=bool(calibration))
    _check_output(out, name, checkpoint)
    if any(target.is_calibrated for target in parsed):
        engine_python(options.quantize.engine)  # report an engine that can't be installed before any long work
    out.mkdir(parents=True, exist_ok=True)
    # A token of code has about four characters: each excerpt fills about one window.
    compared = excerpts(held_out, 4 * options.comparison.context, options.seed) or standard_library_texts()
    with ExportGate(checkpoint, compared, options.comparison, out) as gate:
        run = ExportRun(checkpoint, out, options, description, gate, calibration, imatrix)
        rows = _make_all(run, parsed)
    _write_cards(
        run, parsed, rows, f"{len(held_out)} held-out rows" if held_out else "code of Python's standard library"
    )
    if options.push is not None:
        publish(out, rows, options.push)
    return rows


def _make_all(run: ExportRun, targets: Sequence[Target]) -> list[ExportRow]:
    """Make the targets in order. After each target, write all rows so far to export.json."""
    if run.options.benchmark is not None:
        folder = run.checkpoint.folder
        run.original_pass_at_1 = pass_at_1(
            folder,
            folder,
            run.options.benchmark,
            run.out / "benchmark" / "original",
            runtime="transformers",
            threads=run.gate.threads,
        )
    if run.options.make_imatrix:
        makers.make_imatrix(run)
    rows: list[ExportRow] = []
    for target in targets:
        rows.append(makers.make_target(run, target))
        write_text(run.out / "export.json", json.dumps(rows, indent=1, ensure_ascii=False))
    return rows


def _write_cards(run: ExportRun, targets: Sequence[Target], rows: list[ExportRow], measured_on: str) -> None:
    """Write the model card to the output folder, and to every exported model folder that passed."""
    commands = run_commands(run.checkpoint, run.name, run.out, rows)
    card = model_card(
        run.description, rows, measured_on=measured_on, commands=commands, sections=run.options.card_sections
    )
    folders = {run.out: [Path(file) for row in rows for file in row["files"] if row["passed"]]}
    for target, row in zip(targets, rows, strict=True):
        if target.kind in ("huggingface", "gptq", "awq", "llama.cpp") and row["passed"]:
            folders[Path(row["file"])] = [Path(row["file"])]
    for folder, paths in folders.items():
        write_text(folder / "README.md", card)
        if run.options.documents is not None:
            files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
            files = [file for file in files if file.is_file() and file.name not in DOCUMENTS]
            for name, text in run.options.documents(folder, files).items():
                write_text(folder / name, text)


def _calibration_texts(calibration: CalibrationRows | None, seed: int) -> list[ModelText]:
    """Return the texts of the calibration rows, in a seeded random order."""
    if calibration is None:
        return []
    rows = read_rows(calibration.rows)
    random.Random(seed).shuffle(rows)
    return calibration_texts(rows, seed, calibration.fim)


def _check_options(options: ExportOptions) -> None:
    check_levels(options.comparison)
    if message := options.quantize.contradiction():
        raise ValueError(f"quantize.act_order: {message}")


def _check_targets(
    targets: Sequence[Target], checkpoint: Qwen2Checkpoint, options: ExportOptions, *, has_calibration: bool
) -> None:
    """Raise ValueError if packages or options that the targets need are missing, or weights are not finite, or the
    targets are not supported for the model's architecture.
    """
    if checkpoint.architecture != "qwen2" and (other := [target.text for target in targets if target.kind != "gguf"]):
        raise ValueError(
            f"{', '.join(other)}: {checkpoint.architecture} models can be exported to GGUF levels only, such as q8_0: the "
            "other formats have files with Qwen2.5-Coder's prompts"
        )
    if message := missing_packages(targets):
        raise ValueError(message)
    if any(target.kind == "adapter" for target in targets) and options.adapter is None:
        raise ValueError("the target 'adapter' needs the adapter's folder: set `adapter`")
    if (options.make_imatrix or any(target.is_calibrated for target in targets)) and not has_calibration:
        raise ValueError("importance matrices, GPTQ and AWQ need rows to calibrate on: set `calibration`")
    if options.split_bytes and any(target.kind == "ollama" for target in targets):
        raise ValueError("Ollama needs a single GGUF file: remove `split_bytes`, or the target 'ollama'")
    if any(not target.is_gguf for target in targets):
        checkpoint.require_finite()


def _check_output(out: Path, name: str, checkpoint: Qwen2Checkpoint) -> None:
    """Raise ValueError if the export would replace the model, or files that are not from an older export."""
    if name != Path(name).name or name.startswith("."):
        raise ValueError(f"the name {name!r} is part of file names: it cannot contain slashes or start with a dot")
    model, folder = checkpoint.folder.resolve(), out.resolve()
    if model == folder or (model.parent == folder and model.name.startswith(f"{name}-")):
        raise ValueError(
            f"the export to {out} would replace the model {checkpoint.folder}: choose another output folder"
        )
    if (out / "README.md").exists() and not (out / "export.json").exists():
        raise ValueError(f"{out} holds a README.md that is not from an export: choose another output folder")
