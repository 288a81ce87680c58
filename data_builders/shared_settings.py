"""Settings that several builders share."""

from __future__ import annotations

from pydantic import Field

from alignment.settings import Reference, Settings
from data_builders.cleaning.decontamination import Decontaminator


class Decontaminated(Settings):
    """Base class for settings of builders that drop rows with benchmark texts."""

    decontaminate: list[Reference] = Field(default_factory=list)
    """Benchmark files and folders. Rows that contain their texts are dropped."""

    def decontaminator(self) -> Decontaminator | None:
        """Return an index of the benchmarks in `decontaminate`, or None if the list is empty."""
        return Decontaminator.from_paths([path.path() for path in self.decontaminate]) if self.decontaminate else None

    def benchmark_names(self) -> list[str]:
        """Return the file names of the benchmarks in `decontaminate`, for the dataset card."""
        return [path.path().name for path in self.decontaminate]
