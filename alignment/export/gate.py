"""The gate: an export counts only when its real runtime, in a fresh process, agrees with the original."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from alignment.export.checkpoint import Checkpoint
from alignment.export.export_settings import Comparison, read_settings
from alignment.export.fresh_process import run_job
from alignment.export.gguf_file import require_space
from alignment.export.texts import HARD_CORPUS


@dataclass(frozen=True)
class Thresholds:
    """What an export must reach: `LevelLimits` with nothing left open."""

    max_perplexity_increase: float
    min_top1_agreement: float
    max_kl_divergence: float
    min_greedy_agreement: float = 0.0
    max_pass_at_1_drop: float = 5.0


MEASURE = "alignment.export.measure"
SMALL_MODEL = 50_000_000

# Ours to choose: wide enough for small models (they suffer most from quantization), tight enough to catch a broken
# tensor, a wrong rope base or a wrong tokenizer, which cost far more.
DEFAULT_THRESHOLDS = {
    "f32": Thresholds(0.1, 99.9, 1e-4),
    "f16": Thresholds(0.5, 99.0, 1e-3),
    "bf16": Thresholds(1.0, 97.0, 0.01),
    "q8_0": Thresholds(1.0, 96.0, 0.02),
    "q6_K": Thresholds(2.0, 92.0, 0.05),
    "q5_K_M": Thresholds(4.0, 90.0, 0.1),
    "q5_0": Thresholds(5.0, 88.0, 0.12),
    "q4_K_M": Thresholds(8.0, 85.0, 0.2),
    "q4_0": Thresholds(12.0, 80.0, 0.3),
    "q3_K_M": Thresholds(20.0, 72.0, 0.5, max_pass_at_1_drop=10.0),
    "q2_K": Thresholds(60.0, 55.0, 1.2, max_pass_at_1_drop=30.0),
    "huggingface": Thresholds(0.1, 99.9, 1e-4),
    "adapter": Thresholds(1.0, 97.0, 0.01),
    "gptq-int8": Thresholds(2.0, 92.0, 0.05),
    "gptq-int4": Thresholds(15.0, 78.0, 0.35),
    "awq-int4": Thresholds(15.0, 78.0, 0.35),
}


def limits_of(settings: Comparison, level: str) -> Thresholds:
    """The demands on `level`: its defaults, and what the settings say otherwise."""
    given = settings.thresholds.get(level)
    return dataclasses.replace(DEFAULT_THRESHOLDS[level], **(given.model_dump(exclude_none=True) if given else {}))


def read_comparison(given: Comparison | Mapping[str, Any] | None) -> Comparison:
    """Settings from plain values; ValueError names a key or a level that does not exist."""
    made = read_settings(Comparison, "the gate", given)
    for level in made.thresholds:
        if level not in DEFAULT_THRESHOLDS:
            raise ValueError(f"the gate has no level {level!r}; there are {', '.join(DEFAULT_THRESHOLDS)}")
    return made


def reasons_to_refuse(measured: dict[str, Any], original_perplexity: float, limits: Thresholds) -> list[str]:
    """Every demand that was missed, as a sentence; empty where the export passed."""
    increase = perplexity_increase(measured["perplexity"], original_perplexity)
    checks = (
        (
            increase <= limits.max_perplexity_increase,
            f"perplexity {increase:+.2f}% (limit {limits.max_perplexity_increase:+g}%)",
        ),
        (
            measured["top1_agreement"] >= limits.min_top1_agreement,
            f"top-1 agreement {measured['top1_agreement']:.2f}% (at least {limits.min_top1_agreement:g}%)",
        ),
        (
            measured["kl_divergence"] <= limits.max_kl_divergence,
            f"KL divergence {measured['kl_divergence']:.4g} (limit {limits.max_kl_divergence:g})",
        ),
        (
            measured["greedy_agreement"] >= limits.min_greedy_agreement,
            f"greedy agreement {measured['greedy_agreement']:.1f}% (at least {limits.min_greedy_agreement:g}%)",
        ),
        (
            measured["tokenization_equal"],
            f"text is split into other tokens than the original's: {measured['tokenization_differs_on']}",
        ),
    )
    return [reason for passed, reason in checks if not passed]


def perplexity_increase(perplexity: float, original: float) -> float:
    """Percent by which `perplexity` exceeds `original`; infinite where it is not finite."""
    return 100.0 * (perplexity / original - 1.0) if math.isfinite(perplexity) else math.inf


class Gate:
    """Compares exports with one original. A context manager: the reference lives in a scratch folder until it ends."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        texts: list[str],
        settings: Comparison,
        scratch: Path,
        adapter: Path | None = None,
    ) -> None:
        require_space(scratch, (settings.positions + settings.context) * checkpoint.vocabulary_rows * 4)
        self.settings = settings
        self.folder = Path(tempfile.mkdtemp(prefix=".gate-", dir=scratch))
        self.job: dict[str, Any] = {
            "texts": texts,
            "hard_corpus": list(HARD_CORPUS),
            "folder": str(self.folder),
            "context": settings.context,
            "positions": settings.positions,
            "greedy_prompts": settings.greedy_prompts,
            "greedy_tokens": settings.greedy_tokens,
            "dtype": settings.dtype,
            "device": settings.device,
            "threads": settings.threads or (1 if checkpoint.weights < SMALL_MODEL else os.cpu_count() or 1),
        }
        original = {"engine": "transformers", "model": str(checkpoint.folder), "adapter": adapter and str(adapter)}
        try:
            self.reference = run_job(MEASURE, self.job | original)
        except RuntimeError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise ValueError(f"the original {checkpoint.folder} could not be measured: {error}") from error
        if not math.isfinite(self.reference["perplexity"]):
            shutil.rmtree(self.folder, ignore_errors=True)
            raise ValueError(f"{checkpoint.folder} gives no finite perplexity: its weights hold NaN or infinity")

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def measure(
        self, model: Path, level: str, engine: str, python: str | None = None, adapter: Path | None = None
    ) -> dict[str, Any]:
        """Figures of an exported model, with `passed` and `reasons`.

        A runtime that can't load the model, or dies of it, is a failed gate and no exception. `python` names the
        interpreter of another environment, `adapter` a LoRA adapter in GGUF form to run the model with.
        """
        original = self.reference["perplexity"]
        job = {"engine": engine, "model": str(model), "reference": self.reference, "adapter": adapter and str(adapter)}
        try:
            measured = run_job(MEASURE, self.job | job, python)
            reasons = reasons_to_refuse(measured, original, limits_of(self.settings, level))
        except RuntimeError as error:
            measured, reasons = {}, [f"{engine} could not run it: {error}"]
        if "perplexity" in measured:
            measured["perplexity_increase"] = perplexity_increase(measured["perplexity"], original)
        return measured | {"original_perplexity": original, "passed": not reasons, "reasons": reasons}
