"""The chain: runs the steps of a recipe that are not done yet, each in fresh processes.

Knows nothing of what a kind of stage does. A step is done when its artifact.json is there; killed halfway, the same
command goes on; changed, it and what follows it run anew beside the old artifacts.
"""

from __future__ import annotations

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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignment import processes
from alignment.chain import artifacts, deepspeed_extensions, ladder
from alignment.chain.plan import Step, plan
from alignment.export.engine_environment import engine_python
from alignment.files import write_json, write_text
from alignment.fingerprints import fingerprint, package_versions
from alignment.logs import format_duration, get_logger
from alignment.planning import disk
from alignment.processes import StageFailed, World, heartbeat, wait_for
from alignment.recipe import ExportStage, Recipe, launch_file
from alignment.recipe.export_checks import engines_needed

logger = get_logger(__name__)


class ChainStopped(RuntimeError):
    """The chain ended before its last step; the message says why, and what to do."""


def run(recipe: Recipe, environment: Mapping[str, str] = os.environ, until: str | None = None) -> list[Step]:
    """Run every step that is not done, up to and including `until`, and return all steps.

    Raises:
        ChainStopped: if a stage fails, a gate is broken, or the recipe can't be run as it is.
    """
    world = World.from_environment(environment)
    if world.rank == 0:
        recipe.folder.mkdir(parents=True, exist_ok=True)
    with _lock(recipe.folder, world), _terminable():
        steps = plan(recipe)
        if until is not None and until not in [step.name for step in steps]:
            raise ValueError(f"there is no step {until!r}: {', '.join(step.name for step in steps)}")
        if world.rank == 0:
            layout = launch_file.layout_of(recipe.launch.path() if recipe.launch else None)
            disk.check(recipe, layout, [step.name for step in steps if step.artifact() is not None])
            _configs_checked(recipe, steps, environment)
            _engines_ready(steps)
        for number, step in enumerate(steps):
            _run_step(recipe, step, steps, number, world, environment)
            if step.name == until:
                break
    return steps


def _run_step(
    recipe: Recipe, step: Step, steps: Sequence[Step], number: int, world: World, environment: Mapping[str, str]
) -> None:
    position = f"[{number + 1}/{len(steps)}] {step.name}"
    if step.artifact() is None:
        if world.rank == 0:
            logger.info(f"{position} ({step.kind}) ...")
        try:
            if step.trains or world.rank == 0:
                _execute(recipe, step, number, world, environment)
            else:
                pulse = step.folder / "heartbeat"
                wait_for(lambda: step.artifact() is not None, pulse, f"run {step.name!r}")
        except StageFailed as error:
            raise ChainStopped(
                f"stage {step.name!r} {error}\n{disk.full(step.folder)}"
                "  Everything before it is kept. Mend what the log names and run the same command again: "
                "it goes on from here."
            ) from None
    elif world.rank == 0:
        logger.info(f"{position}: already done, {step.folder.name}")
    if world.rank == 0:
        for temporary in ("checkpoints", "prepared", "start"):  # also what a kill after the artifact left
            shutil.rmtree(step.folder / temporary, ignore_errors=True)
        _forget_rows(step)
        artifacts.link(recipe.folder, step.name, step.folder)
        if step.rung is not None:
            for line in ladder.table([step]):
                logger.info(f"      {line}")
            ladder.write(recipe, steps)
    failed = ladder.broken_gates(recipe, step, steps)
    if failed:
        raise ChainStopped(
            "\n".join(failed)
            + "\n  All artifacts are kept. Change the stage's settings and run again (only it and what follows runs "
            "anew), or allow more in its `gate`."
        )


def _forget_rows(step: Step) -> None:
    """Keep a stage's newest token ids for the next run, and no others."""
    if not step.request["prepared"]:
        return
    kept = Path(step.request["prepared"])
    for path in kept.parent.glob(f"{step.name}-*"):
        if path != kept and re.fullmatch(r"[0-9a-f]{12}(\.tmp)?", path.name.removeprefix(f"{step.name}-")):
            shutil.rmtree(path, ignore_errors=True)


def _execute(recipe: Recipe, step: Step, number: int, world: World, environment: Mapping[str, str]) -> None:
    started, clock = datetime.now(UTC), time.monotonic()
    logs = step.folder / "logs"
    child = processes.child_environment(environment, world, alone=not step.trains, port_offset=number)
    if child.get("ACCELERATE_USE_DEEPSPEED") == "true":
        deepspeed_extensions.prepare(child)
    trained = _json(step.folder / "result.json") is not None  # killed between training and the artifact
    if world.rank != 0:
        if not trained:
            processes.run("alignment.stages", step.request, logs / f"rank{world.rank}.log", child)
        pulse = step.folder / "heartbeat"
        wait_for(lambda: step.artifact() is not None, pulse, f"finish {step.name!r}")
        return
    with heartbeat(step.folder / "heartbeat"), _contract(step, world, environment) as contract:
        if not trained:
            processes.run("alignment.stages", step.request, logs / "rank0.log", child)
        result = _result(step)
        if contract is not None:
            contract.finish(
                {
                    "model": str(step.folder / "model"),
                    "kind": step.kind,
                    "out": str(step.folder),
                    "must_stop": recipe.contract.must_stop,
                }
            )
            result["contract"] = _json(step.folder / "contract.json")
        seconds = time.monotonic() - clock
        write_json(
            step.folder / artifacts.ARTIFACT,
            {
                "stage": step.name,
                "kind": step.kind,
                "fingerprint": step.fingerprint,
                "settings": step.request["stage"],
                "inputs": step.inputs,
                "model": step.model,
                "seed": step.seed,
                "world_size": world.size,
                "versions": package_versions(),
                "git_commit": artifacts.git_commit(Path(__file__).parent),
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(seconds, 1),
                **result,
            },
        )
    logger.info(f"      done in {format_duration(seconds)}")


@contextmanager
def _contract(step: Step, world: World, environment: Mapping[str, str]) -> Iterator[processes.Child | None]:
    """The process that will load what was saved: started with the stage, so that nothing waits for its imports."""
    if not step.trains:
        yield None
        return
    alone = processes.child_environment(environment, world, alone=True, port_offset=0)
    child = processes.Child("alignment.models.contract", step.folder / "logs" / "contract.log", alone)
    try:
        yield child
    finally:
        child.stop()


def _result(step: Step) -> dict[str, Any]:
    result = _json(step.folder / "result.json")
    if result is None:
        raise StageFailed(f"ended without a result\n{processes.last_words(step.folder / 'logs' / 'rank0.log')}")
    return result


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _configs_checked(recipe: Recipe, steps: Sequence[Step], environment: Mapping[str, str]) -> None:
    """Build TRL's dataclasses once for real, before the first step: an impossible setting must not surface hours in.

    Costs the import of TRL, so it is skipped when all is done or the same settings passed before on this machine.
    """
    waiting = [step.request["stage"] for step in steps if step.trains and step.artifact() is None]
    if not waiting:
        return
    request = {
        "stages": waiting,
        "fsdp": environment.get("ACCELERATE_USE_FSDP") == "true",
        "processes": int(environment.get("LOCAL_WORLD_SIZE", "1")),
    }
    mark = fingerprint([request, package_versions(), platform.node()])
    passed = recipe.folder / ".configs-checked"
    if passed.is_file() and passed.read_text() == mark:
        return
    child = processes.child_environment(environment, World(0, 1, None), alone=True, port_offset=0)
    log = recipe.folder / "check.log"
    log.unlink(missing_ok=True)
    try:
        processes.run("alignment.stages.configs", request, log, child)
    except StageFailed:
        raise ChainStopped(f"this can't be run as it is:\n{processes.last_words(log)}") from None
    write_text(passed, mark)


def _engines_ready(steps: Sequence[Step]) -> None:
    """Make the environments that exports will need now: days later is no time to find that there is no network."""
    for step in steps:
        if not isinstance(step.stage, ExportStage) or step.artifact() is not None:
            continue
        for engine in engines_needed(step.stage):
            try:
                engine_python(engine)
            except ValueError as error:
                raise ChainStopped(f"{step.name}: {error}") from None


@contextmanager
def _lock(folder: Path, world: World) -> Iterator[None]:
    """One chain at a time per output folder: rank 0 holds the lock for all."""
    if world.rank != 0:
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ChainStopped(
                f"another run of this recipe is under way in {folder}: wait for it, or stop it"
            ) from None
        except OSError:
            pass  # a file system without locks (some network mounts): go on unguarded
        yield


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn the launcher's SIGTERM into an exception, so that the stage's process is ended too."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: somebody else's program
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
