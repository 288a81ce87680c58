"""The grader of a recipe: its `sandbox:` settings, as the grading room takes them."""

from __future__ import annotations

import os

from alignment.grading import Grader, Limits, RemoteGrader, open_grader
from alignment.recipe import Sandbox


def limits(settings: Sandbox) -> Limits:
    """What one program may use."""
    return Limits(
        cpu_seconds=settings.cpu_seconds,
        wall_seconds=settings.wall_seconds,
        memory_bytes=settings.memory_mb << 20,
    )


def mode(settings: Sandbox) -> str:
    """The address of a service, or the containment to ask for: namespaces, or less where the recipe consents to it."""
    return settings.address or ("landlock" if settings.allow_weaker else "namespaces")


def grader(settings: Sandbox) -> Grader | RemoteGrader:
    """A pool of sandboxes, here or behind the service's address; nothing starts before the first program.

    Here it has by default one a core, shared among the processes that train on this machine: each has a pool of its own, and
    programs that wait for a core would run out of time.
    """
    workers = settings.workers
    if workers is None and not settings.address:
        workers = max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return open_grader(workers, limits(settings), mode(settings))
