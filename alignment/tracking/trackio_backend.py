"""Logs to Trackio, whose data stays in a folder of this machine. `trackio show` opens its dashboard."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.tracking.background_tracker import TrackedRun


class TrackioBackend:
    """A run in a project of Trackio."""

    name = "trackio"

    def __init__(self, folder: Path) -> None:
        """Prepare the run; `start` creates it.

        Args:
            folder: the folder in which Trackio stores all projects (its variable TRACKIO_DIR).
        """
        self.folder = folder
        self._run: Any = None

    def start(self, run: TrackedRun) -> None:
        """Create the run, or continue the run with the same key."""
        os.environ["TRACKIO_DIR"] = str(self.folder)  # read when the package is imported
        self.folder.mkdir(parents=True, exist_ok=True)
        import trackio

        with contextlib.redirect_stdout(io.StringIO()):  # it prints how to open the dashboard
            self._run = trackio.init(
                project=run.project, name=f"{run.name} {run.key[-12:]}", group=run.group, config=dict(run.settings),
                resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip

    def log(self, metrics: Mapping[str, float], step: int, seconds: float) -> None:
        """Log metrics of an optimizer step."""
        self._run.log(dict(metrics), step=step)

    def finish(self) -> None:
        """End the run."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()
