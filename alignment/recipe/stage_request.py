"""The request that `alignment.chain` sends to a stage's process: `StageRequest`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter

from alignment.models.source import ModelSource
from alignment.processes import ProcessRequest
from alignment.recipe.schema import AnyStage, SandboxSettings, Tracking
from alignment.settings import Settings

_STAGE: TypeAdapter[AnyStage] = TypeAdapter(AnyStage)


def parse_stage(settings: Mapping[str, Any]) -> AnyStage:
    """Validate one entry of a recipe's `stages:` and return its typed settings. Raises pydantic's ValidationError."""
    return _STAGE.validate_python(dict(settings))


class BenchmarkRows(Settings):
    """A benchmark with whose rows training data is compared."""

    name: str
    """The benchmark's name in the recipe."""
    benchmark: str
    data: str | None = None
    """Path of the benchmark's rows, or None for published rows."""


class ScreenTargets(Settings):
    """Texts that training rows must not contain; see `alignment.tokenization.screen`."""

    benchmarks: tuple[BenchmarkRows, ...] = ()
    paths: tuple[Path, ...] = ()
    """Files and folders of the recipe's `decontaminate:`."""
    allowed: dict[str, str] = Field(default_factory=dict)
    """Names of benchmarks that training rows may share text with, each with the reason that the recipe gives."""
    sandbox: SandboxSettings = SandboxSettings()
    """Sandbox for programs that some benchmarks run while their rows are loaded."""


NO_TARGETS = ScreenTargets()


class StageRequest(ProcessRequest):
    """A request to run one stage. It does not depend on the recipe file; all paths are absolute."""

    name: str
    """Name of the step: the stage's name, or `evaluate-STAGE` for an evaluation that `evaluate:` inserts."""
    stage: AnyStage
    out: Path
    """The artifact's folder."""
    seed: int = 0
    model: ModelSource | None = None
    """The model to start from or to read, or None if the stage needs no model."""
    model_stage: str | None = None
    """The stage that trained `model`, or `base`."""
    merged: dict[str, ModelSource] = Field(default_factory=dict)
    """For a merge: the models that it reads, keyed by `base` or the name of a stage."""
    sandbox: SandboxSettings = SandboxSettings()
    tracking: Tracking = Tracking()
    recipe: str
    """Name of the recipe."""
    fingerprint: str
    inputs: dict[str, str] = Field(default_factory=dict)
    """Earlier steps whose artifacts the step reads: name of the step -> its fingerprint."""
    files: dict[str, str] = Field(default_factory=dict)
    """Files and folders outside of the chain that the step reads: path -> SHA-256 digest, or `hub` for a name on the
    Hugging Face hub."""
    base_model: dict[str, Any] | None = None
    """The recipe's base model, if the step reads it: `path`, `revision`, `init`, `tokenizer`, and the digests
    `path_digest` and `tokenizer_digest`."""
    decontaminate: ScreenTargets = NO_TARGETS
    prepared: Path | None = None
    """Folder in which the token ids of the stage's rows are cached between runs; by default a folder in `out`."""

    @classmethod
    def for_stage(
        cls, stage: Mapping[str, Any], out: Path, model: ModelSource | None = None, **settings: Any
    ) -> StageRequest:
        """Create a request for one stage without a recipe, for tests, measurements and debugging.

        Args:
            stage: an entry of a recipe's `stages:`, with absolute paths.
            out: the artifact's folder.
            model: the model to start from or to read.
            settings: other fields of StageRequest.
        """
        parsed = parse_stage(stage)
        defaults = {"name": parsed.name, "recipe": "standalone", "fingerprint": "0" * 64, "model_stage": "base"}
        return cls(stage=parsed, out=out, model=model, **{**defaults, **settings})

    @property
    def rank(self) -> int:
        """Rank of this process among all processes that run the stage."""
        return int(os.environ.get("RANK", "0"))

    @property
    def world_size(self) -> int:
        """Number of processes that run the stage."""
        return int(os.environ.get("WORLD_SIZE", "1"))
