"""The grader: a pool of sandbox slots behind one function, for synchronous and asynchronous callers."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from alignment.grading import python, stdio
from alignment.grading.verdict import Verdict, error, failed
from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import SandboxError, SandboxUnavailable, Slot, python_settings

PROGRAM_BYTES = 1 << 20


class Grader:
    """Grades programs, `workers` at a time, each in its own sandbox.

    with Grader() as grader:
        verdicts = grader.grade_many([(task, program), ...])   # in order
        verdict = await grader.grade(task, program)            # in a coroutine

    Nothing is started before the first program. Safe to use from several threads and event loops; a process that was forked
    from this one gets a pool of its own.

    workers: programs at a time; by default one per core.
    limits: of one program; the task's ``tests`` may raise none of them.
    sandbox: ``namespaces``; or ``landlock``, the weaker mode, by which you consent to it where namespaces are refused.
    """

    def __init__(self, workers: int | None = None, limits: Limits | None = None, sandbox: str = "namespaces") -> None:
        if sandbox not in ("namespaces", "landlock"):
            raise ValueError(f"sandbox: {sandbox!r} is neither 'namespaces' nor 'landlock'")
        if workers is not None and workers < 1:
            raise ValueError(f"workers is {workers}: it must be at least 1")
        self.workers = workers or len(os.sched_getaffinity(0))
        self.limits = limits or Limits()
        self.sandbox = sandbox
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._owner = os.getpid()
        self._pool: ThreadPoolExecutor | None = None
        self._slots: list[Slot] = []
        self._local = threading.local()

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all programs and launchers. The grader can be used again afterwards."""
        with self._lock:
            pool, slots = self._pool, self._slots
            mine = self._owner == os.getpid()
            self._reset()
        if pool is not None and mine:
            pool.shutdown(wait=True, cancel_futures=True)
            for slot in slots:
                slot.close()

    def submit(self, task: dict[str, Any], program: str) -> Future[Verdict]:
        """Grade in the background. The future's result is a verdict; it raises SandboxUnavailable on a machine that refuses."""
        with self._lock:
            if self._owner != os.getpid():
                self._reset()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="grader")
            return self._pool.submit(self._grade, task, program)

    async def grade(self, task: dict[str, Any], program: str) -> Verdict:
        """The verdict of a program on a task."""
        return await asyncio.wrap_future(self.submit(task, program))

    def grade_many(self, pairs: Iterable[tuple[dict[str, Any], str]]) -> list[Verdict]:
        """The verdicts of many programs, in order."""
        futures = [self.submit(task, program) for task, program in pairs]
        return [future.result() for future in futures]

    def _slot(self) -> Slot:
        slot: Slot | None = getattr(self._local, "slot", None)
        if slot is None:
            slot = self._local.slot = Slot(python_settings(self.sandbox == "namespaces"))
            self._slots.append(slot)
        return slot

    def _grade(self, task: dict[str, Any], program: str) -> Verdict:
        try:
            return grade(self._slot(), task, program, self.limits)
        except SandboxUnavailable:
            raise
        except SandboxError as problem:
            return error("infrastructure", str(problem))


def grade(slot: Slot, task: dict[str, Any], program: str, limits: Limits) -> Verdict:
    """Grade one program in a slot."""
    try:
        tests = json.loads(task["tests"]) if isinstance(task["tests"], str) else task["tests"]
        kind, language = task["kind"], task.get("language") or "python"
        _check(kind, tests)
        data = program.encode("utf-8", "surrogatepass")
        if len(data) > PROGRAM_BYTES:
            return failed("too_long", f"the program has {len(data)} bytes, more than {PROGRAM_BYTES}")
        if kind in ("calls", "asserts") and language != "python":
            return error("invalid_task", f"kind {kind!r} is for python, not for {language!r}: use 'stdio' or 'program'")
        if kind == "calls":
            return python.calls(slot, tests, task["entry_point"], data, limits)
        if kind == "asserts":
            return python.asserts(slot, tests, task.get("entry_point"), data, limits)
        return stdio.stdio(slot, tests, language, data, limits)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        return error("invalid_task", f"{type(problem).__name__}: {problem}")


def _check(kind: str, tests: Any) -> None:
    if kind not in ("stdio", "calls", "asserts"):
        raise ValueError(f"unknown kind of task {kind!r}")
    if not isinstance(tests, dict):
        raise ValueError("tests must be a JSON object")
    if kind == "asserts" and not str(tests.get("code", "")).strip():
        raise ValueError("the task has no tests")
    if kind in ("stdio", "calls") and not tests.get("cases"):
        raise ValueError("the task has no tests")
