"""Grading by a repository's own tests (kind ``pytest``): snapshots, warm launchers, verdicts.

A snapshot is a repository at one commit with the environment that its tests need, prepared once and named by its
content. Two trees: ``tree`` has everything, ``bare`` has neither tests nor documentation. Two tiers:

A  the tests run in the tester's process, where the function is a proxy; the candidate's process sees the bare tree
   and answers calls. Values are compared where no untrusted code ever ran.
B  objects that are no plain data can't cross: tests and candidate share a process. Forgeable, and marked as such; the
   files of the tests are hidden from it and known ways to forge are refused (`inside.guard`).

Either way the original body is in no file that the candidate can read, and its code is wiped from the process.
"""

from __future__ import annotations

import json
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignment.cache import cache_root
from alignment.grading.nodejs import NodeSnapshot, NodeSuite
from alignment.grading.python import check, claim, ending, text_of
from alignment.grading.verdict import PASSED, TestResult, Verdict, error, failed, of_tests
from alignment.sandbox.launcher_settings import LauncherSettings
from alignment.sandbox.limits import WALL_GRACE, Limits
from alignment.sandbox.program_run import Program, ProgramRun
from alignment.sandbox.slot import Slot, run_across

STORE = "ALIGN_SUITES"
START_SECONDS = 300.0
ROOT = "/repository"
"""Where the sandbox shows the tree, full or bare."""
OPEN_SUITES = 2  # repositories whose launchers one thread keeps warm


def store() -> Path:
    """Where snapshots are kept: ``$ALIGN_SUITES``, or a folder of the user's cache."""
    named = os.environ.get(STORE)
    folder = Path(named).expanduser() if named else cache_root() / "suites"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder.resolve()


@dataclass(frozen=True)
class Snapshot:
    """A prepared repository; `data` is its ``suite.json``."""

    folder: Path
    data: dict[str, Any]

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def bare(self) -> Path:
        return self.folder / "bare"

    def settings(self, role: str, allow_weaker: bool = False) -> LauncherSettings:
        """How the launcher of a role is made."""
        shown = self.tree if role == "tester" else self.bare
        return LauncherSettings(
            namespaces=True,
            allow_weaker=allow_weaker,
            readable=tuple(self.data["readable"]),
            mounts=((str(shown), ROOT),),
            packages=tuple(self.data["packages"]),
            hidden=tuple(self.data["hidden"]) if role == "candidate" else (),
            interpreter=self.data["interpreter"],
            suite=str(self.folder / f"{role}.json"),
            start_seconds=START_SECONDS,
        )


def open_snapshot(identifier: str) -> Snapshot:
    """The snapshot of this content. Raises ValueError where this machine does not have it."""
    folder = store() / identifier
    if not identifier.isalnum() or not (folder / "suite.json").is_file():
        raise ValueError(
            f"the repository snapshot {identifier!r} is not in {store()}: run the stage that built the tasks on this "
            f"machine, or copy the folder from the machine that has it (${STORE} names another place)"
        )
    return Snapshot(folder, json.loads((folder / "suite.json").read_text(encoding="utf-8")))


class Suite:
    """A snapshot with its two launchers. Not for use by several threads at once."""

    def __init__(self, snapshot: Snapshot, allow_weaker: bool = False) -> None:
        self.snapshot = snapshot
        self.tester = Slot(snapshot.settings("tester", allow_weaker))
        self.candidate = Slot(snapshot.settings("candidate", allow_weaker))

    def close(self) -> None:
        self.tester.close()
        self.candidate.close()


class Suites:
    """One thread's warm repositories; the one used longest ago is closed when there are too many."""

    def __init__(self, allow_weaker: bool) -> None:
        self.allow_weaker = allow_weaker
        self.open: OrderedDict[str, Suite | NodeSuite] = OrderedDict()

    def of(self, identifier: str) -> Suite:
        """The suite of a Python repository."""
        found = self._opened(identifier, lambda: Suite(open_snapshot(identifier), self.allow_weaker))
        if not isinstance(found, Suite):
            raise ValueError(f"the snapshot {identifier} is not of Python tests")
        return found

    def of_node(self, identifier: str) -> NodeSuite:
        """The suite of a JavaScript repository."""
        found = self._opened(
            identifier, lambda: NodeSuite(NodeSnapshot.open(open_snapshot(identifier).folder), self.allow_weaker)
        )
        if not isinstance(found, NodeSuite):
            raise ValueError(f"the snapshot {identifier} is not of JavaScript tests")
        return found

    def _opened(self, identifier: str, make: Callable[[], Suite | NodeSuite]) -> Suite | NodeSuite:
        if identifier not in self.open:
            self.open[identifier] = make()
            while len(self.open) > OPEN_SUITES:
                self.open.popitem(last=False)[1].close()
        self.open.move_to_end(identifier)
        return self.open[identifier]

    def close(self) -> None:
        for suite in self.open.values():
            suite.close()
        self.open.clear()


def grade(suite: Suite, tests: dict[str, Any], program: str, limits: Limits) -> Verdict:
    """``{"suite": id, "tier": "A", "target": {...}, "visible": [test ids], "hidden": [test ids], "cut": [...]}``.

    The program is a body, or code that holds the function, or (rows with ``prefix`` and ``suffix``) the window of the
    file that ``cut`` names, filled in. ``most_messages``, where it is there, ends a test of tier A that sends more.
    """
    names = [*tests["visible"], *tests["hidden"]]
    if not names:
        raise ValueError("the task has no tests")
    target = tests["target"]
    body = _body(suite.snapshot, target["file"], tests.get("cut"), program).encode("utf-8", "surrogatepass")
    limits = limits.at_least(memory_bytes=2 << 30, files=256, reply_bytes=64 << 20)
    nonce = secrets.token_hex(16)
    header = {"nonce": nonce, "target": target, "tests": names, "most_messages": tests.get("most_messages")}
    if tests["tier"] == "A":
        outer = limits.at_least(wall_seconds=WALL_GRACE * limits.wall_seconds + 1)
        cover = tuple(f"{ROOT}/{file}" for file in (target["file"], *tests.get("copies", ())))
        tester, candidate = run_across([
            (suite.tester, Program("suite_proxied", header, limits=outer)),
            (suite.candidate, Program("suite_candidate", {"target": target}, body, limits=limits, cover=cover)),
        ])  # fmt: skip
        cpu = tester.cpu_seconds + candidate.cpu_seconds
        check(candidate)
        if candidate.stop is not None:
            return failed(candidate.stop, "", len(names), cpu)
        reports = candidate.messages(1)
        if reports:
            own = claim(reports[0])
            return failed(own.reason, own.detail, len(names), cpu)
        return _verdict(tester, nonce, names, cpu)
    cover = tuple(
        f"{ROOT}/{file}" for file in (target["file"], *tests.get("copies", ()), *suite.snapshot.data["test_files"])
    )
    (run,) = suite.tester.run([Program("suite_whole", header, body, limits=limits, cover=cover)])
    return _verdict(run, nonce, names, run.cpu_seconds)


def _verdict(run: ProgramRun, nonce: str, names: list[str], cpu: float) -> Verdict:
    """What the process that ran the tests says; anything but a full account of every test is a failure."""
    check(run)
    said = [message for message in run.messages() if message.get("nonce") == nonce]
    if run.stop is not None or len(said) != 1:
        return failed(*ending(run), tests=len(names), cpu_seconds=cpu)
    (told,) = said
    if "task_error" in told:
        return error("invalid_task", str(told["task_error"]))
    if "refused" in told:
        reason = "forbidden" if told["refused"] == "forbidden" else "syntax"
        return failed(reason, text_of(told.get("detail")), len(names), cpu)
    results = told.get("results")
    if type(results) is not list or len(results) != len(names) or not all(type(item) is dict for item in results):
        return failed("protocol", "not every test has a result", len(names), cpu)
    found = []
    for name, result in zip(names, results, strict=True):
        outcome, detail = result.get("outcome"), text_of(result.get("detail"))[:300]
        if result.get("test") != name or told.get("gone") is not False:
            found.append(TestResult("died", "the program ended, or spoke out of turn"))
        elif outcome == "missing":
            return error("invalid_task", f"the snapshot has no test {name}")
        else:
            sent = result["messages"] if type(result.get("messages")) is int else 0
            found.append(
                TestResult(PASSED, messages=sent)
                if outcome == "passed"
                else TestResult("wrong_answer", f"{name}: {detail}", sent)
            )
    return of_tests(found, cpu)


def _body(snapshot: Snapshot, file: str, cut: list[int] | None, program: str) -> str:
    """The completion alone, where the program is the window around it with the completion in it."""
    if cut is None:
        return program
    text = _text(snapshot.tree / file)
    opening, start, end, closing = cut
    prefix, suffix = text[opening:start], text[end:closing]
    if prefix and program.startswith(prefix) and program.endswith(suffix) and len(program) >= len(prefix) + len(suffix):
        return program[len(prefix) : len(program) - len(suffix)]
    return program


@lru_cache(maxsize=32)
def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")
