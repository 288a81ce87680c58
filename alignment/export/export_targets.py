"""Parse export targets: the names of export formats in recipes and on the command line."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from alignment.export.levels import LEVELS, Level, get_level

ENGINE_TARGETS = {"gptq-int4": ("gptq", 4), "gptq-int8": ("gptq", 8), "awq-int4": ("awq", 4)}
# vLLM loads the Hugging Face folder as it is; the folder includes the command that serves it.
FOLDER_TARGETS = {"huggingface": "huggingface", "vllm": "huggingface", "adapter": "adapter"}
RUNTIME_TARGETS = ("ollama", "llama.cpp")
RUNTIME_LEVEL = "q4_K_M"
CHOICES = (*LEVELS, *ENGINE_TARGETS, "ollama:LEVEL", "llama.cpp:LEVEL", *FOLDER_TARGETS)


@dataclass(frozen=True)
class Target:
    """A parsed export target."""

    text: str
    """The target's name, as the user wrote it."""
    kind: str
    """gguf, ollama, llama.cpp, gptq, awq, huggingface or adapter."""
    level: Level | None = None
    """GGUF level, for the kinds gguf, ollama and llama.cpp."""
    bits: int = 16
    """Bits per weight: 4 or 8 for the kinds gptq and awq."""

    @property
    def gate(self) -> str:
        """Key under which `gate.DEFAULT_THRESHOLDS` has this target's limits, for example `q4_K_M` or `awq-int4`."""
        if self.level is not None:
            return self.level.name
        return self.kind if self.kind in ("huggingface", "adapter") else self.text

    @property
    def is_gguf(self) -> bool:
        """Whether the target is a GGUF file, or a folder with a GGUF file."""
        return self.level is not None

    @property
    def is_calibrated(self) -> bool:
        """Whether the target needs calibration rows."""
        return self.kind in ("gptq", "awq")


def parse_targets(targets: Sequence[str]) -> list[Target]:
    """Parse the names of targets, without importing heavy packages.

    Args:
        targets: GGUF levels (`q4_K_M` or `gguf:q4_K_M`); `gptq-int4`, `gptq-int8`, `awq-int4`; folders with a serve
            command: `ollama:LEVEL` and `llama.cpp:LEVEL` (without a level: q4_K_M), `huggingface` or `vllm`; `adapter`.

    Raises:
        ValueError: A name is unknown or given twice, or the list is empty.
    """
    if isinstance(targets, str) or not targets:
        raise ValueError(f"targets is a list with at least one of {', '.join(CHOICES)}")
    parsed = [_parse(text) for text in targets]
    seen: set[tuple[str, str, int]] = set()
    for target in parsed:
        key = (target.kind, target.level.name if target.level else "", target.bits)
        if key in seen:
            raise ValueError(f"target {target.text!r} is named twice")
        seen.add(key)
    return parsed


def missing_packages(targets: Sequence[Target]) -> str:
    """Return a message about packages to install for GGUF targets and adapters, or "" if nothing is missing."""
    if not any(target.is_gguf or target.kind == "adapter" for target in targets):
        return ""
    missing = [name for name in ("gguf", "xllamacpp") if importlib.util.find_spec(name) is None]
    return f"GGUF export needs {' and '.join(missing)}: pip install 'code-alignment[gguf]'" if missing else ""


def _parse(text: str) -> Target:
    if text in FOLDER_TARGETS:
        return Target(text, FOLDER_TARGETS[text])
    if text in ENGINE_TARGETS:
        engine, bits = ENGINE_TARGETS[text]
        return Target(text, engine, bits=bits)
    kind, _, level = text.rpartition(":")
    if text in RUNTIME_TARGETS:
        kind, level = text, RUNTIME_LEVEL
    if kind not in ("", "gguf", *RUNTIME_TARGETS):
        raise ValueError(f"there is no export target {text!r}; choose from {', '.join(CHOICES)}")
    try:
        return Target(text, kind or "gguf", get_level(level))
    except ValueError:
        raise ValueError(f"there is no export target {text!r}; choose from {', '.join(CHOICES)}") from None
