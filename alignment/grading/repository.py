"""Grades functions by the tests of their Python repository (kind `pytest`).

A snapshot is a repository at one commit, with the environment that the repository's tests need. A snapshot is prepared
once, and its identifier is computed from its content. It has two trees: `tree` is complete, `bare` has neither tests
nor documentation. There are two tiers:

A  Tests run in the tester's process, in which a proxy replaces the function. The candidate's process sees the bare tree
   and answers the proxy's calls. Values are compared in a process that has run no untrusted code.
B  For functions whose values are not plain data and cannot be sent between processes: tests and candidate run in the
   same process. A program can forge the verdict, so these tasks are marked as forgeable. The test files are hidden from
   the program, and known ways to forge are refused (`alignment.sandbox.inside.guard`).

In both tiers, no file that the candidate can read contains the original body, and the code of the original body is
removed from the candidate's process.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignment.cache import cache_root
from alignment.grading.nodejs import RESULT_BYTES
from alignment.grading.python import MESSAGE_BYTES, check_began, ending, reported_failure, short_text
from alignment.grading.task import RepositoryTests
from alignment.grading.verdict import PASSED, TestResult, Verdict, error, failed, verdict_of
from alignment.sandbox.launcher_settings import LauncherSettings
from alignment.sandbox.limits import WALL_GRACE, Limits
from alignment.sandbox.program_run import Program, ProgramRun
from alignment.sandbox.slot import Slot, run_across

STORE = "ALIGN_SUITES"
"""Name of the environment variable with the path of the folder of all snapshots."""
START_SECONDS = 300.0
"""Time limit for a launcher to import a repository, in seconds."""
ROOT = "/repository"
"""Path in the sandbox at which the complete or the bare tree of the repository is mounted."""


def store() -> Path:
    """Return the folder of all snapshots: `$ALIGN_SUITES`, by default a folder in the user's cache folder."""
    named = os.environ.get(STORE)
    folder = Path(named).expanduser() if named else cache_root() / "suites"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder.resolve()


@dataclass(frozen=True)
class Snapshot:
    """A Python repository that is prepared for grading."""

    folder: Path
    data: dict[str, Any]
    """The content of the file `suite.json` in the folder."""

    @property
    def tree(self) -> Path:
        """Folder with all files of the repository."""
        return self.folder / "tree"

    @property
    def bare(self) -> Path:
        """Folder with the files of the repository except tests and documentation."""
        return self.folder / "bare"

    def settings(self, role: str, allow_weaker: bool = False) -> LauncherSettings:
        """Return the settings of the launcher for `tester` or `candidate`."""
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
    """Return the snapshot with this identifier. Raises ValueError if the snapshot is not on this machine."""
    folder = store() / identifier
    if not identifier.isalnum() or not (folder / "suite.json").is_file():
        raise ValueError(
            f"the repository snapshot {identifier!r} is not in {store()}: run the stage that built the tasks on this "
            f"machine, or copy the folder from the machine that has it (${STORE} names another place)"
        )
    return Snapshot(folder, json.loads((folder / "suite.json").read_text(encoding="utf-8")))


class Suite:
    """A snapshot with two launchers: one for tests, one for candidates. Only one thread at a time may use it."""

    def __init__(self, snapshot: Snapshot, allow_weaker: bool = False) -> None:
        self.snapshot = snapshot
        self.tester = Slot(snapshot.settings("tester", allow_weaker))
        self.candidate = Slot(snapshot.settings("candidate", allow_weaker))

    def close(self) -> None:
        """End both launchers."""
        self.tester.close()
        self.candidate.close()


def grade(suite: Suite, tests: RepositoryTests, program: str, limits: Limits) -> Verdict:
    """Grade a function's body by the tests of its repository.

    Args:
        suite: the repository.
        tests: the tests to run and the function to replace, see `RepositoryTests`.
        program: the body, or code that contains the function. For fill-in-the-middle rows (with `prefix` and
            `suffix`): the part of the file that `cut` describes, with the body filled in.
        limits: limits of the program. Limits of memory, open files and reply are raised to what pytest needs.

    Raises:
        KeyError, ValueError: the tests are not in the format of `RepositoryTests`.
        SandboxError: a process could not be started.
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
        return _grade_apart(suite, tests, header, body, limits)
    cover = tuple(
        f"{ROOT}/{file}" for file in (target["file"], *tests.get("copies", ()), *suite.snapshot.data["test_files"])
    )
    (run,) = suite.tester.run([Program("suite_whole", header, body, limits=limits, cover=cover)])
    return _verdict(run, nonce, names, run.cpu_seconds)


def _grade_apart(suite: Suite, tests: RepositoryTests, header: dict[str, Any], body: bytes, limits: Limits) -> Verdict:
    """Grade a body with the tests and the candidate in two processes (tier A)."""
    names, target = header["tests"], tests["target"]
    # The tester gets more time than the program, so that the program reaches its limit first.
    tester_limits = limits.at_least(wall_seconds=WALL_GRACE * limits.wall_seconds + 1)
    cover = tuple(f"{ROOT}/{file}" for file in (target["file"], *tests.get("copies", ())))
    tester, candidate = run_across([
        (suite.tester, Program("suite_proxied", header, limits=tester_limits)),
        (suite.candidate, Program("suite_candidate", {"target": target}, body, limits=limits, cover=cover)),
    ])  # fmt: skip
    cpu = tester.cpu_seconds + candidate.cpu_seconds
    check_began(candidate)
    if candidate.stop is not None:
        return failed(candidate.stop, "", len(names), cpu)
    failures = candidate.messages(1, MESSAGE_BYTES)
    if failures:
        failure = reported_failure(failures[0])
        return failed(failure.reason, failure.detail, len(names), cpu)
    return _verdict(tester, header["nonce"], names, cpu)


def _verdict(run: ProgramRun, nonce: str, names: list[str], cpu: float) -> Verdict:
    """Return the verdict from the report of the process that ran the tests. A missing test result is a failure."""
    check_began(run)
    # In tier B the process has run the program, so its reply is not trusted.
    messages = run.messages(2, MESSAGE_BYTES + len(names) * RESULT_BYTES)
    reports = [message for message in messages if message.get("nonce") == nonce]
    if run.stop is not None or len(reports) != 1:
        return failed(*ending(run), tests=len(names), cpu_seconds=cpu)
    (report,) = reports
    if "task_error" in report:
        return error("invalid_task", str(report["task_error"]))
    if "refused" in report:
        reason = "forbidden" if report["refused"] == "forbidden" else "syntax"
        return failed(reason, short_text(report.get("detail")), len(names), cpu)
    results = report.get("results")
    if type(results) is not list or len(results) != len(names) or not all(type(item) is dict for item in results):
        return failed("protocol", "some tests have no result", len(names), cpu)
    checked = []
    for name, result in zip(names, results, strict=True):
        outcome, detail = result.get("outcome"), short_text(result.get("detail"))[:300]
        if result.get("test") != name or report.get("gone") is not False:
            why = short_text(report.get("why"))[:200]
            checked.append(TestResult("died", f"the program ended, or sent something out of turn: {why}".rstrip(": ")))
        elif outcome == "missing":
            return error("invalid_task", f"the snapshot has no test {name}")
        else:
            sent = result["messages"] if type(result.get("messages")) is int else 0
            checked.append(
                TestResult(PASSED, messages=sent)
                if outcome == "passed"
                else TestResult("wrong_answer", f"{name}: {detail}", sent)
            )
    return verdict_of(checked, cpu)


def _body(snapshot: Snapshot, file: str, cut: list[int] | None, program: str) -> str:
    """Return the program without the prefix and suffix of the file, if the program begins and ends with them."""
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
