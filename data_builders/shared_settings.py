"""Settings that several builders share."""

from __future__ import annotations

from pydantic import Field

from alignment.settings import Reference, Settings
from data_builders.cleaning.decontamination import Decontaminator


class Decontaminated(Settings):
    """Base class of the settings of builders that drop rows with text of a benchmark."""

    decontaminate: list[Reference] = Field(default_factory=list)
    """Benchmark files and folders. Rows that contain their texts are dropped."""

    def decontaminator(self) -> Decontaminator | None:
        """Index the files in `decontaminate`. None if the list is empty."""
        return Decontaminator.from_paths([path.path() for path in self.decontaminate]) if self.decontaminate else None

    def benchmark_names(self) -> list[str]:
        """Return the file names of the benchmarks, for dataset cards."""
        return [path.path().name for path in self.decontaminate]
