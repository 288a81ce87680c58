"""Export trained models to GGUF, GPTQ, AWQ and runtime folders, and compare each export with the original model.

    from alignment.export import ExportOptions, export

    rows = export("model", ["q4_K_M", "vllm"], "exports", ExportOptions(license="apache-2.0"))

The names below are imported on first use, so that the package's modules can run as programs
(`python -m alignment.export.measure`) in environments that lack some of the toolkit's dependencies.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignment.export.export_options import CalibrationRows, ExportOptions, PassRateBenchmark
    from alignment.export.export_targets import parse_targets
    from alignment.export.exporter import export

_MODULES = {
    "CalibrationRows": "export_options",
    "ExportOptions": "export_options",
    "PassRateBenchmark": "export_options",
    "export": "exporter",
    "parse_targets": "export_targets",
}

__all__ = ["CalibrationRows", "ExportOptions", "PassRateBenchmark", "export", "parse_targets"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
