"""Child processes of stages and jobs: start them, send a request, watch them, and end them with their parent.

`accelerate launch` starts one conductor per rank. For every stage each conductor starts a child process, so that no state of
DeepSpeed, Accelerate or CUDA passes from one stage to the next. Work that needs one process runs on rank 0; the other ranks
watch its heartbeat file and wait for the artifact, so that no collective can time out.
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
"""Time between two changes of a heartbeat file."""
PATIENCE_SECONDS = 300.0
"""Other ranks count rank 0 as dead if its heartbeat file has not changed for this long."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class StageFailed(RuntimeError):
    """A child process failed; the message names its log."""


@dataclass(frozen=True)
class World:
    """This process among all that the launcher started."""

    rank: int
    size: int
    port: int | None
    """The launcher's rendezvous port; None without a launcher."""

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> World:
        """Read the variables that torchrun and `accelerate launch` set.

        Raises:
            ValueError: several processes were asked for and only one was started.
        """
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
    """Return the environment of a stage's process.

    Args:
        environment: the environment of this process.
        world: this process among all ranks.
        alone: whether the stage runs in one process, which then must not see the launcher's variables.
        port_offset: a number per stage. A stage that runs on every rank gets a rendezvous port of its own, which its rank
            0 serves: the store of the launcher's agent still holds the keys of the stage before.
    """
    child = {key: value for key, value in environment.items() if not key.startswith("TORCHELASTIC_")}
    if alone:
        for key in (*_LAUNCHED, "GROUP_RANK", "ROLE_RANK", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"):
            child.pop(key, None)
        prefixes = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_PARALLELISM")
        for key in [key for key in child if key.startswith(prefixes)]:
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
        """Return the request as JSON text."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse what `to_json` wrote. Raises pydantic's ValidationError, which is a ValueError."""
        return cls.model_validate_json(text)


class Child:
    """A new process `python -m module`, which reads one request from stdin and then works.

    It is started at once and waits for the request, so that its imports can overlap with other work. Its output goes to a
    log file; the environment variable ALIGN_TERMINAL has the number of a file descriptor that leads to the user's terminal
    (see `alignment.logs`).
    """

    def __init__(self, module: str, log: Path, environment: Mapping[str, str]):
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self.log_start = log.stat().st_size if log.exists() else 0  # an earlier attempt may have written to it
        terminal = os.dup(2)
        variables = {**environment, "ALIGN_TERMINAL": str(terminal), "ALIGN_PARENT": str(os.getpid())}
        if (ROOT / "pyproject.toml").is_file():  # a checkout needs no installation
            variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [variables.get("PYTHONPATH")])])
        try:
            with log.open("ab") as output:
                self.process = subprocess.Popen(
                    # -P: do not import a `random.py` or `datasets.py` of the user's working directory.
                    [sys.executable, "-P", "-m", module],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=variables,
                    pass_fds=(terminal,),
                )
        finally:
            os.close(terminal)

    def finish(self, request: ProcessRequest) -> None:
        """Send the request and wait for the process to end. Raises StageFailed if it does not end with exit code 0."""
        try:
            assert self.process.stdin is not None
            try:
                self.process.stdin.write(request.to_json().encode())
                self.process.stdin.close()
            except BrokenPipeError:
                pass  # the process died at once; its exit code is handled below
            code = self.process.wait()
        except BaseException:
            self.stop()  # Ctrl-C, or the launcher's SIGTERM turned into an exception: end the child with its conductor
            raise
        if code != 0:
            reason = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            tail = log_tail(self.log, since=self.log_start)
            raise StageFailed(f"{reason}{_memory_hint(code)}\n{tail}\n  whole log: {self.log}")

    def stop(self) -> None:
        """End the process if it still runs."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(module: str, request: ProcessRequest, log: Path, environment: Mapping[str, str]) -> None:
    """Run `python -m module` with a request on stdin until it ends. Raises StageFailed."""
    Child(module, log, environment).finish(request)


def _memory_hint(code: int) -> str:
    return " (this is how Linux ends a process when memory runs out)" if code == -signal.SIGKILL else ""


def log_tail(log: Path, lines: int = 12, since: int = 0) -> str:
    """Return the last lines of a log, indented. Empty if there is no log.

    Args:
        log: the file.
        lines: at most this many lines.
        since: skip this many bytes at the start of the file.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(since, log.stat().st_size - 16_000))
            tail = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"  | {line}" for line in tail[-lines:])


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent dies, however it dies (Linux only).

    Args:
        parent: process id of the parent; by default the one in ALIGN_PARENT.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if str(parent or os.environ.get("ALIGN_PARENT", os.getppid())) != str(os.getppid()):
            os._exit(1)  # the parent died before the call


@contextmanager
def heartbeat(file: Path) -> Iterator[None]:
    """Change `file` every few seconds while the body runs, for the ranks that wait; remove it afterwards."""
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


def wait_for(done: Callable[[], bool], file: Path, task: str, patience: float = PATIENCE_SECONDS) -> None:
    """Wait until `done()` is true, as long as a heartbeat file keeps changing.

    Only changes of the content count, not times: the clocks of several machines need not agree.

    Args:
        done: the condition.
        file: the heartbeat file of rank 0.
        task: what rank 0 is doing, for the error message: "run 'sft'".
        patience: seconds without a change after which rank 0 counts as dead.

    Raises:
        StageFailed: rank 0 is dead.
    """
    last, since = "", time.monotonic()
    while not done():
        try:
            beat = file.read_text()
        except OSError:
            beat = last
        if beat != last:
            last, since = beat, time.monotonic()
        elif time.monotonic() - since > patience:
            raise StageFailed(f"rank 0 showed no sign of life for {patience:.0f} s while it should {task}")
        time.sleep(0.1)
