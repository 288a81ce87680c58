"""Grades patches of a repository by the repository's tests (kind `repository`).

pytest runs anew in the patched tree, in the sandbox, for each patch. The tests and the changed code share a process, so a
patch could forge its verdict (tier B): patches may not change files that decide how tests run, changed code is checked by
`alignment.sandbox.inside.guard`, and only tests with a result count.
"""

from __future__ import annotations

import ast
import json
import secrets
import sys
from collections import Counter
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignment.grading.patches import PatchError, apply_patch
from alignment.grading.protected_files import change_problem, path_problem
from alignment.grading.python import MESSAGE_BYTES, check_began, ending, short_text
from alignment.grading.repository import ROOT, START_SECONDS, Snapshot
from alignment.grading.task import PatchTests
from alignment.grading.verdict import DETAIL, PASSED, TestResult, Verdict, failed, verdict_of
from alignment.grading.withheld_tests import withheld_by_file, without_tests
from alignment.sandbox.inside import guard
from alignment.sandbox.launcher_settings import LauncherSettings
from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program, ProgramRun, layer_of
from alignment.sandbox.slot import Slot

CHANGED_BYTES = 4 << 20
"""Largest size of all changed files together."""
RESULT_BYTES = 16 << 10
"""Largest size of the result of one test."""
TEST_TOOLS = frozenset({"pytest", "_pytest", "pluggy", "py", "hypothesis", "coverage", "xdist", "mock"})
"""Packages that changed code may not import, unless the file did so before."""
REACH = frozenset(
    ["modules", "meta_path", "_getframe", "_current_frames", "settrace", "setprofile", "f_back", "f_locals", "f_globals",
     "f_code", "tb_frame", "tb_next", "gi_frame", "cr_frame", "ag_frame", "get_objects", "get_referrers", "get_referents",
     "func_globals", "__globals__", "__builtins__", "__subclasses__", "__closure__", "__code__", "__import__", "gc",
     "ctypes", "importlib", "builtins", "exec", "eval", "globals", "locals", "vars",
     "getattr of a computed name", "sys"]
)  # fmt: skip
"""Restricted words by which code reaches the objects of the test runner. A patch may not use them more often than before."""


class PatchedSuite:
    """A snapshot with a launcher whose programs see the repository with changed files."""

    def __init__(self, snapshot: Snapshot, allow_weaker: bool = False) -> None:
        self.snapshot = snapshot
        self.slot = Slot(
            LauncherSettings(
                allow_weaker=allow_weaker,
                readable=tuple(snapshot.data["readable"]),
                mounts=((str(snapshot.tree), ROOT),),
                packages=tuple(snapshot.data["packages"]),
                hidden=tuple(snapshot.data["hidden"]),
                interpreter=snapshot.data["interpreter"],
                suite=str(snapshot.folder / "tester.json"),
                role="patched",
                start_seconds=START_SECONDS,
            )
        )

    def close(self) -> None:
        """End the launcher."""
        self.slot.close()


def grade(suite: PatchedSuite, tests: PatchTests, patch: str, limits: Limits) -> Verdict:
    """Grade a patch by the tests of its repository.

    Args:
        suite: the repository.
        tests: the tests to run, see `PatchTests`.
        patch: the patch in git's form. An empty text changes nothing.
        limits: limits of the run. Limits of memory, open files and reply are raised to what pytest needs.

    Raises:
        KeyError, ValueError: the tests are not in the format of `PatchTests`.
        SandboxError: the process could not be started.
    """
    names = [*tests["visible"], *tests["hidden"]]
    if not names:
        raise ValueError("the task has no tests")
    snapshot = suite.snapshot
    try:
        changes = patched_files(snapshot, patch)
    except PatchError as error:
        return failed("syntax", f"the patch can't be applied: {error}", len(names))
    except ProtectedFile as error:
        return failed("forbidden", str(error), len(names))
    known = frozenset(tests.get("names", ()))
    if added := [use for path, content in changes.items() for use in _added_reach(snapshot, path, content) - known]:
        return failed(
            "forbidden", f"the patch adds a use of {min(added)!r}, which reaches the tests' process", len(names)
        )
    guarded = {
        path: sorted(known | words_of_file(snapshot, path))
        for path, content in changes.items()
        if content is not None and path.endswith(".py")
    }
    shown = {**changes, **without_withheld(snapshot, tests)}
    nonce = secrets.token_hex(16)
    header = {"nonce": nonce, "tests": names, "guarded": guarded}
    limits = limits.at_least(memory_bytes=2 << 30, files=256, reply_bytes=64 << 20)
    (run,) = suite.slot.run([Program("suite_patched", header, limits=limits, layer=layer_of(shown))])
    return _verdict(run, nonce, names)


class ProtectedFile(ValueError):
    """Raised if a patch changes a file that it may not change."""


def patched_files(snapshot: Snapshot, patch: str) -> dict[str, bytes | None]:
    """Return the new contents of the files that a patch changes, None for deleted files.

    Raises:
        PatchError: the patch does not fit the repository, or is too large.
        ProtectedFile: the patch changes a file that it may not change.
    """
    changes = apply_patch(patch, lambda path: read_file(snapshot, path))
    if sum(len(content or b"") for content in changes.values()) > CHANGED_BYTES:
        raise PatchError(f"the changed files have more than {CHANGED_BYTES} bytes")
    for path, content in changes.items():
        check_change(snapshot, path, content)
    folders = {parent for path, content in changes.items() if content is not None for parent in _parents(path)}
    if both := sorted(folders & set(changes)):
        raise PatchError(f"{both[0]} is changed as a file, and other files are made below it")
    return changes


def check_change(snapshot: Snapshot, path: str, content: bytes | None) -> None:
    """Raise ProtectedFile if a patch may not give a file this content (None: delete the file)."""
    data = snapshot.data
    problem = change_problem(snapshot.tree, path, content, data["test_files"], import_roots(snapshot), data["packages"])
    if problem is not None:
        raise ProtectedFile(f"{path}: {problem}")


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def read_file(snapshot: Snapshot, path: str) -> bytes | None:
    """Return the content of a file of a snapshot, or None if there is no such file.

    Raises ProtectedFile if the path leads out of the repository.
    """
    if problem := path_problem(snapshot.tree, path):
        raise ProtectedFile(f"{path}: {problem}")
    file = snapshot.tree / path
    return file.read_bytes() if file.is_file() else None


def import_roots(snapshot: Snapshot) -> list[str]:
    """Return the folders of a repository from which modules are imported; the empty text is the repository itself."""
    return _import_roots(snapshot.folder)


@lru_cache(maxsize=64)
def _import_roots(folder: Path) -> list[str]:
    paths = json.loads((folder / "tester.json").read_text(encoding="utf-8"))["paths"]
    return [path.removeprefix(ROOT).strip("/") for path in paths]


def without_withheld(snapshot: Snapshot, tests: PatchTests) -> dict[str, bytes]:
    """Return the contents of test files without the tests that the task withholds, by path."""
    contents = {}
    for path, functions in withheld_by_file(tests.get("withheld", ()), tests["visible"]).items():
        before = read_file(snapshot, path)
        if before is not None:
            source = before.decode("utf-8", "surrogateescape")
            contents[path] = without_tests(source, functions).encode("utf-8", "surrogateescape")
    return contents


def restricted_words(snapshot: Snapshot, patch: str) -> list[str]:
    """Return the restricted words that a reference patch uses and the changed files did not use before.

    The tests of a task list these words in `names`, so that other patches may use them too.

    Raises PatchError or ProtectedFile if the patch can't be graded.
    """
    words: set[str] = set()
    for path, content in patched_files(snapshot, patch).items():
        if content is not None and path.endswith(".py"):
            words |= _words(content).keys() - words_of_file(snapshot, path)
            words |= _added_reach(snapshot, path, content)
    return sorted(words)


def _added_reach(snapshot: Snapshot, path: str, content: bytes | None) -> set[str]:
    """Return the words of `REACH` that a patch uses in a file more often than the file before.

    That a file uses `sys.modules` somewhere is no reason to allow another use, with which a patch could change the runner.
    """
    if content is None or not path.endswith(".py"):
        return set()
    file = snapshot.tree / path
    before = _words(file.read_bytes()) if file.is_file() else Counter[str]()
    return {word for word, count in _words(content).items() if word in REACH and count > before[word]}


def words_of_file(snapshot: Snapshot, path: str) -> frozenset[str]:
    """Return the restricted words that a changed file may use: those of the file before, and modules that are no part
    of Python and no tool for tests.
    """
    file = snapshot.tree / path
    before = _words_of_path(file) if file.is_file() else frozenset()
    return before | _other_modules(snapshot.folder, tuple(snapshot.data["packages"]))


@lru_cache(maxsize=256)
def _words_of_path(path: Path) -> frozenset[str]:
    return frozenset(_words(path.read_bytes()))


def _words(content: bytes) -> Counter[str]:
    """Count the uses of restricted words in a file."""
    try:
        nodes = list(ast.walk(ast.parse(content)))
        return Counter(word for node in nodes for word in (*guard.words(node), *guard.reading_words(node)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Counter()


@lru_cache(maxsize=64)
def _other_modules(folder: Path, packages: Collection[str]) -> frozenset[str]:
    """Return the names of the modules of a repository and of installed packages."""
    roots = [folder / "tree" / root for root in _import_roots(folder)]
    names = {
        item.name.removesuffix(".py")
        for base in (*roots, *map(Path, packages))
        if base.is_dir()
        for item in base.iterdir()
        if item.suffix == ".py" or (item.is_dir() and item.name.isidentifier())
    }
    return frozenset(names - TEST_TOOLS - sys.stdlib_module_names - guard.NAMES - guard.ATTRIBUTES - guard.READS)


def _verdict(run: ProgramRun, nonce: str, names: list[str]) -> Verdict:
    """Return the verdict from the report of the process that ran the tests. A missing result is a failed test."""
    check_began(run)
    cpu = run.cpu_seconds
    messages = run.messages(2, MESSAGE_BYTES + len(names) * RESULT_BYTES)
    reports: list[dict[str, Any]] = [message for message in messages if message.get("nonce") == nonce]
    if run.stop is not None or len(reports) != 1 or len(messages) != 1:
        return failed(*ending(run), tests=len(names), cpu_seconds=cpu)
    (report,) = reports
    if "refused" in report:
        reason = "forbidden" if report["refused"] == "forbidden" else "syntax"
        return failed(reason, short_text(report.get("detail")), len(names), cpu)
    results = report.get("results")
    if type(results) is not list or len(results) != len(names) or not all(type(item) is dict for item in results):
        return failed("protocol", "some tests have no result", len(names), cpu)
    checked = []
    for name, result in zip(names, results, strict=True):
        outcome, detail = result.get("outcome"), result.get("detail")
        detail = f"{name}: {detail if isinstance(detail, str) else outcome}"[: 3 * DETAIL]
        if result.get("test") != name:
            checked.append(TestResult("protocol", f"{name}: another test has its result"))
        elif outcome == PASSED:
            checked.append(TestResult(PASSED))
        elif outcome == "missing":
            checked.append(TestResult("not_run", detail))
        else:
            checked.append(TestResult("wrong_answer", detail if outcome != "skipped" else f"{name}: was skipped"))
    return verdict_of(checked, cpu)
