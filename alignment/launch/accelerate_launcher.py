"""`accelerate launch` as `align run` uses it, and error messages that stay visible below any launcher's own output.

    python -m alignment.launch.accelerate_launcher [options of accelerate launch] SCRIPT [arguments]

When a script fails, accelerate 1.15 and torch 2.13 raise an error in the launching process, and its traceback scrolls the
chain's message off the screen. `main` suppresses that traceback. `explain` prints the chain's message, and prints it again
after the traceback if the user started accelerate without `main`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_LAUNCHER = "ALIGN_LAUNCHER"
"""Environment variable that tells `explain` that `main` started the script."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `accelerate launch` without its traceback; returns the script's exit code, or 128 plus a signal's number."""
    os.environ[_LAUNCHER] = "1"
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # or torch's agent logs six lines about the same failure
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

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


def _wait_for_interrupted_script() -> int:
    """After Ctrl-C, which the script received too, wait until it has ended its stage; a second Ctrl-C stops waiting."""
    with contextlib.suppress(ChildProcessError, KeyboardInterrupt):
        while True:
            os.wait()
    return 130


def exit_code(codes: Mapping[int, int]) -> int:
    """Return the exit code for failed processes; prints a line if all of them were killed and could not explain
    themselves.

    Args:
        codes: by rank, the process's exit code, negative for a signal.
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
    """Print why the chain stopped, so that it is the last thing on the screen whichever launcher was used.

    Args:
        text: the message.
        environment: environment variables that name the launcher.
    """
    if environment.get("RANK", "0") != "0":
        # Rank 0 reports what stops all ranks; when it ends, the launcher ends this process.
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
    """Whether a process is accelerate's launcher without --quiet."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(b"accelerate" in word for word in words[:3]) and b"--quiet" not in words and b"-q" not in words


def _print_after_exit(text: str) -> None:
    """Fork a process that waits until this one and the launcher's traceback are over, and then prints the message."""
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
