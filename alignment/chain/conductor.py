"""The conductor: runs the steps of a recipe that are not done yet, each in new processes.

A step is done when its artifact.json exists. After an interruption, the same command resumes. After a change of the
recipe, the changed step and all steps that depend on it run again, and their old artifacts are kept. All kinds of
stages are run in the same way, except that stages that train run on all ranks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from alignment import processes
from alignment.chain import artifacts, deepspeed_extensions, ladder
from alignment.chain.plan import Step, plan
from alignment.chain.run_record import recorded_run
from alignment.export.engine_environment import engine_python
from alignment.files import write_json, write_text
from alignment.fingerprints import fingerprint, package_versions
from alignment.logs import format_duration, get_logger
from alignment.models.contract import ContractRequest
from alignment.models.gguf_import import import_gguf
from alignment.models.stored_config import is_gguf
from alignment.planning import disk
from alignment.processes import STOP_SIGNALS, StageFailed, StopRequested, World, heartbeat, wait_for
from alignment.progress import STEP
from alignment.provenance.artifact_file import ARTIFACT, Artifact
from alignment.provenance.input_files import describe_files
from alignment.recipe import ExportStage, Recipe, TrainingStage, launch_file
from alignment.recipe.export_checks import engines_needed
from alignment.stages.config_trial import ConfigsRequest
from alignment.stages.configs import TrainerSettings

logger = get_logger(__name__)

# Folders of a step that are no longer needed when the step is done.
_TEMPORARY = ("checkpoints", "prepared", "start")
LOCK = ".lock"
"""File in a recipe's folder that rank 0 of a run locks."""
_STOPPING = "stopping"
STOPPING_SECONDS = 600.0
"""Maximum time for which a new run waits until a stopped run has ended."""


class ChainStopped(RuntimeError):
    """Raised if the chain ends before its last step. The message gives the reason and says what to do."""


def run(recipe: Recipe, environment: Mapping[str, str] = os.environ, until: str | None = None) -> list[Step]:
    """Run every step that is not done. Each rank that the launcher starts calls this function.

    Args:
        recipe: the recipe.
        environment: the environment that the launcher set.
        until: name of the last step to run. By default all steps run.

    Returns:
        All steps of the recipe.

    Raises:
        ChainStopped: if a stage fails, a gate is broken, or settings are refused.
        StopRequested: after a stop signal, when the stage's process has ended; a training stage has saved a checkpoint.
        ValueError: if there is no step `until`, or not enough disk space.
    """
    world = World.from_environment(environment)
    if world.rank == 0:
        recipe.folder.mkdir(parents=True, exist_ok=True)
    lock = recipe.folder / LOCK if world.rank == 0 else None
    with _lock(recipe.folder, world), _stop_on_signals(lock):
        steps = plan(recipe)
        if until is not None and until not in [step.name for step in steps]:
            raise ValueError(f"there is no step {until!r}: {', '.join(step.name for step in steps)}")
        with recorded_run(recipe, steps, until=until, write=world.rank == 0):
            _Chain(recipe, steps, world, environment).run_steps(until)
    return steps


@dataclass(frozen=True)
class _Chain:
    """Runs the steps of a recipe on one rank."""

    recipe: Recipe
    steps: Sequence[Step]
    world: World
    environment: Mapping[str, str]

    def run_steps(self, until: str | None) -> None:
        """Check what can be checked before the first step, then run the steps up to the step `until`, if it is given."""
        if self.world.rank == 0:
            layout = launch_file.layout_of(self.recipe.launch.path() if self.recipe.launch else None)
            done = [step.name for step in self.steps if step.artifact() is not None]
            disk.check_space(self.recipe, layout, done)
            self.check_configs()
            self.prepare_engines()
        self.import_base()
        for number, step in enumerate(self.steps):
            self.run_step(number)
            if step.name == until:
                break

    def check_configs(self) -> None:
        """Build the config objects of TRL and PEFT before the first step, to find refused settings early.

        This imports TRL, which takes time. The check is therefore skipped if all training stages are done, or if the
        same settings have passed the check on this machine before.
        """
        waiting = [step.request.stage for step in self.steps if step.trains and step.artifact() is None]
        stages = [TrainerSettings.of(stage) for stage in waiting if isinstance(stage, TrainingStage)]
        if not stages:
            return
        request = ConfigsRequest(
            stages=stages,
            fsdp=self.environment.get("ACCELERATE_USE_FSDP") == "true",
            processes=int(self.environment.get("LOCAL_WORLD_SIZE", "1")),
        )
        mark = fingerprint([request.model_dump(mode="json"), package_versions(), platform.node()])
        passed = self.recipe.folder / ".configs-checked"
        if passed.is_file() and passed.read_text() == mark:
            return
        log = self.recipe.folder / "check.log"
        log.unlink(missing_ok=True)
        child = processes.child_environment(self.environment, World(0, 1, None), alone=True, port_offset=0)
        try:
            processes.run("alignment.stages.config_trial", request, log, child)
        except StageFailed:
            raise ChainStopped(f"the recipe can't run with these settings:\n{processes.log_tail(log)}") from None
        write_text(passed, mark)

    def prepare_engines(self) -> None:
        """Install the Python environments for GPTQ and AWQ exports before the first step, while there is a network."""
        for step in self.steps:
            if not isinstance(step.stage, ExportStage) or step.artifact() is not None:
                continue
            for engine in engines_needed(step.stage):
                try:
                    engine_python(engine)
                except ValueError as error:
                    raise ChainStopped(f"{step.name}: {error}") from None

    def import_base(self) -> None:
        """Import the base model on rank 0 if it is a GGUF file, while the other ranks wait.

        Raises:
            ChainStopped: the file cannot be imported.
        """
        reference = self.recipe.model.path
        waiting = [step.base_model for step in self.steps if step.base_model and step.artifact() is None]
        if reference is None or not is_gguf(str(reference)) or not waiting:
            return
        folder = Path(waiting[0].checkpoint)
        pulse = self.recipe.folder / "importing"
        if self.world.rank != 0:
            wait_for(folder.is_dir, pulse, f"import {reference}")
        elif not folder.is_dir():
            logger.info("importing %s ...", reference)
            try:
                with heartbeat(pulse):
                    logger.info("      %s", import_gguf(reference.path(), folder).sentence())
            except ValueError as error:
                raise ChainStopped(str(error)) from None

    def run_step(self, number: int) -> None:
        """Run one step if it is not done, then check the gates that use its results.

        Raises:
            ChainStopped: the step fails, or a gate is broken.
        """
        step, first = self.steps[number], self.world.rank == 0
        position = f"[{number + 1}/{len(self.steps)}] {step.name}"
        if step.artifact() is not None:
            if first:
                logger.info("%s: already done, %s", position, step.folder.name)
        else:
            if first:
                logger.info("%s (%s) ...", position, step.kind)
            try:
                self._execute(step, number)
            except StageFailed as error:
                raise ChainStopped(
                    f"stage {step.name!r} {error}\n{disk.disk_full_hint(step.folder)}"
                    "  All earlier steps are kept. Fix the error named in the log, then run the same command again; it "
                    "resumes here."
                ) from None
        if first:
            self._tidy(step)
        failed = ladder.broken_gates(self.recipe, step, self.steps)
        if failed:
            raise ChainStopped(
                "\n".join(failed)
                + "\n  All artifacts are kept. Change the stage's settings and run again (this step and those that "
                "depend on it run anew), or allow more in its `gate`."
            )

    def _tidy(self, step: Step) -> None:
        """Remove temporary folders of a finished step, link its artifact, and update `ladder.json` (stage scores)."""
        for name in _TEMPORARY:  # they may be left by a run that was killed after it wrote artifact.json
            shutil.rmtree(step.folder / name, ignore_errors=True)
        _remove_old_tokens(step)
        artifacts.link(self.recipe.folder, step.name, step.folder)
        if step.rung is not None:
            for line in ladder.table([step]):
                logger.info("      %s", line)
            ladder.write(self.recipe, self.steps)

    def _execute(self, step: Step, number: int) -> None:
        """Run the step in a child process of this rank, or wait until rank 0 has run the step.

        Raises StageFailed if the step fails.
        """
        pulse = step.folder / "heartbeat"
        if not step.trains and self.world.rank != 0:
            wait_for(lambda: step.artifact() is not None, pulse, f"run {step.name!r}")
            return
        child = processes.child_environment(self.environment, self.world, alone=not step.trains, port_offset=number)
        child[STEP] = f"[{number + 1}/{len(self.steps)}] {step.name}"
        if child.get("ACCELERATE_USE_DEEPSPEED") == "true":
            deepspeed_extensions.prepare(child)
        if self.world.rank == 0:
            with heartbeat(pulse):
                self._execute_on_rank_0(step, child)
            return
        if not _is_trained(step):
            log = step.folder / "logs" / f"rank{self.world.rank}.log"
            processes.run("alignment.stages", step.request, log, child)
        wait_for(lambda: step.artifact() is not None, pulse, f"finish {step.name!r}")

    def _execute_on_rank_0(self, step: Step, child: Mapping[str, str]) -> None:
        """Run the step in a child process, check the model if the step makes one, and write artifact.json."""
        started, clock = datetime.now(UTC), time.monotonic()
        with self._contract(step) as contract:
            if not _is_trained(step):
                processes.run("alignment.stages", step.request, step.folder / "logs" / "rank0.log", child)
            result = _result(step)
            if contract is not None:
                contract.finish(
                    ContractRequest(
                        model=step.folder / "model",
                        chat=result.get("chat", step.kind != "pretrain"),
                        must_stop=self.recipe.contract.must_stop,
                        out=step.folder / "contract.json",
                    )
                )
                result["contract"] = _read_json(step.folder / "contract.json")
            seconds = time.monotonic() - clock
            write_json(step.folder / ARTIFACT, self._artifact(step, started, seconds, result))
        logger.info("      done in %s", format_duration(seconds))

    def _artifact(self, step: Step, started: datetime, seconds: float, result: dict[str, Any]) -> Artifact:
        return {
            "stage": step.name,
            "kind": step.kind,
            "fingerprint": step.fingerprint,
            "settings": step.request.stage.model_dump(mode="json"),
            "inputs": step.inputs,
            "files": describe_files(step.request.files),
            "base_model": step.request.base_model,
            "model": step.model,
            "seed": step.seed,
            "world_size": self.world.size,
            "versions": package_versions(),
            "git_commit": artifacts.git_commit(Path(__file__).parent),
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            **result,
        }

    @contextmanager
    def _contract(self, step: Step) -> Iterator[processes.Child | None]:
        """Yield a process that will check the saved model, or None if the step makes no model to check.

        The process starts together with the stage, so that its imports overlap with the stage.
        """
        if not step.has_contract:
            yield None
            return
        environment = processes.child_environment(self.environment, self.world, alone=True, port_offset=0)
        child = processes.Child("alignment.models.contract", step.folder / "logs" / "contract.log", environment)
        try:
            yield child
        finally:
            child.stop()


def _remove_old_tokens(step: Step) -> None:
    """Remove the token ids that earlier runs of a stage prepared. The newest token ids are kept for the next run."""
    newest = step.request.prepared
    if newest is None:
        return
    for path in newest.parent.glob(f"{step.name}-*"):
        if path != newest and re.fullmatch(r"[0-9a-f]{12}(\.tmp)?", path.name.removeprefix(f"{step.name}-")):
            shutil.rmtree(path, ignore_errors=True)


def _is_trained(step: Step) -> bool:
    """Whether an earlier run finished training of the stage, but was killed before it wrote artifact.json."""
    return _read_json(step.folder / "result.json") is not None


def _result(step: Step) -> dict[str, Any]:
    result: dict[str, Any] | None = _read_json(step.folder / "result.json")
    if result is None:
        raise StageFailed(f"ended without a result\n{processes.log_tail(step.folder / 'logs' / 'rank0.log')}")
    return result


def _read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None if the file is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


@contextmanager
def _lock(folder: Path, world: World) -> Iterator[None]:
    """Allow only one run at a time in an output folder. Rank 0 holds the lock for all ranks."""
    if world.rank != 0:
        yield
        return
    with (folder / LOCK).open("a") as file:
        with contextlib.suppress(OSError):  # the file system has no locks, like some network file systems
            _acquire(file, folder)
        file.truncate(0)
        yield


def _acquire(file: TextIO, folder: Path) -> None:
    """Lock a file. Wait if the run that holds the lock is stopping.

    Raises:
        ChainStopped: another run holds the lock.
        OSError: the file system has no locks.
    """
    begun, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            stopping = (folder / LOCK).read_text() == _STOPPING
            if time.monotonic() - begun > (STOPPING_SECONDS if stopping else 1):
                message = f"another run of this recipe uses {folder}: wait for it to end, or stop it"
                raise ChainStopped(message) from None
            if stopping and not told:
                logger.info("waiting for a run of this recipe that was stopped and saves its checkpoint ...")
                told = True
            time.sleep(0.2)


@contextmanager
def _stop_on_signals(lock: Path | None) -> Iterator[None]:
    """Raise StopRequested at the first stop signal, and ignore later signals until the stage's process has ended.

    Args:
        lock: the lock file, in which a new run reads that this run is stopping. None on ranks other than 0.
    """

    def stop(number: int, frame: object) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # also while Python ends, which sets other handlers back to the default
        if lock is not None:
            with contextlib.suppress(OSError):
                lock.write_text(_STOPPING)
        raise StopRequested

    try:
        before = {each: signal.signal(each, stop) for each in STOP_SIGNALS}
    except ValueError:  # not in the main thread: the chain runs inside another program
        yield
        return
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the launcher has them blocked
        yield
    except StopRequested:
        raise  # the signals stay ignored until this process ends: the launcher sends them again and again
    except BaseException:
        _restore(before)
        raise
    else:
        _restore(before)


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
