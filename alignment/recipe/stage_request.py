"""What a stage's process is asked to do: the plan's request, typed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from alignment.recipe import AnyStage, SandboxSettings, Tracking

_STAGE: TypeAdapter[AnyStage] = TypeAdapter(AnyStage)


@dataclass(frozen=True)
class Request:
    """One stage to run. Paths in `stage` and `model` are absolute."""

    name: str
    stage: Any
    seed: int
    out: Path
    model: dict[str, Any] | None
    model_stage: str | None
    sandbox: SandboxSettings
    tracking: Tracking
    recipe: str
    fingerprint: str
    decontaminate: dict[str, Any] = field(default_factory=dict)
    """What training rows are held against; see `alignment.tokenization.screen`."""
    prepared: Path | None = None
    """Where token ids are kept from run to run, by what they were made from; by default in `out`."""

    @staticmethod
    def of(value: dict[str, Any]) -> Request:
        return Request(
            name=value["name"],
            stage=_STAGE.validate_python(value["stage"]),
            seed=value["seed"],
            out=Path(value["out"]),
            model=value["model"],
            model_stage=value["model_stage"],
            sandbox=SandboxSettings.model_validate(value["sandbox"]),
            tracking=Tracking.model_validate(value["tracking"]),
            recipe=value["recipe"],
            fingerprint=value["fingerprint"],
            decontaminate=value.get("decontaminate", {}),
            prepared=Path(value["prepared"]) if value.get("prepared") else None,
        )

    @property
    def rank(self) -> int:
        return int(os.environ.get("RANK", "0"))

    @property
    def world_size(self) -> int:
        return int(os.environ.get("WORLD_SIZE", "1"))
