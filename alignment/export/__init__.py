"""Exports that are proven against the original before they count: GGUF, GPTQ, AWQ and runtime folders.

`export` and `parse_targets` are all that other rooms need; importing this package loads neither of them yet, so that
its modules can be run as programs (`python -m alignment.export.measure`) in light and foreign environments.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignment.export.export_targets import parse_targets
    from alignment.export.exporter import export

__all__ = ["export", "parse_targets"]


def __getattr__(name: str) -> Any:
    if name == "export":
        from alignment.export.exporter import export

        return export
    if name == "parse_targets":
        from alignment.export.export_targets import parse_targets

        return parse_targets
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
