"""Types of the rows in `export.json`: one row per target, with files and measurements."""

from __future__ import annotations

from typing import TypedDict


class CalibrationUse(TypedDict):
    """How many rows and tokens of the calibration data were used."""

    rows: dict[str, int]
    """Form (plain, chat, fim, repository) -> number of rows."""
    samples: int
    tokens: int


class Measurement(TypedDict, total=False):
    """Comparison of an exported model with the original, and whether the export passed.

    If the runtime could not run the export, only `original_perplexity`, `passed` and `reasons` are present.
    """

    passed: bool
    reasons: list[str]
    """One sentence for each limit that the export missed."""
    original_perplexity: float
    perplexity: float
    perplexity_increase: float
    """Percent by which `perplexity` exceeds `original_perplexity`."""
    top1_agreement: float
    """Percent of positions at which export and original have the same most probable token."""
    kl_divergence: float
    """Mean KL divergence of the export's distribution from the original's, in nats per position."""
    greedy_agreement: float
    """Percent of greedily generated tokens that come before the first difference from the original."""
    tokenization_equal: bool
    """Whether the runtime splits every text of `texts.HARD_CORPUS` as the original tokenizer does."""
    tokenization_differs_on: list[str]
    """Up to three texts that the runtime splits differently."""
    positions: int
    """Number of scored positions."""
    prompt_tokens_per_second: float
    tokens_per_second: float | None
    """Speed of greedy generation, or None without greedy prompts."""


class ExportRow(Measurement, total=False):
    """One exported target: its files, and the comparison with the original."""

    target: str
    """Name of the target, as given in the call."""
    level: str
    """GGUF level, for example `q4_K_M`."""
    file: str
    """The exported file or folder. For a split GGUF, the first part."""
    files: list[str]
    """All files and folders of the target."""
    size_bytes: int
    bits_per_weight: float
    tensor_types: dict[str, int]
    """GGUF type -> number of tensors."""
    fallback_tensors: int
    """Number of tensors with a larger type than the level prescribes.

    The rows of these tensors can't be divided into the blocks of the prescribed type.
    """
    imatrix: bool
    """Whether an importance matrix was used."""
    calibration: CalibrationUse
    command: str
    """Command that serves the folder. It must be run inside the folder."""
    engine: str
    """Engine that quantized with GPTQ or AWQ."""
    seconds: float
    """Time to write the target, without the comparison."""
    pass_at_1: float
    """pass@1 in percent, if a benchmark was given."""
    original_pass_at_1: float
