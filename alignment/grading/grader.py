"""The grader: a pool of sandbox slots behind one function, for synchronous and asynchronous callers."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from alignment.grading import nodejs, python, repository, stdio
from alignment.grading.verdict import Verdict, error, failed
from alignment.sandbox import toolchains
from alignment.sandbox.compiled import Compiled, cache_folder, prepare, prune
from alignment.sandbox.inside import wire
from alignment.sandbox.launcher_settings import launcher_settings
from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import SandboxError, SandboxUnavailable, Slot

PROGRAM_BYTES = 1 << 20
PYTHON_FILE = "program.py"


class Grader:
    """Grades programs, `workers` at a time, each in its own sandbox.

    with Grader() as grader:
        verdicts = grader.grade_many([(task, program), ...])   # in order
        verdict = await grader.grade(task, program)            # in a coroutine

    Nothing is started before the first program. Safe to use from several threads and event loops; a process that was
    forked from this one gets a pool of its own.

    workers: programs at a time; by default one per core.
    limits: of one program; the task's ``tests`` may raise none of them.
    allow_weaker: consent to a weaker sandbox: no namespaces if the kernel refuses them, and no process limit if
        programs run as the machine's root.
    hidden: files of this machine that programs find empty, for example a tool that a benchmark's own image did not
    have.
    """

    def __init__(
        self,
        workers: int | None = None,
        limits: Limits | None = None,
        *,
        allow_weaker: bool = False,
        hidden: tuple[str, ...] = (),
    ) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers is {workers}: it must be at least 1")
        self.workers = workers or len(os.sched_getaffinity(0))
        self.limits = limits or Limits()
        self.allow_weaker = allow_weaker
        self.hidden = hidden
        self._cache: Path | None = None
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._owner = os.getpid()
        self._pool: ThreadPoolExecutor | None = None
        self._slots: list[Slot | repository.Suites] = []
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

    def submit(self, task: dict[str, Any], program: str, limits: Limits | None = None) -> Future[Verdict]:
        """Grade in the background, with these limits instead of the grader's own where some are given.

        The future's result is a verdict; it raises SandboxUnavailable on a machine that refuses.
        """
        with self._lock:
            return self._threads().submit(self._grade, task, program, limits or self.limits)

    async def grade(self, task: dict[str, Any], program: str) -> Verdict:
        """The verdict of a program on a task."""
        return await asyncio.wrap_future(self.submit(task, program))

    def grade_many(self, pairs: Iterable[tuple[dict[str, Any], str]]) -> list[Verdict]:
        """The verdicts of many programs, in order."""
        futures = [self.submit(task, program) for task, program in pairs]
        return [future.result() for future in futures]

    def outputs(
        self, program: str, entry_point: str, inputs: list[tuple[list[Any], dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Call a program in the sandbox: per call a message with its ``value`` in wire form, or the ``reason`` why
        there is none.

        For computing expected values from a reference solution. inputs: positional and keyword arguments of each call.
        """
        arguments = [[wire.encode(positional), wire.encode(keywords)] for positional, keywords in inputs]
        with self._lock:
            pool = self._threads()
        data = program.encode("utf-8", "surrogatepass")
        call = pool.submit(lambda: python.returned(self._slot("python"), entry_point, data, arguments, self.limits))
        run, messages = call.result()
        missing = {"reason": python.ending(run)[0], "detail": python.ending(run)[1]}
        early = next((message for message in messages if "case" not in message), None)
        return [
            messages[index] if early is None and index < len(messages) else early or missing
            for index in range(len(inputs))
        ]

    def _threads(self) -> ThreadPoolExecutor:
        if self._owner != os.getpid():
            self._reset()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="grader")
        return self._pool

    def _slot(self, language: str) -> Slot:
        """This thread's slot: one for Python; another one, that shows all toolchains, for the rest."""
        name = "python" if language == "python" else "toolchains"
        slot: Slot | None = getattr(self._local, name, None)
        if slot is None:
            extra = () if name == "python" else toolchains.shown_folders()
            slot = Slot(launcher_settings(self.allow_weaker, extra, self.hidden))
            setattr(self._local, name, slot)
            self._slots.append(slot)
        return slot

    def _suites(self) -> repository.Suites:
        """This thread's warm repositories."""
        suites: repository.Suites | None = getattr(self._local, "suites", None)
        if suites is None:
            suites = self._local.suites = repository.Suites(self.allow_weaker)
            self._slots.append(suites)
        return suites

    def _grade(self, task: dict[str, Any], program: str, limits: Limits) -> Verdict:
        try:
            try:
                return self._verdict(task, program, limits)
            except SandboxUnavailable:
                raise
            except SandboxError:  # not the program's fault: once more, with a new launcher where the old one is lost
                return self._verdict(task, program, limits)
        except SandboxUnavailable:
            raise
        except (SandboxError, OSError) as problem:
            return error("infrastructure", str(problem))
        except toolchains.NoToolchain as problem:
            return error("toolchain", str(problem))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as problem:
            return error("invalid_task", f"{type(problem).__name__}: {problem}")

    def _verdict(self, task: dict[str, Any], program: str, limits: Limits) -> Verdict:
        kind, tests, language = read_task(task)
        if kind in ("pytest", "node"):
            if len(program) > PROGRAM_BYTES:
                return failed("too_long", f"the program has more than {PROGRAM_BYTES} characters")
            if kind == "node":
                return nodejs.grade(self._suites().of_node(tests["suite"]), tests, program, limits)
            return repository.grade(self._suites().of(tests["suite"]), tests, program, limits)
        if kind == "program" and tests.get("marker"):
            program = stdio.with_marker(language, program)
        data = program.encode("utf-8", "surrogatepass")
        if len(data) > PROGRAM_BYTES:
            return failed("too_long", f"the program has {len(data)} bytes, more than {PROGRAM_BYTES}")
        slot = self._slot(language)
        if kind == "calls":
            return python.calls(slot, tests, task["entry_point"], data, limits)
        if kind == "asserts":
            return python.asserts(slot, tests, task.get("entry_point"), data, limits)
        grade = stdio.stdio if kind == "stdio" else stdio.program
        if language == "python":
            return grade(slot, tests, None, Compiled(((PYTHON_FILE, data),)), limits)
        tools = toolchains.toolchain(language)
        compiled = prepare(slot, tools, data, tuple(tests.get("flags", ())), self._cache_folder())
        return grade(slot, tests, tools, compiled, limits)

    def _cache_folder(self) -> Path:
        with self._lock:
            if self._cache is None:
                self._cache = cache_folder()
                prune(self._cache)
            return self._cache


def read_task(task: Mapping[str, Any]) -> tuple[str, dict[str, Any], str]:
    """Kind, tests and language of a task. Raises KeyError or ValueError where it could never be graded."""
    tests = json.loads(task["tests"]) if isinstance(task["tests"], str) else task["tests"]
    language = toolchains.language_of(task.get("language") or "python").name
    _check(task["kind"], tests, language)
    return task["kind"], tests, language


def _check(kind: str, tests: Any, language: str) -> None:
    if kind not in ("stdio", "calls", "asserts", "program", "pytest", "node"):
        raise ValueError(f"unknown kind of task {kind!r}")
    if not isinstance(tests, dict):
        raise ValueError("tests must be a JSON object")
    if kind in ("calls", "asserts", "pytest") and language != "python":
        raise ValueError(f"kind {kind!r} is for python, not for {language!r}: use 'stdio'")
    if kind == "node" and language not in ("javascript", "typescript"):
        raise ValueError(f"kind 'node' is for javascript and typescript, not for {language!r}")
    if kind == "asserts" and not str(tests.get("code", "")).strip():
        raise ValueError("the task has no tests")
    if kind in ("stdio", "calls") and not tests.get("cases"):
        raise ValueError("the task has no tests")
