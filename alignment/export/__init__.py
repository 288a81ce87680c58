"""Exports that are proven against the original before they count: GGUF, GPTQ, AWQ and runtime folders.

`export` is all that other rooms need; importing this package loads nothing heavy.
"""

from alignment.export.exporter import export
from alignment.export.targets import parse_targets

__all__ = ["export", "parse_targets"]
