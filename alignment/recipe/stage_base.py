"""The settings that all stages have: `Stage`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from alignment.recipe.stage_parts import Gate
from alignment.settings import Name, Seed, Settings


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class Stage(Settings):
    """Settings that all stages have."""

    name: Name
    """Name of the stage, unique in the recipe. Later stages refer to the stage by this name, and it names the folder of
    the stage's artifact."""
    seed: Seed | None = None
    """Seed of everything random in the stage. Default: the recipe's seed."""
    gate: Annotated[list[Gate], BeforeValidator(_as_list, json_schema_input_type=Gate | list[Gate])] = Field(
        default_factory=list
    )
    """One gate or a list of gates. A gate of a training stage uses metrics of the recipe's `evaluate:`; a gate of an
    evaluate stage uses metrics of that stage's benchmarks. Default: no gate."""

    @property
    def gates(self) -> list[Gate]:
        """The gates of the stage."""
        return self.gate
