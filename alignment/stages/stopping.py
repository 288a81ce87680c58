"""Handle stop signals in a stage's process: training ends its step and saves a checkpoint, other work ends at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from alignment.processes import STOP_SIGNALS, StopRequested


class StopSwitch:
    """Records whether a stop signal was received, and raises StopRequested at once or at the end of the training
    step.
    """

    def __init__(self) -> None:
        self.requested = False
        self.deferred = False

    def install(self) -> None:
        """Install the handlers of the stop signals. Worker processes that are forked later inherit the handlers."""
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
        """Defer stop signals while the body runs. Raise StopRequested after the body if a stop signal was received."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        if self.requested:
            raise StopRequested


SWITCH = StopSwitch()
"""The only `StopSwitch` of this process."""
