"""Loads a repository and its tests once in a launcher, for all programs that the launcher starts.

A launcher has one of three roles. There is a separate launcher for each role, so that none can reach the modules that
another has loaded:

``tester``     pytest has collected the tests. The programs of this launcher run tests. The function under test either
               calls a candidate in another process, or (entry ``suite_whole``) contains the candidate's body.
``candidate``  The modules of the repository are loaded, but not the tests and pytest. The programs of this launcher
               receive a body and answer the tester's calls.
``patched``    Only pytest is loaded. The programs of this launcher see the repository with changed files, and collect and
               run tests there (see `inside.patched`).

The launcher imports the modules of the repository inside the namespaces, but without a seccomp filter, because these
modules are the user's own code. Code written by a model never runs in the launcher.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import re
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

from . import collect, guard, peers, splice, unittest_tests
from .channel import Channel, ChannelError
from .repository_names import RepositoryNames

PEER = 4
Place = tuple[str, int]


class Warm:
    """A loaded ("warm") repository. The programs that the launcher forks inherit this object."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.root: str = configuration["root"]
        self.role: str = configuration["role"]
        self.items: dict[str, Any] = {}
        """The collected tests, by their pytest node id."""
        self.problems: list[dict[str, str]] = []
        """Import and collection errors, each with the keys `where` and `why`."""
        self.functions: dict[Place, list[types.FunctionType]] = {}
        """The function objects at each place (file, line) that the configuration lists."""
        self.plugin: Any = None
        self.arguments: list[str] = []
        """Arguments of pytest that select tests: options and paths."""
        self.names = RepositoryNames([])
        """Paths of the objects that both launchers have loaded."""


WARM: Warm | None = None


def load_and_serve(configuration: dict[str, Any], serve: Callable[[dict[str, Any]], None]) -> None:
    """Load a repository, then start programs until the launcher ends.

    Args:
        configuration: The keys `root`, `role`, `paths` (for ``sys.path``), `environment` and `places`. Also `arguments`
            (of pytest) for the role tester, or `modules` (to import) for the role candidate.
        serve: Starts programs until the launcher ends. Its argument becomes part of the launcher's ready message.
    """
    global WARM
    WARM = Warm(configuration)
    for variable, value in configuration.get("environment", {}).items():
        os.environ[variable] = value
    sys.path[:0] = configuration["paths"]
    os.chdir(WARM.root)
    sys.argv = ["pytest"]
    if WARM.role == "patched":
        collect.load_pytest()
        WARM.arguments = configuration["arguments"]
        serve(_ready_state())
        return
    if WARM.role == "candidate":
        for name in configuration["modules"]:
            try:
                importlib.import_module(name)
            except BaseException as error:
                WARM.problems.append(_problem(name, error))
        _index(configuration)
        serve(_ready_state())
        return

    def ready() -> None:
        _index(configuration)
        serve(_ready_state())

    collect.run(WARM, configuration["arguments"], ready)


def _problem(where: str, error: BaseException) -> dict[str, str]:
    return {"where": where, "why": f"{type(error).__name__}: {error}"[:300]}


def _ready_state() -> dict[str, Any]:
    assert WARM is not None
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return {"problems": WARM.problems[:50], "tests": len(WARM.items), "threads": threads[:10]}


def _index(configuration: dict[str, Any]) -> None:
    assert WARM is not None
    WARM.names = RepositoryNames(configuration.get("modules", []))
    WARM.functions = splice.functions_at(
        {(os.path.join(WARM.root, file), line) for file, line in configuration["places"]}
    )


def _target(header: dict[str, Any]) -> list[types.FunctionType]:
    assert WARM is not None
    target = header["target"]
    return WARM.functions.get((os.path.join(WARM.root, target["file"]), target["line"]), [])


# ---- programs of the tester's launcher


def describe(parent: Channel) -> int:
    """Send the collected tests, the loaded modules, and import or collection errors to the parent."""
    assert WARM is not None
    modules = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.startswith(WARM.root + os.sep) and name == getattr(module, "__name__", None):
            modules.append([name, os.path.relpath(file, WARM.root)])
    tests = [[item.nodeid, os.path.relpath(str(item.path), WARM.root)] for item in WARM.items.values()]
    top_level = sorted({name.partition(".")[0] for name in sys.modules})
    parent.send({"modules": modules, "tests": tests, "loaded": top_level, "problems": WARM.problems})
    return 0


def trace(parent: Channel, header: dict[str, Any]) -> int:
    """Run tests, and report for each test which functions of the repository it called.

    A test that runs longer than `header["test_seconds"]` is interrupted and gets the outcome `hangs`. A test that can't be
    interrupted ends the program.
    """
    assert WARM is not None
    os.chdir(WARM.root)
    prefix = WARM.root + os.sep
    clock = _TestClock(header["test_seconds"])
    for name in header["tests"]:
        called: dict[int, types.CodeType] = {}

        def on_call(frame: Any, event: str, argument: Any, called: dict[int, types.CodeType] = called) -> None:
            code = frame.f_code
            called.setdefault(id(code), code)

        parent.send({"begin": name})
        threading.settrace(on_call)
        sys.settrace(on_call)
        clock.start()
        try:
            result = run_test(name, None)
        except _TestTooLong:  # raised between two parts of the test
            result = {"test": name, "outcome": "failed", "detail": "", "seconds": clock.seconds}
        finally:
            clock.stop()
            sys.settrace(None)
            threading.settrace(None)
        if clock.rang:
            result["outcome"] = "hangs"
        places = sorted(
            {
                (os.path.relpath(code.co_filename, WARM.root), code.co_firstlineno)
                for code in called.values()
                if code.co_filename.startswith(prefix)
            }
        )
        parent.send({"end": name, **result, "places": places})
    return 0


class _TestTooLong(BaseException):
    """Raised in a test that exceeds its time limit."""


class _TestClock:
    """Raises `_TestTooLong` in a test that exceeds its time limit.

    Time in which the test waits for a free core does not count. A test that catches the exception, or that is inside a C
    function which never returns, can't be interrupted. The process then ends after `GRACE` times the limit: without this,
    one such test would use up the time of all tests after it.

    Args:
        seconds: The time limit of one test.
    """

    GRACE = 3.0

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.rang = False
        self._began = self._waited = 0.0
        self._nowhere = open(os.devnull, "w")  # noqa: SIM115 - faulthandler writes to it until the process ends

    def _ring(self, *_: object) -> None:
        used = time.perf_counter() - self._began - (_queued() - self._waited)
        if used < 0.95 * self.seconds:
            signal.setitimer(signal.ITIMER_REAL, self.seconds - used)
            return
        self.rang = True
        raise _TestTooLong(f"the test takes longer than {self.seconds:g} seconds")

    def start(self) -> None:
        self.rang = False
        self._began, self._waited = time.perf_counter(), _queued()
        signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        faulthandler.dump_traceback_later(self.GRACE * self.seconds, exit=True, file=self._nowhere)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def run_proxied(parent: Channel, header: dict[str, Any]) -> int:
    """Run tests while the function under test runs in the candidate's process."""
    functions = _target(header)
    if not functions:
        parent.send({"nonce": header["nonce"], "task_error": "the function is not loaded"})
        return 0
    assert WARM is not None
    client = peers.PeerClient(Channel(PEER), WARM.names, WARM.root)
    client.shared.targets.update(functions)
    unittest_tests.note_assert_raises(client.raised)
    try:
        client.name("target")
    except BaseException:
        client.gone = True
    if not client.gone:
        splice.trampoline(functions, lambda arguments, keywords: client.call(0, arguments, keywords))
    results = []
    method = str(header["target"]["qualname"]).rpartition(".")[2]
    for place, name in enumerate(header["tests"]):
        before = client.sent
        client.most = float("inf") if header["most_messages"] is None else before + header["most_messages"]
        client.raised.take_unhandled()
        client.begin_test()
        result = _after_end(name) if client.gone else run_test(name, _following(header["tests"], place))
        swallowed = client.raised.take_unhandled(PROTOCOLS.get(method, ()))
        if swallowed is not None and result["outcome"] == "passed":
            detail = f"{type(swallowed).__name__} of the program ended a loop of the test"
            result |= {"outcome": "failed", "detail": detail}
        results.append({**result, "messages": client.sent - before})
    parent.send({"nonce": header["nonce"], "results": results, "gone": client.gone, "why": client.gone_because})
    return 0


PROTOCOLS: dict[str, tuple[type[BaseException], ...]] = {
    "__next__": (StopIteration,), "__anext__": (StopAsyncIteration,), "__getitem__": (IndexError,),
    "__getattr__": (AttributeError,), "__getattribute__": (AttributeError,), "__get__": (AttributeError,),
    "__len__": (TypeError,), "__length_hint__": (TypeError,),
}  # fmt: skip
"""Exceptions of special methods that Python handles, such as `StopIteration` at the end of an iterator."""


def _after_end(name: str) -> dict[str, Any]:
    """Return the failed result of a test that was not run, because the candidate had already ended."""
    return {"test": name, "outcome": "failed", "detail": "the program ended", "seconds": 0.0}


def run_in_process(parent: Channel, source: bytes, header: dict[str, Any]) -> int:
    """Run tests with the candidate's body in this process. Such tasks are marked as forgeable."""
    functions = _target(header)
    if not functions:
        parent.send({"task_error": "the function is not loaded", "nonce": header["nonce"]})
        return 0
    target = header["target"]
    try:
        body = splice.body_of(source.decode("utf-8", "surrogatepass"), target)
        guard.check(body, frozenset(target["names"]))
        splice.swap(functions, body, target)
    except guard.Forbidden as error:
        parent.send({"nonce": header["nonce"], "refused": "forbidden", "detail": str(error)})
        return 0
    except splice.BadBody as error:
        parent.send({"nonce": header["nonce"], "refused": "syntax", "detail": str(error)})
        return 0
    nonce, tests = header.pop("nonce"), header.pop("tests")
    results = []
    # The channel gets another number than `PARENT`, so that the candidate has to search for it to write to the parent.
    descriptor = os.dup(parent.descriptor)
    os.close(parent.descriptor)
    parent.descriptor = descriptor
    for place, name in enumerate(tests):
        results.append(run_test(name, _following(tests, place)))
    parent.send({"nonce": nonce, "results": results, "gone": False})
    return 0


def _following(tests: list[str], place: int) -> str | None:
    return tests[place + 1] if place + 1 < len(tests) else None


def last_line(report: Any) -> str:
    """Return the reason of a failure: the missing fixture or async plugin, or the last line of the traceback."""
    text = str(report.longrepr).strip()
    if cause := re.search(r"async def functions are not natively supported|fixture '[^']*' not found", text):
        return cause.group(0)
    return text.splitlines()[-1][:300] if text else ""


def run_test(name: str, following: str | None, describe: Callable[[Any], str] = last_line) -> dict[str, Any]:
    """Run one test as pytest does.

    Args:
        name: Node id of the test.
        following: Node id of the next test, which decides which fixtures pytest tears down.
        describe: Returns the text for `detail` from the report of a failure.

    Returns:
        `test`, `outcome` (passed, failed, skipped or missing), `detail`, and `seconds` (without the time spent waiting
        for a free core).
    """
    from _pytest.runner import runtestprotocol  # pytest_runtest_protocol without its logging

    assert WARM is not None
    if os.getcwd() != WARM.root:
        os.chdir(WARM.root)
    began, queued = time.perf_counter(), _queued()
    item = WARM.items.get(name)
    if item is None:
        return {"test": name, "outcome": "missing", "detail": "no such test was collected", "seconds": 0.0}
    del WARM.plugin.reports[:]
    outcome, detail = "passed", ""
    try:
        reports = [*runtestprotocol(item, log=False, nextitem=WARM.items.get(following or "")), *WARM.plugin.reports]
    except BaseException as error:
        return {"test": name, "outcome": "failed", "detail": f"{type(error).__name__}: {error}"[:300], "seconds": 0.0}
    phases = {report.when for report in reports if report.outcome == "passed"}
    for report in reports:
        if report.failed:
            outcome, detail = "failed", describe(report)
            break
        if report.skipped:
            outcome = "skipped"
    if outcome == "passed" and "call" not in phases:
        outcome = "skipped"
    seconds = time.perf_counter() - began - (_queued() - queued)
    return {"test": name, "outcome": outcome, "detail": detail, "seconds": max(0.0, seconds)}


def _queued() -> float:
    """Return the seconds in which this thread was ready to run but had no free core; 0 if the kernel does not say."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


# ---- programs of the candidate's launcher


def candidate(parent: Channel, source: bytes, header: dict[str, Any]) -> int:
    """Put the candidate's body into the function, then answer the tester's calls."""
    assert WARM is not None
    functions = _target(header)
    target = header["target"]
    if not functions:
        parent.send({"reason": "protocol", "detail": "the function is not loaded"})
        return 0
    try:
        splice.swap(functions, splice.body_of(source.decode("utf-8", "surrogatepass"), target), target)
    except splice.BadBody as error:
        parent.send({"reason": "syntax", "detail": str(error)})
        return 0
    with contextlib.suppress(ChannelError):
        peers.PeerServer(Channel(PEER), functions[:1], WARM.names).serve()
    return 0


def run(entry: str, parent: Channel, source: bytes, header: dict[str, Any]) -> int:
    """Run a program of the kind `entry` and return its exit code."""
    gc.disable()
    if entry == "suite_describe":
        return describe(parent)
    if entry == "suite_trace":
        return trace(parent, header)
    if entry == "suite_proxied":
        return run_proxied(parent, header)
    if entry == "suite_whole":
        return run_in_process(parent, source, header)
    if entry == "suite_candidate":
        return candidate(parent, source, header)
    raise ValueError(f"unknown entry {entry!r}")
