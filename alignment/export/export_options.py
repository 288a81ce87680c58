"""Options of one call of `export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.export.export_settings import (
    CALIBRATION_FIM,
    CALIBRATION_SEQUENCE_LENGTH,
    CALIBRATION_TOKENS,
    Calibration,
    Comparison,
    Push,
    Quantize,
)
from alignment.export.texts import read_rows
from alignment.grading import SandboxSettings
from alignment.rows.kinds import Row

Rows = str | Path | Sequence[Row]
"""A JSONL or Parquet file, a folder of such files, or the rows themselves."""


@dataclass(frozen=True)
class CalibrationRows:
    """Rows for importance matrices, GPTQ and AWQ."""

    rows: Rows
    tokens: int = CALIBRATION_TOKENS
    """Tokens in total, at most."""
    sequence_length: int = CALIBRATION_SEQUENCE_LENGTH
    """Tokens of one calibration sample of GPTQ and AWQ."""
    fim: float = CALIBRATION_FIM
    """Share of the documents that become fill-in-the-middle."""

    @classmethod
    def from_settings(cls, settings: Calibration) -> CalibrationRows:
        """Read the rows that a recipe's `calibration:` names."""
        rows = [row for source in settings.data for row in read_rows(source.data.path(), source.rows)]
        return cls(rows, settings.tokens, settings.sequence_length, settings.fim)


@dataclass(frozen=True)
class PassRateBenchmark:
    """A benchmark whose pass@1 is measured for the original and for every export."""

    request: dict[str, Any]
    """An entry of a recipe's `evaluate:`."""
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    """How the completions run."""
    seed: int = 0


@dataclass(frozen=True)
class ExportOptions:
    """How `export` compares, calibrates, quantizes and describes a model."""

    name: str | None = None
    """Name in file names, metadata and the model card; by default the model folder's name."""
    license: str | None = None
    """Licence for metadata and the model card, for example `apache-2.0`."""
    base_model: str | None = None
    """`owner/name` of the base model, for metadata and the model card."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Key-value pairs for metadata and the model card."""
    held_out: Rows | None = None
    """Rows to compare on; by default source code of Python's standard library."""
    comparison: Comparison = field(default_factory=Comparison)
    """How exports are compared with the original."""
    benchmark: PassRateBenchmark | None = None
    """Also measure pass@1 on this benchmark."""
    calibration: CalibrationRows | None = None
    """Required by GPTQ, AWQ and `make_imatrix`."""
    make_imatrix: bool = False
    """Make an importance matrix from `calibration`."""
    imatrix_file: Path | None = None
    """Use this importance matrix, a file in llama.cpp's GGUF form."""
    quantize: Quantize = field(default_factory=Quantize)
    """Settings of GPTQ and AWQ."""
    split_bytes: int = 0
    """Write GGUF files in parts of at most about this size; 0 writes one file."""
    adapter: Path | None = None
    """Folder of the LoRA adapter that the model was merged from; required by the target `adapter`."""
    adapter_base: str | Path | None = None
    """The adapter's base model; by default the one that its config names."""
    push: Push | None = None
    """Where to upload what passed. Nothing leaves the machine without it."""
    seed: int = 0
    """Seed of the order of the calibration rows, their FIM gaps, and GPTQ and AWQ."""
