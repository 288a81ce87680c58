"""Find refused settings of training stages in a child process, and remember accepted settings between calls."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alignment.cache import cache_root
from alignment.fingerprints import fingerprint, package_versions
from alignment.processes import Child, StageFailed, log_tail
from alignment.recipe import TrainingStage
from alignment.stages import config_trial, configs
from alignment.stages.config_trial import ConfigsRequest, Refusal
from alignment.stages.configs import TrainerSettings

Refusals = Callable[[], list[Refusal]]
"""Waits for the child process, and returns the refused settings."""


@contextmanager
def trial(stages: Sequence[TrainerSettings]) -> Iterator[Refusals]:
    """Start a child process that builds the config objects of stages. The caller can do other work before it waits."""
    with tempfile.TemporaryDirectory() as name:
        out, log = Path(name) / "refused.json", Path(name) / "log"
        child = Child(config_trial.__name__, log, os.environ)

        def refusals() -> list[Refusal]:
            try:
                child.finish(ConfigsRequest(stages=list(stages), out=out))
            except StageFailed:
                raise ValueError(f"the config objects of TRL and PEFT can't be built:\n{log_tail(log)}") from None
            return [Refusal(stage, tuple(place), message) for stage, place, message in json.loads(out.read_text())]

        try:
            yield refusals
        finally:
            child.stop()


@contextmanager
def new_trial(stages: Sequence[TrainingStage]) -> Iterator[Refusals]:
    """Do the same as `trial`, but skip stages whose settings were accepted before, and remember accepted settings."""
    new = list(_unchecked([TrainerSettings.of(stage) for stage in stages], cache_root() / "accepted-settings"))
    if not new:
        yield list
        return
    with trial([stage for stage, _ in new]) as started:

        def refusals() -> list[Refusal]:
            refused = started()
            names = {refusal.stage for refusal in refused}
            for stage, mark in new:
                if stage.name not in names:
                    with contextlib.suppress(OSError):  # a cache that can't be written costs only time
                        mark.parent.mkdir(parents=True, exist_ok=True)
                        mark.touch()
            return refused

        yield refusals


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
