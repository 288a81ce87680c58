"""Exports the chain's model, each format compared with the original before it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment.console import say
from alignment.stages.request import Request


def run(request: Request) -> dict[str, Any]:
    """Export to all formats of the stage. Raises ValueError when one breaks its gate; what was made stays."""
    from alignment.export import export

    assert request.model is not None
    stage = request.stage
    thresholds = {
        name.removeprefix("gguf:"): {"max_perplexity_increase": change}
        for name, change in stage.max_perplexity_change.items()
    }
    rows = export(
        request.model["path"],
        stage.formats,
        request.out,
        held_out=Path(stage.data) if stage.data else None,
        gate={"thresholds": thresholds},
        name=request.recipe,
        provenance={"recipe": request.recipe, "stage": request.model_stage or "", "fingerprint": request.fingerprint},
        seed=request.seed,
    )
    broken = [row for row in rows if not row["passed"]]
    for row in rows:
        verdict = "ok" if row["passed"] else "BROKEN: " + "; ".join(row["reasons"])
        say(
            f"      {row['target']}: {row['size_bytes'] / 1e6:.1f} MB, perplexity {row['perplexity']:.4f} "
            f"(original {row['original_perplexity']:.4f}), {verdict}"
        )
    if broken:
        names = ", ".join(row["target"] for row in broken)
        raise ValueError(
            f"{names} differ too much from the original (see above). The files are kept as broken-*; allow more with "
            "`max_perplexity_change`, or leave the format out."
        )
    keys = ("target", "size_bytes", "perplexity", "original_perplexity", "top1_agreement", "kl_divergence", "passed")
    return {"exports": [{key: row[key] for key in keys} for row in rows], "device": "cpu"}
