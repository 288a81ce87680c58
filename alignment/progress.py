"""Progress messages of long work: done, total, rate and time left, on stderr.

    progress = Progress("humaneval", 164, "completions", amount_unit="tokens")
    for completion in engine.generate(jobs):
        progress.advance(1, completion.tokens)
    # humaneval: 60/164 completions, 75 tokens/s, 3 min left

On a terminal, the messages of all work that goes on are a block at the bottom of the screen, which is updated in place:

    [4/7] pretrain  ━━━━━━━━━━━──────────  60/96 steps, 62%
    loss 1.1908, 66 tokens/s, 26 min left

Elsewhere they are log lines, at most one every 15 seconds, so that log files stay short. Results go to stdout, so that
commands with `--json` show progress too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, as_completed
from typing import ClassVar, TypeVar

from alignment.logs import ERASE, IN_BLOCK, format_duration, get_logger, live_terminal

logger = get_logger(__name__)
T = TypeVar("T")

TERMINAL_SECONDS, LOG_SECONDS = 0.25, 15.0
"""Least time between two updates of the block on a terminal, and between two log lines."""
FINAL_SECONDS = 2.0
"""On a terminal, work that took this long leaves a line with its final counts."""
STEP = "ALIGN_STEP"
"""Environment variable with the number and the name of the step that a process runs, for example `[4/7] pretrain`."""
_BAR = 24  # characters
_STALE_SECONDS = 60.0
ESTIMATE_SHARE = 0.05
"""Share of the items that must be done before a message has the time left: the first items take longer, for example
because all prompts of a batch are read before the first completion ends."""


class LiveView:
    """The lines of one piece of work in the block at the bottom of the terminal.

    Without a terminal, and in processes other than rank 0, nothing is shown.
    """

    _open: ClassVar[list[LiveView]] = []
    """The views of this process. The first one is the outermost work."""
    _lock = threading.Lock()

    def __init__(self, label: str, total: int = 0, unit: str = "") -> None:
        """Prepare a view.

        Args:
            label: name of the work. If it is empty, the view has only the name of the step.
            total: number of items, or 0 if the number is unknown.
            unit: what the items are.
        """
        self.label, self.total, self.unit = label, total, unit
        self.active = os.environ.get("RANK", "0") == "0" and live_terminal() is not None
        self.lines: list[str] = []
        self.shown = float("-inf")

    def due(self, now: float) -> bool:
        """Whether the block may be updated now. This is the only cost of most steps."""
        return self.active and now - self.shown >= TERMINAL_SECONDS

    def show(self, done: int, details: str, now: float) -> None:
        """Update the block. `details` are figures, rate and time left."""
        if not self.active:
            return
        self.shown = now
        share = min(done / self.total, 1.0) if self.total else 0.0
        filled = round(share * _BAR)
        count = f"{done:,}/{self.total:,} {self.unit}".rstrip() if self.total else f"{done:,} {self.unit}".rstrip()
        bar = f"{'━' * filled}{'─' * (_BAR - filled)}  {count}, {share:.0%}" if self.total else count
        self.lines = ["  ".join(filter(None, [self.label, bar])), *([details] if details else [])]
        with self._lock:
            if self not in self._open:
                self._open.append(self)
                if len(self._open) == 1:
                    atexit.register(self.close)
            self._draw(now)

    def close(self) -> None:
        """Remove the lines from the block."""
        with self._lock:
            if self in self._open:
                self._open.remove(self)
                self._draw(self.shown)

    @classmethod
    def _draw(cls, now: float) -> None:
        terminal = live_terminal()
        if terminal is None:
            return
        step = os.environ.get(STEP, "")
        fresh = [view for view in cls._open if now - view.shown < _STALE_SECONDS]
        lines = [line for view in fresh for line in view.lines]
        if lines and step:
            lines[0] = f"{step}  {lines[0]}"
        with contextlib.suppress(OSError, ValueError):  # the terminal was closed
            columns = max(20, (os.get_terminal_size(terminal).columns or 80) - 1)
            text = "\n".join(line[:columns] for line in lines)
            back = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
            os.write(terminal, f"{ERASE}{text}{back}\r".encode())


class Progress:
    """Counts finished items and logs the count, the rate and the time left."""

    def __init__(self, label: str, total: int = 0, unit: str = "", *, amount_unit: str = "") -> None:
        """Start the clock.

        Args:
            label: name of the work, with which every message begins.
            total: number of items, or 0 if the number is unknown. Messages then have no time left.
            unit: what the items are, for example `programs`.
            amount_unit: unit of the amounts given to `advance`, for example `tokens` or `MB`. The rate is then the amount
                per second. Without a unit, the rate is the number of items per second.
        """
        self.label, self.total, self.unit, self.amount_unit = label, total, unit, amount_unit
        self.done = self._logged = 0
        self.amount = 0.0
        self.started = self.logged = time.monotonic()
        self._view = LiveView(label, total, unit)

    def advance(self, count: int = 1, amount: float = 0.0) -> None:
        """Add `count` finished items with the given amount, and log a message if the last one is old enough."""
        self.done += count
        self.amount += amount
        now = time.monotonic()
        if self._view.due(now):
            self._view.show(self.done, self._pace(now), now)
        if now - self.logged >= LOG_SECONDS:
            self.logged, self._logged = now, self.done
            logger.info("%s", self.message(now), extra=IN_BLOCK)

    def finish(self) -> None:
        """Log the final counts, if the work took long enough for at least one message."""
        now = time.monotonic()
        self._view.close()
        least = FINAL_SECONDS if self._view.active else LOG_SECONDS
        if now - self.started >= least and (self._logged < self.done or self._view.active):
            logger.info("%s", self.message(now))

    def message(self, now: float) -> str:
        """Return the message at a time of the monotonic clock."""
        count = f"{self.done:,}/{self.total:,}" if self.total else f"{self.done:,}"
        return f"{self.label}: {f'{count} {self.unit}'.rstrip()}, {self._pace(now)}"

    def _pace(self, now: float) -> str:
        """Return the rate, and the time left or in total."""
        elapsed = max(now - self.started, 1e-9)
        rate = (self.amount if self.amount_unit else self.done) / elapsed
        parts = [f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"]
        parts[-1] += f" {self.amount_unit}/s" if self.amount_unit else "/s"
        if ESTIMATE_SHARE * self.total <= self.done < self.total:
            parts.append(f"{format_duration(elapsed / self.done * (self.total - self.done))} left")
        elif self.total and self.done >= self.total:
            parts.append(f"{format_duration(elapsed)} in total")
        return ", ".join(parts)


def track(items: Collection[T], label: str, unit: str = "") -> Iterator[T]:
    """Yield items, and log the progress after each of them."""
    progress = Progress(label, len(items), unit)
    for item in items:
        yield item
        progress.advance()
    progress.finish()


def results(futures: Iterable[Future[T]], label: str, unit: str = "programs") -> list[T]:
    """Wait for all futures, log the progress, and return their results in order.

    If a future raises an exception, the futures that have not started are cancelled, and the exception is raised at once.
    """
    waiting = list(futures)
    progress = Progress(label, len(waiting), unit)
    for future in as_completed(waiting):
        if (error := future.exception()) is not None:
            for other in waiting:
                other.cancel()
            raise error
        progress.advance()
    progress.finish()
    return [future.result() for future in waiting]
