"""Progress messages of long work: done, total, rate and time left, as log lines on stderr.

    progress = Progress("humaneval", 164, "completions", amount_unit="tokens")
    for completion in engine.generate(jobs):
        progress.advance(1, completion.tokens)
    # humaneval: 60/164 completions, 75 tokens/s, 3 min left

Messages are written at most every two seconds on a terminal, and every 15 seconds elsewhere, so that log files stay
short. Results go to stdout, so that commands with `--json` show progress too.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, as_completed
from typing import TypeVar

from alignment.logs import format_duration, get_logger

logger = get_logger(__name__)
T = TypeVar("T")

TERMINAL_SECONDS, LOG_SECONDS = 2.0, 15.0
"""Least time between two messages, on a terminal and elsewhere."""
ESTIMATE_SHARE = 0.05
"""Share of the items that must be done before a message has the time left: the first items take longer, for example
because all prompts of a batch are read before the first completion ends."""


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
        self._seconds = TERMINAL_SECONDS if _on_terminal() else LOG_SECONDS

    def advance(self, count: int = 1, amount: float = 0.0) -> None:
        """Add `count` finished items with the given amount, and log a message if the last one is old enough."""
        self.done += count
        self.amount += amount
        now = time.monotonic()
        if now - self.logged >= self._seconds:
            self.logged, self._logged = now, self.done
            logger.info("%s", self.message(now))

    def finish(self) -> None:
        """Log the final counts, if the work took long enough for at least one message."""
        now = time.monotonic()
        if now - self.started >= self._seconds and self._logged < self.done:
            logger.info("%s", self.message(now))

    def message(self, now: float) -> str:
        """Return the message at a time of the monotonic clock."""
        elapsed = max(now - self.started, 1e-9)
        count = f"{self.done:,}/{self.total:,}" if self.total else f"{self.done:,}"
        parts = [f"{count} {self.unit}".rstrip()]
        rate = (self.amount if self.amount_unit else self.done) / elapsed
        parts.append(f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}")
        parts[-1] += f" {self.amount_unit}/s" if self.amount_unit else "/s"
        if ESTIMATE_SHARE * self.total <= self.done < self.total:
            parts.append(f"{format_duration(elapsed / self.done * (self.total - self.done))} left")
        elif self.total and self.done >= self.total:
            parts.append(f"{format_duration(elapsed)} in total")
        return f"{self.label}: {', '.join(parts)}"


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


def _on_terminal() -> bool:
    """Whether messages go to a terminal: stderr, or the terminal of the user in the process of a stage."""
    terminal = os.environ.get("ALIGN_TERMINAL")
    try:
        return os.isatty(int(terminal)) if terminal else sys.stderr.isatty()
    except (OSError, ValueError):
        return False
