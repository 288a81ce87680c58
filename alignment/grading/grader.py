"""`Grader`: runs programs in a pool of sandboxes and returns verdicts, for synchronous and asynchronous callers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from alignment.grading import nodejs, patched_repository, python, repository, stdio
from alignment.grading.open_suites import OpenSuites
from alignment.grading.projects import project
from alignment.grading.task import (
    REPOSITORY_KINDS,
    AssertTests,
    CallTests,
    GradingTask,
    PatchTests,
    ProgramTests,
    RepositoryTests,
    StdioTests,
    TaskRow,
    read_task,
)
from alignment.grading.verdict import Verdict, error, failed
from alignment.progress import results
from alignment.sandbox import toolchains
from alignment.sandbox.compiled import Compiled, cache_folder, prepare, prune
from alignment.sandbox.inside import wire
from alignment.sandbox.launcher_settings import launcher_settings
from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program, ProgramRun
from alignment.sandbox.slot import SandboxError, SandboxUnavailable, Slot

PROGRAM_BYTES = 1 << 20
"""Maximum size of a program. A longer program fails without being run."""
PYTHON_FILE = "program.py"


class Grader:
    """Grades several programs at a time, each in a separate sandbox.

    with Grader() as grader:
        verdicts = grader.grade_many([(task, program), ...])   # in order
        verdict = await grader.grade(task, program)            # in a coroutine

    No process is started before the first program. A grader can be used from several threads and event loops. A process
    that is forked from this process gets a separate pool.
    """

    def __init__(
        self,
        workers: int | None = None,
        limits: Limits | None = None,
        *,
        allow_weaker: bool = False,
        hidden: tuple[str, ...] = (),
    ) -> None:
        """Prepare the pool.

        Args:
            workers: number of programs that run at the same time. By default one per core.
            limits: limits of one program. The tests of a task cannot raise these limits.
            allow_weaker: allow a weaker sandbox: without namespaces if the kernel refuses namespaces, and without a
                process limit if programs run as the machine's root.
            hidden: files of this machine that programs see as empty, for example a tool that was not installed on the
                machine on which the published verdicts of a benchmark were computed.

        Raises:
            ValueError: `workers` is less than 1.
        """
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
        self.slots: list[Slot | OpenSuites] = []
        """All started launchers, of all threads."""
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
            pool, slots = self._pool, self.slots
            is_owner = self._owner == os.getpid()
            self._reset()
        if pool is not None and is_owner:
            pool.shutdown(wait=True, cancel_futures=True)
            for slot in slots:
                slot.close()

    def check(self) -> None:
        """Do nothing. `RemoteGrader.check` checks that its service answers; this grader needs no service."""

    def submit(
        self,
        task: TaskRow,
        program: str,
        limits: Limits | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> Future[Verdict]:
        """Grade a program in the background.

        Args:
            task: the row of the task. See `alignment.grading.task`.
            program: the source of the program.
            limits: limits of the program, instead of the limits of the grader.
            on_start: called in a thread of the grader when the program does not wait for other programs any more.

        Returns:
            A future that returns the verdict, or raises SandboxUnavailable if this machine refuses the sandbox.
        """
        with self._lock:
            return self._threads().submit(self._grade, task, program, limits or self.limits, on_start)

    async def grade(self, task: TaskRow, program: str) -> Verdict:
        """Return the verdict on one program."""
        return await asyncio.wrap_future(self.submit(task, program))

    def grade_many(self, pairs: Iterable[tuple[TaskRow, str]]) -> list[Verdict]:
        """Return one verdict for each pair of task and program, in the same order."""
        return results([self.submit(task, program) for task, program in pairs], "grading")

    def outputs(
        self, program: str, entry_point: str, inputs: Sequence[tuple[list[Any], dict[str, Any]]]
    ) -> list[python.CallOutput]:
        """Call a function in the sandbox, for example to compute expected values from a reference solution.

        Args:
            program: source that defines the function.
            entry_point: the function's name.
            inputs: positional and keyword arguments of each call.

        Returns:
            One output per call, with the returned `value` in wire form, or with the `reason` of the failure.
        """
        arguments = [[wire.encode(positional), wire.encode(keywords)] for positional, keywords in inputs]
        with self._lock:
            pool = self._threads()
        data = program.encode("utf-8", "surrogatepass")
        future = pool.submit(
            lambda: python.call_outputs(self._slot("python"), entry_point, data, arguments, self.limits)
        )
        run, outputs = future.result()
        reason, detail = python.ending(run)
        missing = python.CallOutput(reason=reason, detail=detail)
        failure = next((output for output in outputs if "case" not in output), None)
        return [
            outputs[index] if failure is None and index < len(outputs) else failure or missing
            for index in range(len(inputs))
        ]

    def run(self, program: str, stdin: str = "") -> ProgramRun:
        """Run a Python program in the sandbox and return its output.

        Args:
            program: the source.
            stdin: text on its standard input.

        Raises:
            SandboxUnavailable: this machine refuses the sandbox.
            SandboxError: the sandbox failed twice.
        """
        with self._lock:
            pool = self._threads()
        data, entered = (text.encode("utf-8", "surrogatepass") for text in (program, stdin))

        def attempt() -> ProgramRun:
            described = Program("main", {"environment": {}}, data, entered, self.limits)
            return python.check_began(self._slot("python").run([described])[0])

        def attempts() -> ProgramRun:
            try:
                return attempt()
            except SandboxUnavailable:
                raise
            except SandboxError:  # not caused by the program: retry once, with a new launcher if the old one ended
                return attempt()

        return pool.submit(attempts).result()

    def _threads(self) -> ThreadPoolExecutor:
        if self._owner != os.getpid():
            self._reset()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="grader")
        return self._pool

    def _slot(self, language: str) -> Slot:
        """Return this thread's slot (a sandbox launcher) for a language.

        Each thread has one slot for Python and one slot for all other languages. Only programs of the second slot see
        the compilers and runtimes.
        """
        name = "python" if language == "python" else "toolchains"
        slot: Slot | None = getattr(self._local, name, None)
        if slot is None:
            extra = () if name == "python" else toolchains.shown_folders()
            slot = Slot(launcher_settings(self.allow_weaker, extra, self.hidden))
            setattr(self._local, name, slot)
            self.slots.append(slot)
        return slot

    def _suites(self) -> OpenSuites:
        """Return this thread's open repositories, whose tests grade functions."""
        suites: OpenSuites | None = getattr(self._local, "suites", None)
        if suites is None:
            suites = self._local.suites = OpenSuites(self.allow_weaker)
            self.slots.append(suites)
        return suites

    def _grade(self, row: TaskRow, program: str, limits: Limits, on_start: Callable[[], None] | None) -> Verdict:
        if on_start is not None:
            on_start()
        try:
            try:
                return self._verdict(read_task(row), program, limits)
            except SandboxUnavailable:
                raise
            except SandboxError:  # not caused by the program: retry once, with a new launcher if the old one ended
                return self._verdict(read_task(row), program, limits)
        except SandboxUnavailable:
            raise
        except (SandboxError, OSError) as problem:
            return error("infrastructure", str(problem))
        except toolchains.NoToolchain as problem:
            return error("toolchain", str(problem))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as problem:
            return error("invalid_task", f"{type(problem).__name__}: {problem}")

    def _verdict(self, task: GradingTask, program: str, limits: Limits) -> Verdict:
        if task.kind in (*REPOSITORY_KINDS, "repository"):
            return self._repository_verdict(task, program, limits)
        if task.kind == "program" and task.tests.get("marker"):
            program = stdio.with_marker(task.language, program)
        data = program.encode("utf-8", "surrogatepass")
        if len(data) > PROGRAM_BYTES:
            return failed("too_long", f"the program has {len(data)} bytes; at most {PROGRAM_BYTES} are allowed")
        slot = self._slot(task.language)
        if task.kind == "calls":
            assert task.entry_point is not None
            return python.grade_calls(slot, cast(CallTests, task.tests), task.entry_point, data, limits)
        if task.kind == "asserts":
            return python.grade_asserts(slot, cast(AssertTests, task.tests), task.entry_point, data, limits)
        if task.language == "python":
            tools, compiled = None, Compiled(((PYTHON_FILE, data),))
        else:
            tools = toolchains.toolchain(task.language)
            compiled = prepare(slot, tools, data, tuple(task.tests.get("flags", ())), self._cache_folder())
        if task.kind == "stdio":
            return stdio.grade_stdio(slot, cast(StdioTests, task.tests), tools, compiled, limits)
        return stdio.grade_program(slot, cast(ProgramTests, task.tests), tools, compiled, limits)

    def _repository_verdict(self, task: GradingTask, program: str, limits: Limits) -> Verdict:
        if len(program) > PROGRAM_BYTES:
            return failed("too_long", f"the program has {len(program)} characters; at most {PROGRAM_BYTES} are allowed")
        if task.kind == "repository":
            patch_tests = cast(PatchTests, task.tests)
            suite = self._suites().patched_suite(patch_tests["suite"])
            return patched_repository.grade(suite, patch_tests, program, limits)
        tests = cast(RepositoryTests, task.tests)
        if task.kind == "node":
            return nodejs.grade(self._suites().node_suite(tests["suite"]), tests, program, limits)
        if task.kind == "project":
            return project.grade(
                self._suites().project_suite(tests["suite"], task.language),
                tests,
                program,
                limits,
                self._cache_folder(),
            )
        return repository.grade(self._suites().python_suite(tests["suite"]), tests, program, limits)

    def _cache_folder(self) -> Path:
        with self._lock:
            if self._cache is None:
                self._cache = cache_folder()
                prune(self._cache)
            return self._cache
