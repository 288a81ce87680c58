"""Find refused settings of training stages in a child process, and remember accepted settings between calls."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from alignment.cache import cache_root
from alignment.fingerprints import fingerprint, package_versions
from alignment.processes import Child, StageFailed, log_tail
from alignment.stages import config_trial, configs
from alignment.stages.config_trial import ConfigsRequest, Refusal
from alignment.stages.configs import TrainerSettings

if TYPE_CHECKING:
    from alignment.recipe import TrainingStage


class ConfigTrial:
    """A child process that builds the config objects of training stages, to find the settings that they refuse.

    The constructor starts the process, which needs seconds to import its libraries. The caller reads the recipe
    meanwhile, calls `submit` with its stages, does other checks, and calls `refusals`. Use the object in a `with`
    statement, which ends the process.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._out, self._log = Path(self._folder.name) / "refused.json", Path(self._folder.name) / "log"
        self._child = Child(config_trial.__name__, self._log, os.environ)
        self._marks: dict[str, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop(patience=0)  # it has nothing to save
        self._folder.cleanup()

    def submit(self, stages: Sequence[TrainingStage]) -> None:
        """Send the stages whose settings were never accepted before to the process. Without any, end the process."""
        new = list(_unchecked([TrainerSettings.of(stage) for stage in stages], cache_root() / "accepted-settings"))
        self._marks = {stage.name: mark for stage, mark in new}
        if new:
            self._child.send(ConfigsRequest(stages=[stage for stage, _ in new], out=self._out))
        else:
            self._child.stop(patience=0)

    def refusals(self) -> list[Refusal]:
        """Wait for the process. Return the refused settings, and remember the stages that have none.

        Raises:
            ValueError: the process failed, for example because TRL is not installed. The message has its last lines.
        """
        if not self._marks:
            return []
        try:
            self._child.wait()
        except StageFailed:
            raise ValueError(f"the config objects of TRL and PEFT can't be built:\n{log_tail(self._log)}") from None
        refused = [Refusal(stage, tuple(place), message) for stage, place, message in json.loads(self._out.read_text())]
        for name in self._marks.keys() - {refusal.stage for refusal in refused}:
            with contextlib.suppress(OSError):  # a cache that can't be written costs only time
                self._marks[name].parent.mkdir(parents=True, exist_ok=True)
                self._marks[name].touch()
        return refused


def _unchecked(stages: Sequence[TrainerSettings], accepted: Path) -> Iterator[tuple[TrainerSettings, Path]]:
    """Yield each stage whose settings were never accepted before, and the file that will mark them as accepted.

    Args:
        stages: the stages.
        accepted: folder with one file for each accepted combination. The file's name is a hash of the stage's settings,
            the package versions, the code of the trial and the machine.
    """
    sources = [Path(str(module.__file__)).read_bytes() for module in (configs, config_trial)]
    code = hashlib.sha256(b"".join(sources)).hexdigest()
    machine = [platform.node(), os.environ.get("CUDA_VISIBLE_DEVICES")]
    for stage in stages:
        settings = stage.model_dump(mode="json", include={"kind", "train", "peft"})
        mark = accepted / fingerprint([settings, package_versions(), code, machine])
        if not mark.exists():
            yield stage, mark
