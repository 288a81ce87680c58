"""Runs `accelerate launch` for `align run`, and keeps the chain's error message visible below the launcher's output.

    python -m alignment.launch.accelerate_launcher [options of accelerate launch] SCRIPT [arguments]

When a script fails, accelerate 1.15 and torch 2.13 raise an error in the launching process. The traceback of this error
scrolls the chain's message off the screen. `main` suppresses the traceback. `explain` prints the chain's message. If
the user started accelerate without `main`, `explain` prints the message again after the traceback.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from alignment.processes import REQUEUE_CODE, STOP_SIGNALS

_LAUNCHER = "ALIGN_LAUNCHER"
"""Environment variable that `main` sets. It tells `explain` that `main` started the script."""
_STOP_MARK = "ALIGN_STOP_MARK"
"""Environment variable with the path of a file. `stopped_code` creates the file to tell `main` about a stop signal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `accelerate launch` without its traceback, and pass stop signals on to the script's processes.

    Returns:
        The script's exit code, `REQUEUE_CODE` after a stop signal, or 128 plus a signal's number.
    """
    os.environ[_LAUNCHER] = "1"
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "stopped"
        os.environ[_STOP_MARK] = str(mark)
        with _forwarded_stop_signals():
            code = _launch(arguments)
        return REQUEUE_CODE if mark.exists() else code


def _launch(arguments: Sequence[str] | None) -> int:
    """Run `accelerate launch`. Return the script's exit code, or 128 plus the signal's number."""
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # otherwise torch's agent logs six lines about the same failure
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # Accelerate warns about every default that it chooses, although the launch file is complete.
    logging.getLogger("accelerate.commands.launch").setLevel(logging.ERROR)
    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except subprocess.CalledProcessError as error:
        return exit_code({0: error.returncode})
    except ChildFailedError as error:
        return exit_code({rank: failure.exitcode for rank, failure in error.failures.items()})
    except SignalException as error:  # torch's agent has ended its processes
        return 128 + int(error.sigval)
    except KeyboardInterrupt:
        return _wait_for_interrupted_script()
    return 0


@contextlib.contextmanager
def _forwarded_stop_signals() -> Iterator[None]:
    """Pass stop signals on to the child processes while the body runs.

    The signals are blocked, and a thread receives them. Torch's agent would otherwise receive them, and kill its
    processes after 30 seconds. Child processes inherit the block. A child process ends the block when it can handle the
    signals.
    """
    ended = threading.Event()

    def forward() -> None:
        number = None
        while not ended.is_set():
            if number is None:
                received = signal.sigtimedwait(STOP_SIGNALS, 0.5)
                number = None if received is None else received.si_signo
            else:
                ended.wait(0.5)
            if number is not None:  # sent repeatedly, because a child may not have started yet
                for child in psutil.Process().children():
                    with contextlib.suppress(psutil.Error):
                        child.send_signal(number)

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def stopped_code(environment: Mapping[str, str] = os.environ) -> int:
    """Return the exit code of a script that a stop signal ended.

    Below `main` the exit code is 0, because torch's agent starts the processes again after any other code. A file tells
    `main` about the stop, and `main` then returns `REQUEUE_CODE`.
    """
    if mark := environment.get(_STOP_MARK):
        with contextlib.suppress(OSError):
            Path(mark).touch()
            return 0
    return REQUEUE_CODE


def _wait_for_interrupted_script() -> int:
    """Wait until the script has ended after Ctrl-C, which the terminal also sends to the script.

    A second Ctrl-C ends the wait.
    """
    with contextlib.suppress(ChildProcessError, KeyboardInterrupt):
        while True:
            os.wait()
    return 130


def exit_code(codes: Mapping[int, int]) -> int:
    """Return one exit code for all failed processes.

    If all processes were killed, no process could print a message, so this function prints a message.

    Args:
        codes: exit code of each failed process by rank. A negative code is the number of a signal.
    """
    killed = {rank: -code for rank, code in codes.items() if code < 0}
    if killed and len(killed) == len(codes):
        rank, number = min(killed.items())
        print(
            f"stopped: process {rank} was killed by signal {number}. Run the same command again to resume.",
            file=sys.stderr,
        )
    return next((code for code in codes.values() if code > 0), 1)


def explain(text: str, environment: Mapping[str, str] = os.environ) -> None:
    """Print why the chain stopped. The message is the last text on the screen, whichever launcher was used.

    Args:
        text: the message.
        environment: environment variables that show which launcher was used.
    """
    if environment.get("RANK", "0") != "0":
        # Rank 0 reports the error that stops all ranks. When rank 0 ends, the launcher ends this process.
        time.sleep(3)
    print(text, file=sys.stderr, flush=True)
    if environment.get(_LAUNCHER) or not any(key.startswith("ACCELERATE_") for key in environment):
        return
    if file := environment.get("TORCHELASTIC_ERROR_FILE"):  # torch's agent shows this file after its own message
        with contextlib.suppress(OSError):
            Path(file).write_text(json.dumps({"message": text, "timestamp": int(time.time())}), encoding="utf-8")
    elif sys.platform == "linux" and _prints_traceback(os.getppid()):
        _print_after_exit(text)


def _prints_traceback(process: int) -> bool:
    """Whether a process prints a traceback: it is accelerate's launcher without the option --quiet."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(b"accelerate" in word for word in words[:3]) and b"--quiet" not in words and b"-q" not in words


def _print_after_exit(text: str) -> None:
    """Fork a process that prints the message after this process has ended and the launcher has printed a traceback."""
    parent = os.getpid()
    if os.fork():
        return
    deadline = time.monotonic() + 5
    while os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
