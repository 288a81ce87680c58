"""Sends metrics to an experiment tracker from a thread, so that a slow or unreachable server never delays training."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from alignment.logs import get_logger

logger = get_logger(__name__)

QUEUE_SIZE = 1000
"""Largest number of log calls that wait for the server. Further calls are dropped, and counted."""
RETRY_SECONDS = 10.0
"""Pause after an error, before the same metrics are sent again."""
FINISH_SECONDS = 15.0
"""Longest time for which the end of a stage waits until all metrics are sent."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker shows about the run of one stage."""

    project: str
    group: str
    """Name of the recipe. All stages of a recipe are one group."""
    name: str
    """`recipe/stage`."""
    key: str
    """Id of the run. A resumed stage has the same key and continues its run; a changed stage has another key."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of the stage as text, keyed by their path, for example `train.learning_rate`."""


class Backend(Protocol):
    """An experiment tracker. All methods are called from one thread, and may raise any error."""

    name: str

    def start(self, run: TrackedRun) -> None:
        """Create the run, or continue the run with the same key."""

    def log(self, metrics: Mapping[str, float], step: int, seconds: float) -> None:
        """Log metrics of an optimizer step. `seconds` is the time since the epoch."""

    def finish(self) -> None:
        """End the run."""


@dataclass(frozen=True)
class _Entry:
    metrics: Mapping[str, float]
    step: int
    seconds: float


class BackgroundTracker:
    """Starts a run in a thread, and sends what `log` gets to the backend of the tracker.

    After an error a warning is logged once, and the same metrics are sent again after a pause.
    """

    def __init__(self, backend: Backend, run: TrackedRun) -> None:
        self.backend, self.run = backend, run
        self.dropped = 0
        """Number of log calls whose metrics were never sent."""
        self._entries: queue.Queue[_Entry | None] = queue.Queue(QUEUE_SIZE)
        self._closing = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._send_all, name=f"track-{backend.name}", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue metrics of an optimizer step. Returns at once."""
        try:
            self._entries.put_nowait(_Entry(dict(metrics), step, time.time()))
        except queue.Full:
            self.dropped += 1

    def finish(self, seconds: float = FINISH_SECONDS) -> None:
        """Wait until all metrics are sent, at most for the given time. Warn about metrics that were not sent."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Full):
            self._entries.put(None, timeout=seconds)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._closing.set()  # the daemon thread gives up at its next error
        unsent = self.dropped + sum(entry is not None for entry in list(self._entries.queue))
        if unsent or self._thread.is_alive():
            logger.warning(
                "%s: metrics of %s were not all sent; metrics.jsonl in the stage's folder has them", self.backend.name,
                self.run.name,
            )  # fmt: skip

    def _send_all(self) -> None:
        if not self._until_done(partial(self.backend.start, self.run)):
            return
        while (entry := self._entries.get()) is not None:
            if not self._until_done(partial(self.backend.log, entry.metrics, entry.step, entry.seconds)):
                self.dropped += 1
                return
        self._until_done(self.backend.finish)

    def _until_done(self, action: Callable[[], None]) -> bool:
        """Repeat an action until it raises no error. Return False if the tracker is closed before that."""
        while True:
            try:
                action()
            except Exception as error:  # the libraries raise errors of many packages
                if not self._warned:
                    self._warned = True
                    logger.warning(
                        "%s: %s; training goes on, and the metrics are sent again later", self.backend.name, error
                    )
                if self._closing.wait(RETRY_SECONDS):
                    return False
            else:
                return True
