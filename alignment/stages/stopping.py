"""Stop signals in a stage's process: training goes on to the end of its step and saves a checkpoint, other work ends at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from alignment.processes import STOP_SIGNALS, StopRequested


class StopSwitch:
    """Whether a stop signal was received, and whether it has to wait for the end of a step."""

    def __init__(self) -> None:
        self.requested = False
        self.deferred = False

    def install(self) -> None:
        """Handle the stop signals of this process from now on; workers that it forks inherit that."""
        for each in STOP_SIGNALS:
            signal.signal(each, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        self.requested = True
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # also while Python ends, which sets other handlers back to the default
        if not self.deferred:
            raise StopRequested

    @contextmanager
    def until_step_ends(self) -> Iterator[None]:
        """Defer stop signals while the body runs; raises StopRequested after the body if one was received."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        if self.requested:
            raise StopRequested


SWITCH = StopSwitch()
"""The switch of this process."""
