"""Starts the child processes of stages and jobs, sends them requests, watches them, and ends them with their parent.

`accelerate launch` starts one process per rank (the conductor). Each conductor runs every stage in a new child process,
so that no state of DeepSpeed, Accelerate or CUDA passes from one stage to the next. Work for a single process runs on
rank 0. Meanwhile the other ranks watch the heartbeat file of rank 0 until its result exists. They do not wait in a
collective operation, because that could time out.
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
"""Seconds between two changes of a heartbeat file."""
PATIENCE_SECONDS = 300.0
"""If rank 0's heartbeat file has not changed for this many seconds, the other ranks consider rank 0 dead."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Signals by which schedulers announce the end of a job: Kubernetes, Slurm and spot machines send SIGTERM, and Slurm's
`--signal` is commonly used with SIGUSR1."""
REQUEUE_CODE = 75
"""Exit code of a run that a signal stopped, and that resumes when it is started again (EX_TEMPFAIL of BSD's
sysexits.h)."""


class StageFailed(RuntimeError):
    """Raised when a child process ended with an error, or rank 0 stopped responding."""


class StopRequested(SystemExit):
    """Raised when a stop signal is received. The process then ends with the exit code `REQUEUE_CODE`."""

    def __init__(self) -> None:
        super().__init__(REQUEUE_CODE)


@dataclass(frozen=True)
class World:
    """The rank of this process and the number of processes that the launcher started."""

    rank: int
    size: int
    port: int | None
    """The launcher's rendezvous port. None if no launcher started this process."""

    @staticmethod
    def from_environment(environment: Mapping[str, str]) -> World:
        """Read the variables that torchrun and `accelerate launch` set.

        Raises:
            ValueError: the launcher was asked for several processes, but started only one.
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
        world: rank of this process and number of processes.
        alone: whether the stage runs in one process only. If so, the launcher's variables are removed.
        port_offset: a different number for each stage. It determines the rendezvous port of a stage that runs on every
            rank. Rank 0 of the stage serves this port. The launcher's own port cannot be used, because its store still
            contains the keys of the previous stage.
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
    """Base class of requests. A request tells a child process what to do and is sent as JSON to the child's stdin."""

    def to_json(self) -> str:
        """Return the request as JSON text."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse JSON text that `to_json` returned. Raises pydantic's ValidationError, which is a ValueError."""
        return cls.model_validate_json(text)


class Child:
    """A child process `python -m module` that reads one request from stdin and carries it out.

    The constructor starts the process. The process imports its modules while the parent still prepares the request. The
    output of the process goes to a log file. Its environment variable ALIGN_TERMINAL contains the number of a file
    descriptor that leads to the user's terminal (see `alignment.logs`).
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

    def send(self, request: ProcessRequest) -> None:
        """Send the request. The process begins with it as soon as it has imported its modules."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(request.to_json().encode())
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # the process died at once; `wait` reports its exit code

    def finish(self, request: ProcessRequest) -> None:
        """Send the request and wait until the process ends. Raises what `wait` raises."""
        try:
            self.send(request)
        except BaseException:
            self.stop()
            raise
        self.wait()

    def wait(self) -> None:
        """Wait until the process ends.

        Raises:
            StageFailed: the exit code of the process is not 0.
            StopRequested: a stop signal was received. If this process received the signal, the signal is first passed
                on to the child, and the child has ended.
        """
        try:
            code = self.process.wait()
        except StopRequested:
            self.stop(
                patience=None
            )  # training saves a checkpoint; the scheduler kills what takes longer than its grace
            raise
        except BaseException:
            self.stop()  # Ctrl-C: end the child with its conductor
            raise
        if code == REQUEUE_CODE:
            raise StopRequested
        if code != 0:
            reason = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            tail = log_tail(self.log, since=self.log_start)
            raise StageFailed(f"{reason}{_memory_hint(code)}\n{tail}\n  whole log: {self.log}")

    def stop(self, patience: float | None = 10) -> None:
        """End the process if it is still running: send SIGTERM, then SIGKILL after `patience` seconds (None: never send
        SIGKILL).
        """
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(module: str, request: ProcessRequest, log: Path, environment: Mapping[str, str]) -> None:
    """Run `python -m module` with a request on stdin. Raises StageFailed if its exit code is not 0."""
    Child(module, log, environment).finish(request)


def _memory_hint(code: int) -> str:
    return " (this is how Linux ends a process when memory runs out)" if code == -signal.SIGKILL else ""


def log_tail(log: Path, lines: int = 12, since: int = 0) -> str:
    """Return the last lines of a log file, indented. Return an empty string if there is no log file.

    Args:
        log: path of the log file.
        lines: maximum number of lines.
        since: number of bytes at the start of the file that are not read.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(since, log.stat().st_size - 16_000))
            tail = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"  | {line}" for line in tail[-lines:])


def die_with_parent(parent: int | None = None, last_signal: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when its parent ends for any reason (Linux only).

    Args:
        parent: process id of the parent. By default the value of the environment variable ALIGN_PARENT.
        last_signal: the signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, last_signal)
        if str(parent or os.environ.get("ALIGN_PARENT", os.getppid())) != str(os.getppid()):
            os._exit(1)  # the parent died before the call


@contextmanager
def heartbeat(file: Path) -> Iterator[None]:
    """Write a new number to the heartbeat file every few seconds while the body runs, then remove the file.

    The ranks that wait for this process call `wait_for` with this file.
    """
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
    """Wait until `done()` returns True. Raise an error if the heartbeat file of rank 0 stops changing.

    The content of the file is compared, not its modification time: the clocks of several machines may differ.

    Args:
        done: function that returns whether the wait is over.
        file: the heartbeat file of rank 0.
        task: what rank 0 should do, for the error message, for example "run 'sft'".
        patience: seconds without a change after which rank 0 is considered dead.

    Raises:
        StageFailed: the file did not change for `patience` seconds.
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
