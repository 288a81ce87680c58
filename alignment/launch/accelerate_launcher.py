"""`accelerate launch` for `align run`, and the last word where a user started accelerate by hand.

    python -m alignment.launch.accelerate_launcher [options of accelerate launch] SCRIPT [arguments]

When a script ends with an error, accelerate 1.15 and torch 2.13 raise one of their own in the launching process, whose
traceback would push what the chain said off the screen. `main` leaves it out; `explain` speaks after it.
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Launch, and end as the script ended. What the script itself explained is not explained again."""
    os.environ[_LAUNCHER] = "1"
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # torch's agent would announce the same end in six lines
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch_command(launch_command_parser().parse_args(arguments))
    except subprocess.CalledProcessError as error:
        return _ended({0: error.returncode})
    except ChildFailedError as error:
        return _ended({rank: failure.exitcode for rank, failure in error.failures.items()})
    except SignalException as error:  # torch's agent has ended its processes
        return 128 + int(error.sigval)
    except KeyboardInterrupt:
        return _interrupted()
    return 0


def _interrupted() -> int:
    """Ctrl-C went to the script too: let it end its stage and say so. Another Ctrl-C waits no longer."""
    with contextlib.suppress(ChildProcessError, KeyboardInterrupt):
        while True:
            os.wait()
    return 130


def _ended(codes: Mapping[int, int]) -> int:
    """One line for the first process that ended without a word of its own, by a signal that nobody here sent."""
    killed = {rank: -code for rank, code in codes.items() if code < 0}
    if killed and len(killed) == len(codes):
        rank, number = min(killed.items())
        print(f"stopped: process {rank} was killed by signal {number}; the same command goes on", file=sys.stderr)
    return next((code for code in codes.values() if code > 0), 1)


def explain(text: str, environment: Mapping[str, str] = os.environ) -> None:
    """Print why the chain stopped so that it is the last thing the user reads, whatever launcher started us."""
    if environment.get("RANK", "0") != "0":
        time.sleep(3)  # what stops all ranks is for rank 0 to say; when that ends, the launcher ends this one
    print(text, file=sys.stderr, flush=True)
    if environment.get(_LAUNCHER) or not any(key.startswith("ACCELERATE_") for key in environment):
        return
    if file := environment.get("TORCHELASTIC_ERROR_FILE"):  # torch's agent ends its own message with this
        with contextlib.suppress(OSError):
            Path(file).write_text(json.dumps({"message": text, "timestamp": int(time.time())}), encoding="utf-8")
    elif sys.platform == "linux" and _raises_when_we_fail(os.getppid()):
        _say_again(text)


def _raises_when_we_fail(process: int) -> bool:
    """Whether a process is accelerate's launcher without --quiet."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(b"accelerate" in word for word in words[:3]) and b"--quiet" not in words and b"-q" not in words


def _say_again(text: str) -> None:
    """Leave a process behind that waits for this one's end and for the launcher's traceback, and speaks then."""
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
