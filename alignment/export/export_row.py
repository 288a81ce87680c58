"""Figures of an export: one row per target, as they are written to `export.json`."""

from __future__ import annotations

from typing import TypedDict


class CalibrationUse(TypedDict):
    """The calibration data that was used."""

    rows: dict[str, int]
    """Number of rows by form: plain, chat, fim, repository."""
    samples: int
    tokens: int


class Measurement(TypedDict, total=False):
    """Figures of an exported model against the original, and the gate's verdict.

    If the runtime could not run the export, only `original_perplexity`, `passed` and `reasons` are present.
    """

    passed: bool
    reasons: list[str]
    """Every limit that was missed, as a sentence."""
    original_perplexity: float
    perplexity: float
    perplexity_increase: float
    """Percent by which `perplexity` exceeds `original_perplexity`."""
    top1_agreement: float
    """Percent of positions at which the most probable token is the same."""
    kl_divergence: float
    """Mean KL divergence of the export's distribution from the original's, in nats per position."""
    greedy_agreement: float
    """Percent of greedy tokens before the first that differs."""
    tokenization_equal: bool
    """Whether the runtime splits every text of `texts.HARD_CORPUS` as the original tokenizer does."""
    tokenization_differs_on: list[str]
    """Up to three texts that are split differently."""
    positions: int
    """Scored positions."""
    prompt_tokens_per_second: float
    tokens_per_second: float | None
    """Speed of greedy generation; None without greedy prompts."""


class ExportRow(Measurement, total=False):
    """One target: what was written, and its figures."""

    target: str
    """The target as it was named in the call."""
    level: str
    """GGUF level."""
    file: str
    """The file or folder; the first part of a split GGUF."""
    files: list[str]
    """All files and folders of the target."""
    size_bytes: int
    bits_per_weight: float
    tensor_types: dict[str, int]
    """Number of tensors by GGUF type."""
    fallback_tensors: int
    """Tensors with a larger type than the level asks for, because their rows do not fit its blocks."""
    imatrix: bool
    """Whether an importance matrix was used."""
    calibration: CalibrationUse
    command: str
    """Command that serves a folder, from inside the folder."""
    engine: str
    """Engine of GPTQ or AWQ."""
    seconds: float
    """Time to write the target, without its measurement."""
    pass_at_1: float
    """Percent, if a benchmark was given."""
    original_pass_at_1: float
