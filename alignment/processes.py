"""Processes that work together: ending with the parent, and waiting for another process by its heartbeat."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HEARTBEAT_SECONDS = 5.0
# A rank 0 that has not moved its heartbeat for this long is taken for dead by the ranks that wait for it.
PATIENCE_SECONDS = 300.0
_PR_SET_PDEATHSIG = 1


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
