"""A grader that asks a service (`alignment.grading.service`) instead of running programs itself; pure standard library.

The same interface as `alignment.grading.Grader`, and `open_grader` makes whichever a setting names. Busy services are
asked again after the time they state; a service that cannot be reached, or cannot answer in time, is an infrastructure
error, never a failed program.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from alignment.grading.grader import Grader
from alignment.grading.sandbox_settings import SERVICE_WORKERS, SandboxSettings
from alignment.grading.verdict import TestResult, Verdict, error
from alignment.sandbox.limits import Limits

REMOTE = ("http://", "https://")
TOKEN = "ALIGN_TOKEN"
RETRIES = 8


def open_grader(
    sandbox: SandboxSettings, *, workers: int | None = None, limits: Limits | None = None, hidden: Sequence[str] = ()
) -> Grader | RemoteGrader:
    """Open a grader that runs programs as `sandbox` says; it starts no process before the first program.

    Args:
        sandbox: on this machine or at a service, how many at a time, and the limits of one program.
        workers: programs at a time, instead of the number in `sandbox`.
        limits: of one program, instead of those in `sandbox`.
        hidden: files of this machine that programs find empty.
    """
    workers, limits = workers or sandbox.worker_count(), limits or sandbox.limits()
    if sandbox.address:
        return RemoteGrader(sandbox.address, workers=workers, limits=limits, hidden=tuple(hidden))
    return Grader(workers, limits, allow_weaker=sandbox.allow_weaker, hidden=tuple(hidden))


class RemoteGrader:
    """Grades over HTTP, `workers` requests at a time.

    address: ``http://host:port``; the token comes from the environment variable ALIGN_TOKEN where none is
    given.
    limits, hidden: as of `Grader`; a service that doesn't allow so much, or doesn't hide these files, refuses.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        workers: int = SERVICE_WORKERS,
        deadline_seconds: float = 600.0,
        limits: Limits | None = None,
        hidden: tuple[str, ...] = (),
    ) -> None:
        if not address.startswith(REMOTE):
            raise ValueError(f"the sandbox's address must begin with http:// or https://, not {address!r}")
        self.address = address.rstrip("/")
        self.limits = limits
        self.hidden = hidden
        self.token = token or os.environ.get(TOKEN) or None
        self.workers = workers
        self.deadline_seconds = deadline_seconds
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._owner = os.getpid()

    def __enter__(self) -> RemoteGrader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._owner == os.getpid():
            pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, task: dict[str, Any], program: str) -> Future[Verdict]:
        with self._lock:
            if self._pool is None or self._owner != os.getpid():
                self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="remote-grader")
                self._owner = os.getpid()
            return self._pool.submit(self._grade, task, program)

    async def grade(self, task: dict[str, Any], program: str) -> Verdict:
        return await asyncio.wrap_future(self.submit(task, program))

    def grade_many(self, pairs: Iterable[tuple[dict[str, Any], str]]) -> list[Verdict]:
        futures = [self.submit(task, program) for task, program in pairs]
        return [future.result() for future in futures]

    def _grade(self, task: dict[str, Any], program: str) -> Verdict:
        end = time.monotonic() + self.deadline_seconds
        problem = "no answer"
        for attempt in range(RETRIES):
            remaining = end - time.monotonic()
            if remaining <= 0:
                break
            pause = min(2.0**attempt / 4, 10.0)
            try:
                verdict = self._ask(task, program, remaining)
            except urllib.error.HTTPError as answer:
                with answer:
                    problem = f"{answer.code}: {answer.read(500).decode(errors='replace')}"
                if answer.code not in (429, 502, 503, 504):
                    break
                pause = _seconds(answer.headers.get("Retry-After"), pause)
            except (OSError, ValueError, KeyError, TypeError) as failure:
                problem = f"{type(failure).__name__}: {failure}"
            else:
                if verdict.status != "error" or verdict.reason != "infrastructure":
                    return verdict
                problem = verdict.detail
            time.sleep(max(0.0, min(pause, end - time.monotonic())))
        return error("infrastructure", f"the sandbox at {self.address} gave no verdict: {problem}")

    def _ask(self, task: dict[str, Any], program: str, seconds: float) -> Verdict:
        asked: dict[str, Any] = {"task": task, "program": program, "deadline_seconds": min(seconds, 3600.0)}
        if self.limits is not None:
            asked["limits"] = asdict(self.limits)
        if self.hidden:
            asked["hidden"] = list(self.hidden)
        body = json.dumps(asked).encode()
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(f"{self.address}/grade", body, headers)
        with urllib.request.urlopen(request, timeout=seconds + 5) as answer:
            found = json.loads(answer.read())
        tests = tuple(TestResult(test["reason"], test["detail"], test.get("messages", 0)) for test in found["tests"])
        return Verdict(found["status"], found["reason"], found["detail"], tests, found["cpu_seconds"])


def _seconds(text: str | None, otherwise: float) -> float:
    try:
        return min(max(float(text or otherwise), 0.1), 30.0)
    except ValueError:
        return otherwise
