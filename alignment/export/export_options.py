"""Options for a call of `alignment.export.export`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

DocumentMaker = Callable[[Path, Sequence[Path]], Mapping[str, str]]
"""A function of a folder and its model files. It returns further documents for the folder: name of the file -> text."""

Rows = str | Path | Sequence[Row]
"""A JSONL or Parquet file, a folder of such files, or the rows themselves."""


@dataclass(frozen=True)
class CalibrationRows:
    """Rows for the calibration of importance matrices, GPTQ and AWQ."""

    rows: Rows
    tokens: int = CALIBRATION_TOKENS
    """Largest number of tokens in total."""
    sequence_length: int = CALIBRATION_SEQUENCE_LENGTH
    """Number of tokens in one calibration sample of GPTQ and AWQ."""
    fim: float = CALIBRATION_FIM
    """Share (0 to 1) of the documents that become fill-in-the-middle documents."""

    @classmethod
    def from_settings(cls, settings: Calibration) -> CalibrationRows:
        """Read the rows of all sources in the `calibration:` of a recipe."""
        rows = [row for source in settings.data for row in read_rows(source.data.path(), source.rows)]
        return cls(rows, settings.tokens, settings.sequence_length, settings.fim)


@dataclass(frozen=True)
class PassRateBenchmark:
    """A benchmark on which pass@1 of the original and of every export is measured."""

    request: dict[str, Any]
    """Settings of the benchmark, in the form of an entry of a recipe's `evaluate:`."""
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    """Where programs that the model wrote run, and with which limits."""
    seed: int = 0


@dataclass(frozen=True)
class ExportOptions:
    """How `export` compares, calibrates, quantizes and describes a model."""

    name: str | None = None
    """Name of the model in file names, metadata and the model card; by default the name of the model's folder."""
    license: str | None = None
    """Licence for metadata and the model card, for example `apache-2.0`."""
    base_model: str | None = None
    """`owner/name` of the base model, for metadata and the model card."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Key-value pairs for metadata and the model card."""
    card_sections: str = ""
    """Further sections of the model card, as Markdown."""
    documents: DocumentMaker | None = None
    """Makes documents that are written beside the model card."""
    held_out: Rows | None = None
    """Rows on which exports are compared; by default source code of Python's standard library."""
    comparison: Comparison = field(default_factory=Comparison)
    """How exports are compared with the original."""
    benchmark: PassRateBenchmark | None = None
    """Benchmark on which pass@1 is measured in addition, or None."""
    calibration: CalibrationRows | None = None
    """Calibration rows. Required by GPTQ, AWQ and `make_imatrix`."""
    make_imatrix: bool = False
    """Whether to make an importance matrix from `calibration`."""
    imatrix_file: Path | None = None
    """Importance matrix to use: a GGUF file of llama.cpp's `llama-imatrix`."""
    quantize: Quantize = field(default_factory=Quantize)
    """Settings of GPTQ and AWQ."""
    split_bytes: int = 0
    """Largest size of the parts of a GGUF file, in bytes (approximate). 0 writes one file."""
    adapter: Path | None = None
    """Folder of the LoRA adapter that was merged into the model. Required by the target `adapter`."""
    adapter_base: str | Path | None = None
    """The adapter's base model; by default the model that the adapter's config names."""
    push: Push | None = None
    """Repository to upload exports to if all of them passed. Without it nothing is uploaded."""
    seed: int = 0
    """Seed for the order of calibration rows, for FIM gaps, and for GPTQ and AWQ."""
