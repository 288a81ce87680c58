"""Fresh processes for stages and jobs: start them, pass a JSON request, watch them, and end with the parent.

`accelerate launch` starts one conductor per rank. For every stage each conductor starts a child, so that no state of
DeepSpeed, Accelerate or CUDA leaks from one stage into the next. Work for one process runs on rank 0 alone; the other
ranks watch its heartbeat and wait for the artifact, so no collective can time out.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from alignment.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
HEARTBEAT_SECONDS = 5.0
# A rank 0 that has not moved its heartbeat for this long is taken for dead by the ranks that wait for it.
PATIENCE_SECONDS = 300.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class World:
    """This process among all that the launcher started."""

    rank: int
    size: int
    port: int | None

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> World:
        """Read what torchrun and `accelerate launch` set. Raises ValueError where they contradict themselves."""
        if "RANK" not in environment:
            if environment.get("ACCELERATE_USE_CPU") and environment.get("MASTER_PORT"):
                # accelerate 1.15: MULTI_CPU without mpirun asks for several processes and starts one.
                raise ValueError(
                    "accelerate was asked for several CPU processes and started only one. "
                    "Launch with --config_file accelerate_configs/ddp.yaml, which also runs on CPU."
                )
            return World(0, 1, None)
        return World(int(environment["RANK"]), int(environment["WORLD_SIZE"]), int(environment["MASTER_PORT"]))


def child_environment(environment: Mapping[str, str], world: World, alone: bool, port_offset: int) -> dict[str, str]:
    """The environment of a stage's process.

    A stage that runs alone sees no launcher at all. One that runs on every rank gets a port of its own, and rank 0
    of it serves the rendezvous instead of the launcher's agent, whose store still holds the last stage's keys.
    """
    child = {key: value for key, value in environment.items() if not key.startswith("TORCHELASTIC_")}
    if alone:
        for key in (*_LAUNCHED, "GROUP_RANK", "ROLE_RANK", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"):
            child.pop(key, None)
        launched = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_PARALLELISM")
        for key in [key for key in child if key.startswith(launched)]:
            child.pop(key)
    elif world.port is not None:
        child["MASTER_PORT"] = str(world.port + 1 + port_offset)
    child.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    child.setdefault("TOKENIZERS_PARALLELISM", "false")
    child.setdefault("PYTHONUNBUFFERED", "1")
    return child


class ProcessRequest(Settings):
    """What a child process is asked to do. It is sent as JSON on the child's stdin."""

    def to_json(self) -> str:
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse what `to_json` wrote. Raises pydantic's ValidationError, which is a ValueError."""
        return cls.model_validate_json(text)


class Child:
    """A fresh `python -m module`, which reads one JSON request from stdin and ends.

    It starts at once and waits for `finish` to send the request, so that what it imports first costs nobody time.
    Everything it prints goes to `log`; descriptor ALIGN_TERMINAL leads to the user's terminal, for the few lines
    that are meant for a person.
    """

    def __init__(self, module: str, log: Path, environment: Mapping[str, str]):
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self.before = log.stat().st_size if log.exists() else 0  # what an earlier attempt left there
        terminal = os.dup(2)
        own = {**environment, "ALIGN_TERMINAL": str(terminal), "ALIGN_PARENT": str(os.getpid())}
        if (ROOT / "pyproject.toml").is_file():  # a checkout needs no installation
            own["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [own.get("PYTHONPATH")])])
        try:
            with log.open("ab") as output:
                self.process = subprocess.Popen(
                    # -P: a `random.py` or `datasets.py` in the user's working directory is not ours to import.
                    [sys.executable, "-P", "-m", module],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=own,
                    pass_fds=(terminal,),
                )
        finally:
            os.close(terminal)

    def finish(self, request: ProcessRequest) -> None:
        """Send the request and wait for the end. Raises StageFailed."""
        try:
            assert self.process.stdin is not None
            try:
                self.process.stdin.write(request.to_json().encode())
                self.process.stdin.close()
            except BrokenPipeError:
                pass  # it died at once; its exit code says so below
            code = self.process.wait()
        except BaseException:
            self.stop()  # Ctrl-C, or the launcher's SIGTERM turned into an exception: no stage outlives its conductor
            raise
        if code != 0:
            reason = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            words = log_tail(self.log, since=self.before)
            raise StageFailed(f"{reason}{_memory_hint(code)}\n{words}\n  whole log: {self.log}")

    def stop(self) -> None:
        """End it, where it has not ended."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(module: str, request: ProcessRequest, log: Path, environment: Mapping[str, str]) -> None:
    """Run `python -m module` with a JSON request on stdin until it ends. Raises StageFailed."""
    Child(module, log, environment).finish(request)


def _memory_hint(code: int) -> str:
    return " (the kernel's way to end a process when memory runs out)" if code == -signal.SIGKILL else ""


def log_tail(log: Path, lines: int = 12, since: int = 0) -> str:
    """The end of a log, indented, from the byte `since` on: enough to see what went wrong."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, log.stat().st_size - 16_000))
            tail = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"  | {line}" for line in tail[-lines:])


class StageFailed(RuntimeError):
    """A stage's process ended badly; the message says where its log is."""


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent dies, however it dies (Linux).

    `parent` is who it was started by; by default the one that ALIGN_PARENT names.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if str(parent or os.environ.get("ALIGN_PARENT", os.getppid())) != str(os.getppid()):
            os._exit(1)  # the parent died before the kernel knew


@contextmanager
def heartbeat(file: Path) -> Iterator[None]:
    """Keep `file` changing while the body runs, for the ranks that wait."""
    file.parent.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.is_set():
            file.write_text(f"{os.getpid()} {count}")
            count += 1
            stop.wait(HEARTBEAT_SECONDS)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        file.unlink(missing_ok=True)


def wait_for(done: Callable[[], bool], file: Path, what: str, patience: float = PATIENCE_SECONDS) -> None:
    """Wait until `done()`, as long as the heartbeat in `file` keeps changing. Raises StageFailed.

    Only changes count, not times: clocks of several machines need not agree.
    """
    seen, since = "", time.monotonic()
    while not done():
        try:
            now = file.read_text()
        except OSError:
            now = seen
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > patience:
            raise StageFailed(f"rank 0 showed no sign of life for {patience:.0f} s while it should {what}")
        time.sleep(0.1)
