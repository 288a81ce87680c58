"""Settings that several builders have in common."""

from __future__ import annotations

from pydantic import Field

from alignment.settings import Reference, Settings
from data_builders.cleaning.decontamination import Decontaminator


class Decontaminated(Settings):
    """Base of builders that drop rows which share text with a benchmark."""

    decontaminate: list[Reference] = Field(default_factory=list)
    """Benchmark files and folders whose texts must not be in the result."""

    def decontaminator(self) -> Decontaminator | None:
        """The filter for these files, or None if there are none."""
        return Decontaminator.from_paths([path.path() for path in self.decontaminate]) if self.decontaminate else None

    def benchmark_names(self) -> list[str]:
        """The names of the files, as dataset cards list them."""
        return [path.path().name for path in self.decontaminate]
