"""Check exports: run each export in its runtime, and check that its outputs are close to the original's."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, cast

from alignment.export.checkpoint import Qwen2Checkpoint
from alignment.export.export_row import Measurement
from alignment.export.export_settings import Comparison
from alignment.export.fresh_process import run_job
from alignment.export.gguf_file import require_space
from alignment.export.measure import MeasureJob, OriginalFigures
from alignment.export.texts import HARD_CORPUS

MEASURE = "alignment.export.measure"
SMALL_MODEL = 50_000_000
"""Number of weights below which a model runs on one thread, since more threads would mostly wait for each other."""


@dataclass(frozen=True)
class Thresholds:
    """Limits for the export to one format. Unlike in `LevelLimits`, every limit has a value."""

    max_perplexity_increase: float
    min_top1_agreement: float
    max_kl_divergence: float
    min_greedy_agreement: float = 0.0
    max_pass_at_1_drop: float = 5.0


# These limits are our choice. They are wide enough for small models, which lose most by quantization, and narrow enough
# to catch a broken tensor, a wrong RoPE base or a wrong tokenizer, which have a far larger effect.
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


def thresholds_of(settings: Comparison, level: str) -> Thresholds:
    """Return the limits of `level`: the defaults, overridden by the settings."""
    limits = settings.thresholds.get(level)
    return dataclasses.replace(DEFAULT_THRESHOLDS[level], **(limits.model_dump(exclude_none=True) if limits else {}))


def check_levels(settings: Comparison) -> None:
    """Raise ValueError if the settings have limits for a level that does not exist."""
    for level in settings.thresholds:
        if level not in DEFAULT_THRESHOLDS:
            raise ValueError(f"compare.thresholds has no level {level!r}; choose from {', '.join(DEFAULT_THRESHOLDS)}")


def missed_limits(measured: Measurement, original_perplexity: float, limits: Thresholds) -> list[str]:
    """Return one sentence for each limit that a measurement misses. The list is empty if the measurement passes."""
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
            f"it tokenizes these texts differently from the original: {measured['tokenization_differs_on']}",
        ),
    )
    return [reason for passed, reason in checks if not passed]


def perplexity_increase(perplexity: float, original: float) -> float:
    """Return the percent by which `perplexity` exceeds `original`, or infinity if `perplexity` is not finite."""
    return 100.0 * (perplexity / original - 1.0) if math.isfinite(perplexity) else math.inf


class ExportGate:
    """Compare exports with one original model.

    Use the gate as a context manager. Until the end of the `with` block, a scratch folder holds the original's
    log-probabilities.

    Args:
        checkpoint: The original model.
        texts: Held-out texts.
        settings: Settings of the comparison.
        scratch: Folder in which the scratch folder is made.
        adapter: Folder of a LoRA adapter with which the original is run, or None.

    Raises:
        ValueError: The disk is too full, the original can't be measured, or its perplexity is not finite.
    """

    def __init__(
        self,
        checkpoint: Qwen2Checkpoint,
        texts: list[str],
        settings: Comparison,
        scratch: Path,
        adapter: Path | None = None,
    ) -> None:
        require_space(scratch, (settings.positions + settings.context) * checkpoint.vocabulary_rows * 4)
        self.texts = texts
        self.settings = settings
        self.threads = settings.threads or (1 if checkpoint.weights < SMALL_MODEL else os.cpu_count() or 1)
        self.folder = Path(tempfile.mkdtemp(prefix=".gate-", dir=scratch))
        self._job = MeasureJob(
            texts=texts,
            hard_corpus=list(HARD_CORPUS),
            folder=str(self.folder),
            context=settings.context,
            positions=settings.positions,
            greedy_prompts=settings.greedy_prompts,
            greedy_tokens=settings.greedy_tokens,
            dtype=settings.dtype,
            device=settings.device,
            threads=self.threads,
        )
        try:
            self.reference = self._measure_original(checkpoint, adapter)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _measure_original(self, checkpoint: Qwen2Checkpoint, adapter: Path | None) -> OriginalFigures:
        job = dataclasses.replace(
            self._job, model=str(checkpoint.folder), adapter=None if adapter is None else str(adapter)
        )
        try:
            reference = cast(OriginalFigures, run_job(MEASURE, asdict(job)))
        except RuntimeError as error:
            raise ValueError(f"the original {checkpoint.folder} could not be measured: {error}") from error
        if not math.isfinite(reference["perplexity"]):
            raise ValueError(
                f"the perplexity of {checkpoint.folder} is not finite: its weights hold NaN or infinity. Export another "
                "checkpoint"
            )
        return reference

    def __enter__(self) -> ExportGate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def measure(
        self,
        model: Path,
        level: str,
        runtime: Literal["llama.cpp", "transformers"],
        python: str | None = None,
        adapter: Path | None = None,
    ) -> Measurement:
        """Measure an exported model and compare the figures with the limits of `level`.

        Args:
            model: A GGUF file or a folder.
            level: Name of the limits, see `Target.gate`.
            runtime: Runtime that runs the model.
            python: Interpreter of another environment in which to run the model.
            adapter: LoRA adapter in GGUF form with which the model is run.

        Returns:
            The measurement with `passed` and `reasons`. If the runtime can't load the model, or crashes, no error is
            raised and `passed` is False.
        """
        original = self.reference["perplexity"]
        job = dataclasses.replace(
            self._job,
            runtime=runtime,
            model=str(model),
            reference=self.reference,
            adapter=None if adapter is None else str(adapter),
        )
        try:
            figures = cast(Measurement, run_job(MEASURE, asdict(job), python))
        except RuntimeError as error:
            reasons = [f"{runtime} could not run the export: {error}"]
            return {"original_perplexity": original, "passed": False, "reasons": reasons}
        reasons = missed_limits(figures, original, thresholds_of(self.settings, level))
        figures["perplexity_increase"] = perplexity_increase(figures["perplexity"], original)
        return figures | {"original_perplexity": original, "passed": not reasons, "reasons": reasons}
