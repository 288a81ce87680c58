"""The `sandbox:` settings of a recipe: where untrusted programs run, and with which limits."""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import Field, model_validator

from alignment.sandbox.limits import Limits
from alignment.settings import Positive, Settings

_ADDRESS = r"https?://(?:[\w.-]*\w|\[[0-9a-fA-F:.]+\])(?::[1-9][0-9]{0,4})?/?"
SERVICE_WORKERS = 32
"""Default number of simultaneous requests to a grading service."""


class SandboxSettings(Settings):
    """Where untrusted programs run, and with which limits. `sandbox: http://host:port` is short for `address`."""

    address: str | None = None
    """URL of a grading service (`align sandbox serve`). The token of the service is read from the environment variable
    ALIGN_TOKEN. By default programs run on this machine."""
    workers: Positive | None = None
    """Number of programs that run at the same time. By default one per core, or 32 if `address` is set."""
    wall_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Wall-clock limit of one program, in seconds."""
    cpu_seconds: Positive = 10
    """CPU time limit of one program, in seconds."""
    memory_mb: Annotated[int, Field(ge=64)] = 1024
    """Memory limit of one program, in MiB."""
    allow_weaker: bool = False
    """Allow a weaker sandbox: no namespaces if the kernel refuses them, and no process limit if programs run as the
    machine's root."""

    @model_validator(mode="after")
    def _check_address(self) -> SandboxSettings:
        if self.address is not None and not re.fullmatch(_ADDRESS, self.address):
            raise ValueError(
                "the address of a grading service is like http://host:8711, without a path, a user or a password, not "
                f"{self.address!r}"
            )
        if {"cpu_seconds", "wall_seconds"} <= self.model_fields_set and self.cpu_seconds > max(1, self.wall_seconds):
            raise ValueError(
                f"cpu_seconds ({self.cpu_seconds}) is more than wall_seconds ({self.wall_seconds:g}), which ends a program first"
            )
        if self.address and self.allow_weaker:
            raise ValueError(
                "`allow_weaker` concerns programs on this machine, but `address` makes programs run at a grading "
                "service: remove one of the two settings"
            )
        return self

    def limits(self) -> Limits:
        """Return the limits of one program."""
        return Limits(cpu_seconds=self.cpu_seconds, wall_seconds=self.wall_seconds, memory_bytes=self.memory_mb << 20)

    def worker_count(self) -> int:
        """Return the number of programs that run at the same time.

        The default on this machine is the number of cores divided by the number of training processes, because each
        training process grades its own programs.
        """
        if self.workers is not None:
            return self.workers
        if self.address:
            return SERVICE_WORKERS
        return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
