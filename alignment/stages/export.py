"""Exports the chain's model, each format compared with the original before it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment.logs import get_logger
from alignment.recipe import ExportStage, SandboxSettings
from alignment.recipe.stage_request import Request

logger = get_logger(__name__)


def run(request: Request) -> dict[str, Any]:
    """Export to all formats of the stage. Raises ValueError when one breaks its gate; what was made stays."""
    from alignment.export import export
    from alignment.export.card import said, summary

    assert request.model is not None
    stage: ExportStage = request.stage
    model = model_folder(request)
    rows = export(
        model,
        stage.formats,
        request.out,
        **arguments(stage, request.sandbox, request.seed),
        name=request.recipe,
        adapter=model.parent / "adapter" if "adapter" in stage.formats else None,
        provenance={"recipe": request.recipe, "stage": request.model_stage or "", "fingerprint": request.fingerprint},
    )
    for row in rows:
        logger.info(f"      {said(row)}")
    if broken := [row for row in rows if not row["passed"]]:
        names = ", ".join(row["target"] for row in broken)
        raise ValueError(
            f"{names} differ too much from the original (see above). The files are kept as broken-*; allow more with "
            "`compare.thresholds`, or leave the format out."
        )
    return {"exports": [summary(row) for row in rows], "device": "cpu"}


def arguments(stage: ExportStage, sandbox: SandboxSettings, seed: int) -> dict[str, Any]:
    """What `export` is called with, for a stage whose paths are absolute."""
    from alignment.recipe.export_checks import comparison

    benchmark = None
    if stage.benchmark is not None:
        request = stage.benchmark.model_dump(mode="json", exclude={"allow_overlap"})  # a matter of training
        benchmark = {"request": request, "sandbox": sandbox.model_dump(mode="json"), "seed": seed}
    return {
        "held_out": stage.data.path() if stage.data is not None else None,
        "gate": comparison(stage),
        "benchmark": benchmark,
        "calibration": stage.calibration,
        "imatrix": stage.imatrix_file.path() if stage.imatrix_file is not None else stage.imatrix,
        "quantize": stage.quantize,
        "split_bytes": stage.split_bytes or 0,
        "license": stage.license,
        "base_model": stage.base_model,
        "push": stage.push,
        "seed": seed,
    }


def model_folder(request: Request) -> Path:
    """The folder of the model to export; one on the hub is fetched, random weights are written down."""
    assert request.model is not None
    if request.model.get("init"):
        from alignment.models import loading

        folder = request.out / "model"
        loading.write_random(request.model, loading.load_tokenizer(request.model), request.seed, folder)
        return folder
    path = Path(request.model["path"])
    if not path.is_dir() and len(path.parts) == 2:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(path), revision=request.model.get("revision")))
    return path
