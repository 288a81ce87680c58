"""Apply a function to items in several processes. The results are in order, whatever the number of processes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from alignment.processes import die_with_parent
from data_builders.storage.dataset import row_size

T = TypeVar("T")
R = TypeVar("R")

_STATE: Any = None
ENGINE: Callable[..., Iterator[Any]] | None = None
"""Function that `ordered_map` uses instead of local processes, or None. See `data_builders.storage.scale`."""

ROW_BATCH_CHARACTERS = 2_000_000
"""Size in characters at which `row_batches` ends a batch."""
ROW_OVERHEAD = 200
"""Number of characters that `row_batches` adds to the size of each row."""


def batched(items: Iterable[T], limit: int, size_of: Callable[[T], int] | None = None) -> Iterator[list[T]]:
    """Cut a stream into lists. A list ends as soon as its size reaches `limit`.

    Args:
        items: the stream. One list at a time is in memory.
        limit: size at which a list ends, in the unit of `size_of`.
        size_of: function that returns the size of an item. With None, every item has the size 1.
    """
    batch: list[T] = []
    total = 0
    for item in items:
        batch.append(item)
        total += size_of(item) if size_of is not None else 1
        if total >= limit:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def row_batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Cut a stream of rows into lists of about `ROW_BATCH_CHARACTERS` characters."""
    return batched(rows, ROW_BATCH_CHARACTERS, lambda row: row_size(row) + ROW_OVERHEAD)


def identity(argument: Any) -> Any:
    """Return the argument unchanged. This function is the default of the argument `initial` of `ordered_map`."""
    return argument


def _start(initial: Callable[[Any], Any], argument: Any, parent: int) -> None:
    global _STATE
    die_with_parent(parent)  # without this, a worker would finish its batch after the build was killed
    # One thread per process, because the processes already run in parallel.
    os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    _STATE = initial(argument)


def _call(function: Callable[[Any, T], R], item: T) -> R:
    return function(_STATE, item)


def ordered_map(
    function: Callable[[Any, T], R],
    items: Iterable[T],
    *,
    initial: Callable[[Any], Any] = identity,
    argument: Any,
    workers: int = 1,
) -> Iterator[R]:
    """Yield `function(state, item)` for each item, in order. Each process computes `state = initial(argument)` once.

    Processes are spawned, not forked, because the caller may have threads. At most `2 * workers` items are in memory.

    Args:
        function: function to call for each item. It must be picklable if `workers` > 1.
        items: the items. An item is read when a worker becomes free.
        initial: function that returns the state of a process. It must be picklable if `workers` > 1.
        argument: argument of `initial`. It must be picklable if `workers` > 1.
        workers: number of processes. With 1, the calling process does the work.

    Raises:
        ValueError: `workers` is below 1.
        RuntimeError: a worker process died.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if ENGINE is not None:
        yield from ENGINE(function, items, initial, argument)
        return
    if workers == 1:
        state = initial(argument)
        for item in items:
            yield function(state, item)
        return
    context = multiprocessing.get_context("spawn")
    stream = iter(items)
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(initial, argument, os.getpid())
    ) as pool:
        waiting: deque[Future[R]] = deque(
            pool.submit(_call, function, item) for item in itertools.islice(stream, 2 * workers)
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                for item in itertools.islice(stream, 1):
                    waiting.append(pool.submit(_call, function, item))
                yield result
        except BrokenProcessPool:
            raise RuntimeError("a worker process died, often because memory ran out; use fewer workers") from None
        finally:
            for future in waiting:
                future.cancel()
