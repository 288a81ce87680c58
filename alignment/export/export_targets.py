"""What a model can be exported to, by the names that recipes and the command line use."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from alignment.export.levels import LEVELS, Level, get_level

ENGINE_TARGETS = {"gptq-int4": ("gptq", 4), "gptq-int8": ("gptq", 8), "awq-int4": ("awq", 4)}
# vLLM takes the Hugging Face folder as it is: the folder holds its serve command.
FOLDER_TARGETS = {"huggingface": "huggingface", "vllm": "huggingface", "adapter": "adapter"}
RUNTIME_TARGETS = ("ollama", "llama.cpp")
RUNTIME_LEVEL = "q4_K_M"
CHOICES = (*LEVELS, *ENGINE_TARGETS, "ollama:LEVEL", "llama.cpp:LEVEL", *FOLDER_TARGETS)


@dataclass(frozen=True)
class Target:
    """A parsed target. `kind` is gguf, ollama, llama.cpp, gptq, awq, huggingface or adapter; `level` is a GGUF level
    where the kind has one, `bits` is 4 or 8 for gptq and awq."""

    text: str
    kind: str
    level: Level | None = None
    bits: int = 16

    @property
    def gate(self) -> str:
        """Whose thresholds it must reach: those of its level, or of its kind."""
        if self.level is not None:
            return self.level.name
        return self.kind if self.kind in ("huggingface", "adapter") else self.text

    @property
    def is_gguf(self) -> bool:
        return self.level is not None

    @property
    def is_calibrated(self) -> bool:
        return self.kind in ("gptq", "awq")


def parse_targets(targets: Sequence[str]) -> list[Target]:
    """Targets by name, light enough for a recipe check.

    A bare GGUF level (`q4_K_M`, or `gguf:q4_K_M`), `gptq-int4`, `gptq-int8`, `awq-int4`, `ollama:LEVEL` and
    `llama.cpp:LEVEL` (folders; without a level at q4_K_M), `huggingface` or `vllm` (a folder for transformers and vLLM,
    with its serve command), `adapter`. ValueError for a name that does not exist, for none and for one named twice.
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
    """What to install for the GGUF targets and adapters among `targets`; empty if nothing is missing."""
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
        raise ValueError(f"there is no export target {text!r}; there are {', '.join(CHOICES)}")
    try:
        return Target(text, kind or "gguf", get_level(level))
    except ValueError:
        raise ValueError(f"there is no export target {text!r}; there are {', '.join(CHOICES)}") from None
