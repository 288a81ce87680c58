"""The runs that the live page shows, with what was read of each of them so far."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from alignment.report.gains import Gains, gains_by_metric
from alignment.report.run_folder import RunFolder, StageFolder, is_run, read_run
from alignment.report.training_curves import MetricsFile, TrainingProgress
from alignment.ui.rollout_index import RolloutIndex
from alignment.ui.sample_pairs import SamplePairs


class OpenRun:
    """A run, and the files of it that are read incrementally."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        """Held while a request reads this run."""
        self._metrics: dict[Path, MetricsFile] = {}
        self._rollouts: dict[Path, RolloutIndex] = {}
        self._pairs: dict[tuple[Path, Path], SamplePairs] = {}
        self._gains: Gains = {}
        self._compared: list[Path] = []
        self._comparing = False

    def read(self) -> RunFolder:
        """Return the present state of the run."""
        return read_run(self.folder)

    def metrics(self, stage: StageFolder) -> MetricsFile:
        """Return the reader of a stage's metrics."""
        return self._metrics.setdefault(stage.folder, MetricsFile(stage.folder))

    def progress(self, run: RunFolder) -> dict[str, TrainingProgress]:
        """Return how far the unfinished training stages are, by their names."""
        unfinished = [stage for stage in run.stages if stage.state != "done" and stage.folder.is_dir()]
        known = {stage.name: self.metrics(stage).progress() for stage in unfinished}
        return {name: progress for name, progress in known.items() if progress is not None}

    def rollouts(self, stage: StageFolder) -> RolloutIndex:
        """Return the index of a stage's rollouts."""
        return self._rollouts.setdefault(stage.folder, RolloutIndex(stage.folder))

    def pairs(self, before: StageFolder, after: StageFolder) -> SamplePairs:
        """Return the completions of two evaluations, task by task."""
        key = (before.folder, after.folder)
        return self._pairs.setdefault(key, SamplePairs(*key))

    def gains(self, run: RunFolder) -> Gains:
        """Return the gains of stages as far as they are known.

        The bootstrap takes seconds, so it runs in a thread; the next request then has the result.
        """
        measured = [stage.folder for stage in run.stages if stage.rung and stage.content]
        if self._compared != measured and not self._comparing:
            self._comparing = True
            threading.Thread(target=self._compare, args=(run, measured), daemon=True).start()
        return self._gains

    def _compare(self, run: RunFolder, measured: list[Path]) -> None:
        try:
            self._gains = gains_by_metric(run.stages)
        finally:
            self._compared, self._comparing = measured, False


class RunLibrary:
    """Finds runs in folders. Runs that begin later appear by themselves."""

    def __init__(self, places: Sequence[Path]) -> None:
        """Remember the places.

        Args:
            places: folders of runs, and folders that contain folders of runs.
        """
        self.places = [place.absolute() for place in places]
        self._open: dict[Path, OpenRun] = {}
        self._lock = threading.Lock()

    def runs(self) -> dict[str, OpenRun]:
        """Return the runs by their ids: the name of the folder, with a number if several folders have this name."""
        folders: list[Path] = []
        for place in self.places:
            inside = sorted(path for path in place.glob("*") if is_run(path)) if place.is_dir() else []
            folders += [place] if is_run(place) else inside
        runs: dict[str, OpenRun] = {}
        with self._lock:
            for folder in dict.fromkeys(folders):
                name, number = folder.name, 2
                while name in runs:
                    name, number = f"{folder.name}-{number}", number + 1
                runs[name] = self._open.setdefault(folder, OpenRun(folder))
        return runs
