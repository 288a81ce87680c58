"""Export a model to GGUF, GPTQ, AWQ or adapter files, and compare each exported format with the original model.

This stage uses no TRL trainer. The artifact gets a folder or file per format, a model card, and the results of the
comparisons.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from alignment.export import CalibrationRows, ExportOptions, PassRateBenchmark, export
from alignment.export.card import row_line, summary
from alignment.export.export_settings import Quantize
from alignment.logs import get_logger
from alignment.models.source import ModelSource
from alignment.provenance.export_documents import with_documents
from alignment.provenance.lineage import unfinished
from alignment.recipe import ExportStage, SandboxSettings
from alignment.recipe.export_checks import comparison
from alignment.recipe.stage_request import StageRequest

logger = get_logger(__name__)


def run(request: StageRequest) -> dict[str, Any]:
    """Export to all formats of the stage; see `alignment.recipe.ExportStage` for the settings.

    Raises:
        ValueError: a format differs from the original by more than its thresholds allow. The format's files are kept,
            under names that begin with `broken-`.
    """
    stage = request.stage
    assert request.model is not None and isinstance(stage, ExportStage)
    model = _model_folder(request.model, request.seed, request.out)
    options = replace(
        export_options(stage, request.sandbox, request.seed),
        name=request.recipe,
        adapter=model.parent / "adapter" if "adapter" in stage.formats else None,
        provenance={"recipe": request.recipe, "stage": request.model_stage or "", "fingerprint": request.fingerprint},
    )
    rows = export(model, stage.formats, request.out, with_documents(options, unfinished(request), model))
    for row in rows:
        logger.info("      %s", row_line(row))
    if broken := [row["target"] for row in rows if not row["passed"]]:
        raise ValueError(
            f"{', '.join(broken)} differ too much from the original (see above). The files are kept as broken-*. Allow "
            "more in `compare.thresholds`, or remove the format."
        )
    return {"exports": [summary(row) for row in rows], "device": "cpu"}


def export_options(stage: ExportStage, sandbox: SandboxSettings, seed: int) -> ExportOptions:
    """Translate the settings of an export stage, whose paths are absolute, into the options of `export`."""
    benchmark = None
    if stage.benchmark is not None:
        # `allow_overlap` concerns the screening of training rows, not the measurement.
        benchmark = PassRateBenchmark(stage.benchmark.model_dump(mode="json", exclude={"allow_overlap"}), sandbox, seed)
    return ExportOptions(
        license=stage.license,
        base_model=stage.base_model,
        held_out=stage.data.path() if stage.data is not None else None,
        comparison=comparison(stage),
        benchmark=benchmark,
        calibration=CalibrationRows.from_settings(stage.calibration) if stage.calibration is not None else None,
        make_imatrix=stage.imatrix,
        imatrix_file=stage.imatrix_file.path() if stage.imatrix_file is not None else None,
        quantize=stage.quantize or Quantize(),
        split_bytes=stage.split_bytes or 0,
        push=stage.push,
        seed=seed,
    )


def _model_folder(source: ModelSource, seed: int, out: Path) -> Path:
    """Return the folder of the model to export.

    A model on the hub is downloaded first. Random weights are written to `out/model` first.
    """
    if source.init is not None:
        from alignment.models import loading

        return Path(loading.checkpoint_of(source, seed, out / "model"))
    path = Path(source.checkpoint)
    if not path.is_dir() and len(path.parts) == 2:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(path), revision=source.revision))
    return path
