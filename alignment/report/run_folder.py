"""Reads the folder of a recipe's results: its stages, their state, and how far a stage is.

A run that began with this version has `run.json` with all its steps. For older runs the stages are those that have
artifacts.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from alignment.chain.plan import Step
from alignment.chain.run_record import RECORD
from alignment.processes import HEARTBEAT_SECONDS
from alignment.provenance.artifact_file import ARTIFACT
from alignment.recipe import MODEL_KINDS

State = Literal["done", "running", "failed", "stopped", "waiting"]
"""`stopped`: begun, and no process works on it. `waiting`: not begun."""
ALIVE_SECONDS = 12 * HEARTBEAT_SECONDS
"""A stage whose heartbeat file is older than this is not running. Clocks of file servers may differ by some seconds."""
ARTIFACTS = "artifacts"
HEARTBEAT = "heartbeat"


@dataclass(frozen=True)
class StageFolder:
    """One step of a run, read from its folder."""

    name: str
    kind: str
    folder: Path
    state: State
    model: str | None = None
    """Name of the step whose model this step uses, or `base`."""
    rung: str | None = None
    """For an evaluation: the stage whose model it measures, or `base`."""
    inputs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)
    """The content of artifact.json. Empty if the step is not done."""
    run_began: float = 0.0
    """Time at which the last run began, in seconds since 1970."""

    @property
    def trains(self) -> bool:
        return self.kind in MODEL_KINDS

    @property
    def model_folder(self) -> Path | None:
        """Folder of the model that the step has made, or None."""
        folder = self.folder / "model"
        return folder if self.state == "done" and (folder / "config.json").is_file() else None

    def artifact(self) -> dict[str, Any] | None:
        """Return the content of artifact.json, or None if the step is not done."""
        return dict(self.content) or None

    def logs(self) -> list[str]:
        """Return the names of the step's log files."""
        return sorted(path.name for path in (self.folder / "logs").glob("*.log"))

    def seconds(self) -> float | None:
        """Return the duration of a finished step, or the time for which this run has worked on a running step."""
        if self.content:
            return float(self.content.get("seconds", 0))
        if self.state != "running":
            return None
        try:
            return max(0.0, time.time() - max((self.folder / "logs").stat().st_ctime, self.run_began))
        except OSError:
            return None


@dataclass(frozen=True)
class RunFolder:
    """The folder of a recipe's results."""

    folder: Path
    name: str
    seed: int | None
    state: State
    message: str
    """The reason, if the run failed."""
    stages: Sequence[StageFolder]
    base: Path | None = None
    """Folder of the model with which the recipe starts, if it is on this machine."""

    def models(self) -> dict[str, Path]:
        """Return the folders of the models that exist: `base` and those of stages, by their names."""
        folders = {"base": self.base} if self.base is not None else {}
        return {**folders, **{stage.name: folder for stage in self.stages if (folder := stage.model_folder)}}

    def stage(self, name: str) -> StageFolder | None:
        """Return the step with this name, or None."""
        return next((stage for stage in self.stages if stage.name == name), None)

    @property
    def current(self) -> StageFolder | None:
        """The first step that is not done."""
        return next((stage for stage in self.stages if stage.state != "done"), None)


def is_run(folder: Path) -> bool:
    """Whether a folder holds the results of a recipe."""
    return (folder / ARTIFACTS).is_dir() or (folder / RECORD).is_file()


def read_run(folder: Path) -> RunFolder:
    """Read the state of a run. Files that are missing or damaged count as not written yet."""
    record = read_object(folder / RECORD)
    if entries := record.get("steps"):
        began = _time_of(record.get("started"))
        stages = [_recorded(folder, entry, began) for entry in entries]
    else:
        stages = _from_artifacts(folder)
    state = _state_of_run(record, stages)
    stages = [_with_run_state(stage, state) for stage in stages]
    seed = record.get("seed", next((stage.content.get("seed") for stage in stages if stage.content), None))
    message = str(record.get("message", "")) if state == "failed" else ""
    base = Path(str(record.get("base") or ""))
    known_base = base if record.get("base") and (base / "config.json").is_file() else None
    return RunFolder(folder, str(record.get("name", folder.name)), seed, state, message, stages, known_base)


def stage_folders(steps: Sequence[Step]) -> list[StageFolder]:
    """Return the steps of a plan as they are on disk."""
    return [
        StageFolder(
            name=step.name,
            kind=step.kind,
            folder=step.folder,
            state="done" if (artifact := step.artifact()) else _state_of(step.folder, {}),
            model=step.model,
            rung=step.rung,
            inputs=tuple(step.inputs),
            settings=step.request.stage.model_dump(mode="json"),
            content=artifact or {},
        )
        for step in steps
    ]


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Return an empty object if the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _time_of(text: Any) -> float:
    """Return a time in ISO format as seconds since 1970, or 0 if the text is no time."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, TypeError):
        return 0.0


def _recorded(folder: Path, entry: Mapping[str, Any], began: float) -> StageFolder:
    """Return a step that `run.json` lists."""
    place = folder / ARTIFACTS / Path(str(entry["folder"])).name
    content = read_object(place / ARTIFACT)
    return StageFolder(
        name=str(entry["name"]),
        kind=str(entry["kind"]),
        folder=place,
        state=_state_of(place, content),
        model=entry.get("model"),
        rung=entry.get("rung"),
        inputs=tuple(entry.get("inputs", ())),
        settings=entry.get("settings", {}),
        content=content,
        run_began=began,
    )


def _from_artifacts(folder: Path) -> list[StageFolder]:
    """Return the newest artifact of each step, in the order in which the steps began."""
    newest: dict[str, tuple[float, Path]] = {}
    for place in (folder / ARTIFACTS).glob("*-*"):
        name = place.name.rpartition("-")[0]
        link = folder / name
        linked = link.is_symlink() and link.resolve() == place.resolve()
        age = float("inf") if linked else place.stat().st_mtime
        if place.is_dir() and age > newest.get(name, (-1.0, place))[0]:
            newest[name] = (age, place)
    stages = []
    for name, (_, place) in newest.items():
        content = read_object(place / ARTIFACT)
        kind, model = str(content.get("kind", "")), content.get("model")
        stages.append(
            StageFolder(
                name=name,
                kind=kind,
                folder=place,
                state=_state_of(place, content),
                model=model,
                rung=model if kind == "evaluate" else None,
                inputs=tuple(content.get("inputs", ())),
                settings=content.get("settings", {}),
                content=content,
            )
        )
    return sorted(stages, key=_began)


def _began(stage: StageFolder) -> float:
    return _time_of(stage.content.get("started")) or stage.folder.stat().st_mtime


def _state_of(folder: Path, content: Mapping[str, Any]) -> State:
    if content:
        return "done"
    try:
        beat = (folder / HEARTBEAT).stat().st_mtime
    except OSError:
        return "stopped" if folder.is_dir() else "waiting"
    return "running" if time.time() - beat < ALIVE_SECONDS else "stopped"


def _state_of_run(record: Mapping[str, Any], stages: Sequence[StageFolder]) -> State:
    states = {stage.state for stage in stages}
    if "running" in states:
        return "running"
    if stages and states == {"done"}:
        return "done"
    state = record.get("state")
    if state == "running":
        return "running" if _is_alive(record) else "stopped"
    if state == "failed":
        return "failed"
    return "stopped" if states & {"done", "stopped"} else "waiting"


def _is_alive(record: Mapping[str, Any]) -> bool:
    """Whether the process that wrote `run.json` still runs. For another machine, whether it may still run."""
    if record.get("host") != platform.node():
        return time.time() - _time_of(record.get("started")) < ALIVE_SECONDS
    try:
        os.kill(int(record["process"]), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return True


def _with_run_state(stage: StageFolder, state: State) -> StageFolder:
    """Return the stage, marked as failed if it was begun in a run that failed."""
    if stage.state != "stopped" or state != "failed":
        return stage
    return StageFolder(**{**vars(stage), "state": "failed"})
