"""`RemoteGrader`: a grader that sends programs to a grading service (`alignment.grading.service`).

`RemoteGrader` has the same methods as `Grader`. `open_grader` opens one of these two classes, according to the
settings. If the service is busy, the request is sent again after the pause that the service asks for, until the
deadline. If the service cannot be reached or does not answer in time, the verdict is an infrastructure error, never a
failed program. `RemoteGrader.check` finds a service that does not answer before a model generates programs. HTTP uses
only the standard library.
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
from alignment.grading.task import TaskRow
from alignment.grading.verdict import TestResult, Verdict, error
from alignment.progress import results
from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import SandboxUnavailable

SCHEMES = ("http://", "https://")
TOKEN = "ALIGN_TOKEN"
"""Name of the environment variable that contains the token of the service."""
PORT = 8711
"""The service's port, unless another is given."""
ATTEMPTS = 8
"""Largest number of requests for one program that fail. If all fail, the verdict is an infrastructure error. Answers with
status 429 (the queue is full) do not count."""
QUEUE_FULL = 429
BUSY = (QUEUE_FULL, 408, 502, 503, 504)
"""HTTP statuses after which a request is sent again."""
HEALTH_SECONDS = 5.0
"""Time limit for the answer to a health check, in seconds."""
PATIENCE = 60.0
"""How long `RemoteGrader.check` waits for a service that does not answer, for example because it restarts, in seconds."""
DOWN_SECONDS = 30.0
"""After all requests for one program have failed, other programs give up at their next failure for so many seconds."""
MAX_DEADLINE = 3600.0
"""Largest `deadline_seconds` that the service accepts in a request."""


def open_grader(
    sandbox: SandboxSettings, *, workers: int | None = None, limits: Limits | None = None, hidden: Sequence[str] = ()
) -> Grader | RemoteGrader:
    """Open a grader with the given settings. The grader starts no process before the first program.

    Args:
        sandbox: where programs run (this machine or a service), how many run at a time, and the limits of one program.
        workers: number of programs that run at a time, instead of the number in `sandbox`.
        limits: limits of one program, instead of the limits in `sandbox`.
        hidden: files of the machine that programs see as empty.
    """
    workers, limits = workers or sandbox.worker_count(), limits or sandbox.limits()
    if sandbox.address:
        return RemoteGrader(sandbox.address, workers=workers, limits=limits, hidden=tuple(hidden))
    return Grader(workers, limits, allow_weaker=sandbox.allow_weaker, hidden=tuple(hidden))


class RemoteGrader:
    """Grades programs at a grading service, several requests at a time."""

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
        """Prepare the grader. No request is sent yet.

        Args:
            address: `http://host:port`.
            token: the service's token. By default the value of the environment variable ALIGN_TOKEN.
            workers: number of requests at a time.
            deadline_seconds: maximum time for one verdict, including all attempts.
            limits: limits of one program. By default the limits of the service. A service refuses limits above its
                maximum.
            hidden: files that programs must see as empty. A service that does not hide these files refuses the request.

        Raises:
            ValueError: the address is not an HTTP URL.
        """
        if not address.startswith(SCHEMES):
            raise ValueError(f"the address of a grading service must begin with http:// or https://, not {address!r}")
        self.address = address.rstrip("/")
        self.limits = limits
        self.hidden = hidden
        self.token = token or os.environ.get(TOKEN) or None
        self.workers = workers
        self.deadline_seconds = deadline_seconds
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._owner = os.getpid()
        self._down_until = 0.0

    def __enter__(self) -> RemoteGrader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel all requests that have not been sent. The grader can be used again afterwards."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._owner == os.getpid():
            pool.shutdown(wait=True, cancel_futures=True)

    def check(self, patience: float = PATIENCE) -> None:
        """Check that the service answers and accepts the token. Call this before programs are generated for grading.

        Args:
            patience: how long to wait for an answer, in seconds.

        Raises:
            SandboxUnavailable: the service does not answer, or refuses the token.
        """
        end = time.monotonic() + patience
        request = urllib.request.Request(f"{self.address}/health", headers=self._headers())
        while True:
            try:
                with urllib.request.urlopen(request, timeout=HEALTH_SECONDS) as answer:
                    state = json.loads(answer.read(1 << 16))
                break
            except (OSError, ValueError) as failure:
                if time.monotonic() >= end:
                    raise SandboxUnavailable(
                        f"the grading service at {self.address} does not answer ({failure}): start it with `align sandbox "
                        "serve`, or correct `sandbox:` in the recipe"
                    ) from None
                time.sleep(min(1.0, patience))
        self._down_until = 0.0
        if isinstance(state, dict) and state.get("authorized") is False:
            raise SandboxUnavailable(
                f"the grading service at {self.address} refuses the token: set the environment variable {TOKEN} to the "
                "token of the service"
            )

    def submit(self, task: TaskRow, program: str) -> Future[Verdict]:
        """Grade a program in the background. See `Grader.submit`."""
        with self._lock:
            if self._pool is None or self._owner != os.getpid():
                self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="remote-grader")
                self._owner = os.getpid()
            return self._pool.submit(self._grade, task, program)

    async def grade(self, task: TaskRow, program: str) -> Verdict:
        """Return the verdict on one program."""
        return await asyncio.wrap_future(self.submit(task, program))

    def grade_many(self, pairs: Iterable[tuple[TaskRow, str]]) -> list[Verdict]:
        """Return one verdict for each pair of task and program, in the same order."""
        return results([self.submit(task, program) for task, program in pairs], "grading")

    def _grade(self, task: TaskRow, program: str) -> Verdict:
        end = time.monotonic() + self.deadline_seconds
        problem = "no answer"
        attempt = 0
        while attempt < ATTEMPTS and (remaining := end - time.monotonic()) > 0:
            pause = min(2.0**attempt / 4, 10.0)
            try:
                verdict = self._request(task, program, remaining)
            except urllib.error.HTTPError as answer:
                with answer:
                    problem = f"{answer.code}: {answer.read(500).decode(errors='replace')}"
                if answer.code not in BUSY:
                    break
                attempt -= answer.code == QUEUE_FULL
                pause = _retry_seconds(answer.headers.get("Retry-After"), pause)
            except (OSError, ValueError, KeyError, TypeError) as failure:
                problem = f"{type(failure).__name__}: {failure}"
            else:
                if verdict.status != "error" or verdict.reason != "infrastructure":
                    return verdict
                problem = verdict.detail
            attempt += 1
            if time.monotonic() < self._down_until:
                break
            time.sleep(max(0.0, min(pause, end - time.monotonic())))
        if attempt == ATTEMPTS:
            self._down_until = time.monotonic() + DOWN_SECONDS
        return error("infrastructure", f"the grading service at {self.address} gave no verdict: {problem}")

    def _request(self, task: TaskRow, program: str, seconds: float) -> Verdict:
        message: dict[str, Any] = {"task": task, "program": program, "deadline_seconds": min(seconds, MAX_DEADLINE)}
        if self.limits is not None:
            message["limits"] = asdict(self.limits)
        if self.hidden:
            message["hidden"] = list(self.hidden)
        headers = {"Content-Type": "application/json", **self._headers()}
        request = urllib.request.Request(f"{self.address}/grade", json.dumps(message).encode(), headers)
        with urllib.request.urlopen(request, timeout=seconds + 5) as answer:
            verdict = json.loads(answer.read())
        tests = tuple(TestResult(test["reason"], test["detail"], test.get("messages", 0)) for test in verdict["tests"])
        return Verdict(verdict["status"], verdict["reason"], verdict["detail"], tests, verdict["cpu_seconds"])

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def _retry_seconds(header: str | None, default: float) -> float:
    """Return the pause that a `Retry-After` header asks for, between 0.1 and 30 seconds."""
    try:
        return min(max(float(header or default), 0.1), 30.0)
    except ValueError:
        return default
