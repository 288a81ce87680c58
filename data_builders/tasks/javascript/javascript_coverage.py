"""Run each JavaScript test file once, with a counter in every function, and record which tests call which functions."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from alignment.grading.nodejs import NodeSuite, messages
from alignment.logs import get_logger
from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import SandboxError, Slot
from data_builders.tasks.javascript.javascript_runners import FOREIGN, SUPPORTED
from data_builders.tasks.javascript.javascript_suite import JsPreparedSuite
from data_builders.tasks.python.python_coverage import FAST_SECONDS, LOG_SECONDS

logger = get_logger(__name__)

LIMITS = Limits(cpu_seconds=60, wall_seconds=60)
TEST_MILLISECONDS = 5000
"""Maximum wall time of one test in milliseconds."""
FILE_SECONDS = 90.0
"""Maximum wall time of all runs of one test file, in seconds."""
ATTEMPTS = 5
"""Maximum number of runs of one test file. A file is run again if a test ends the process."""
_REASONS = (
    (r"^unsupported: (\w+\.\w+)", "needs_of_its_runner: {}"),
    (r"ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ENETUNREACH|fetch failed|EPERM|ECONNRESET", "needs_network_or_database"),
    (r"EROFS|read-only file system", "writes_into_the_repository"),
    (r"\b(?:document|window|navigator|HTMLElement|localStorage|customElements) is not defined", "needs_a_browser"),
    (r"toMatch(?:Inline)?Snapshot|toThrowErrorMatching", "needs_of_its_runner: snapshots"),
)


@dataclass
class JsCoverage:
    """The outcomes of the tests of a JavaScript suite, and the functions that each test calls."""

    covering: dict[int, list[str]]
    """Maps the index of a function to the usable tests that call the function, in the suite's order."""
    outcomes: Counter[str]
    """Number of tests by outcome: `passed`, or the reason why a test cannot be used."""
    problems: list[str]
    """Descriptions of errors in test files, and of errors while transforming files."""
    loaded: set[int]
    """Indices of the functions that are called while files are loaded, not only by tests."""
    seconds: float
    """Wall time of the run."""


def js_coverage(prepared: JsPreparedSuite, budget_seconds: float, *, allow_weaker: bool = False) -> JsCoverage:
    """Run every test file of a snapshot, and record the outcomes and the called functions.

    Args:
        prepared: the suite.
        budget_seconds: maximum wall time of the run. Files that have not run by then are counted as `file_over_budget`.
        allow_weaker: whether a weaker sandbox is allowed, see `SandboxSettings.allow_weaker`.
    """
    coverage = JsCoverage({}, Counter(), list(prepared.problems), set(), 0.0)
    suite = NodeSuite(prepared.snapshot, allow_weaker)
    suite.tester = Slot(prepared.snapshot.settings("tracer", allow_weaker))
    began = logged = time.monotonic()
    name, paths = prepared.snapshot.data["name"], sorted(prepared.snapshot.tests)
    logger.info("%s: running %d test files once to find out which functions they call", name, len(paths))
    try:
        for number, path in enumerate(paths):
            left = budget_seconds - (time.monotonic() - began)
            if left <= 0:
                coverage.outcomes["file_over_budget"] += 1
                continue
            if time.monotonic() - logged > LOG_SECONDS:
                logged = time.monotonic()
                logger.info("%s: %d of %d test files have run", name, number, len(paths))
            _run_file(suite, path, coverage, left)
    finally:
        suite.close()
    coverage.seconds = round(time.monotonic() - began, 1)
    return coverage


def _run_file(suite: NodeSuite, path: str, coverage: JsCoverage, seconds: float) -> None:
    """Run one test file. If a test ends the process, run the file again without this test, for `seconds` in total."""
    done: list[str] = []
    end = time.monotonic() + min(seconds, FILE_SECONDS)
    for _ in range(ATTEMPTS):
        left = max(1.0, end - time.monotonic())
        limits = replace(LIMITS, cpu_seconds=min(LIMITS.cpu_seconds, left), wall_seconds=min(LIMITS.wall_seconds, left))
        request = {
            "mode": "trace",
            "nonce": "align:",
            "tests": [],
            "files": [path],
            "skip": done,
            "limit": TEST_MILLISECONDS,
        }
        try:
            (run,) = suite.tester.run([suite.program("tester", request, {path: suite.snapshot.tests[path]}, limits)])
        except SandboxError:
            coverage.outcomes["ends_the_process_or_hangs"] += 1
            return
        open_test, ended = "", False
        for message in messages(run, "align:"):
            if "problem" in message:
                coverage.problems.append(f"{message['problem']}: {message['detail']}{_hint(message['detail'])}")
            elif "begin" in message:
                open_test = message["begin"]
            elif "end" in message:
                open_test = ""
                done.append(message["end"])
                _count(message, coverage)
            elif message.get("done"):
                ended = True
                coverage.loaded.update(message["loading"])
        if ended:
            return
        coverage.outcomes["ends_the_process_or_hangs"] += 1
        if not open_test:
            last = run.stderr.decode(errors="replace").strip().splitlines()[-1:] or [run.stop or "it ends its process"]
            coverage.problems.append(f"{path}: {last[0][:300]}")
            return
        done.append(open_test)
        if time.monotonic() >= end:
            coverage.problems.append(
                f"{path}: the tests after {open_test!r} were not run, because tests of this file hang"
            )
            return


def _count(result: dict[str, Any], coverage: JsCoverage) -> None:
    """Add the result of one test to the coverage."""
    outcome = outcome_of(result)
    coverage.outcomes[outcome] += 1
    for number in result["hits"] if outcome == "passed" else []:
        coverage.covering.setdefault(number, []).append(result["end"])


def outcome_of(result: dict[str, Any]) -> str:
    """Return `passed`, or the reason why a test cannot be used."""
    if result["outcome"] == "passed":
        return "passed" if max(result["cpu"], min(result["seconds"], 10 * result["cpu"])) <= FAST_SECONDS else "slow"
    if result["outcome"] != "failed":
        return str(result["outcome"])
    if "takes too long" in result["detail"]:
        return "slow"
    for pattern, name in _REASONS:
        if match := re.search(pattern, result["detail"]):
            return name.format(*match.groups())
    return "failed"


def _hint(detail: str) -> str:
    """Return a remedy for a module that cannot be found, or ""."""
    missing = re.search(r"Cannot find (?:package|module) '([^']+)'", detail)
    if (
        missing
        and re.search(r"(?:^|/)(?:dist|build|lib|out|es|cjs)/", missing[1])
        and missing[1].startswith((".", "/repository"))
    ):
        return " (a build step may be missing: point the tests at the source, or name a folder that holds the build)"
    return " (install the packages in the folder of the repository: npm install)" if missing else ""


def js_advice(prepared: JsPreparedSuite, coverage: JsCoverage) -> list[str]:
    """Explain why a JavaScript suite gives few or no tasks: one line per reason, usually with a remedy."""
    lines = list(dict.fromkeys(coverage.problems))[:5]
    snapshot, known = prepared.snapshot, prepared.packages
    foreign = known.depends_on(*FOREIGN)
    if not snapshot.tests and foreign:
        lines.append(f"the tests are for {', '.join(foreign)}, which is not supported: use {SUPPORTED}")
    elif not snapshot.tests:
        lines.append(f"no tests were found: name test files like *.test.js or use a folder test/, with {SUPPORTED}")
    elif not coverage.outcomes and foreign:
        lines.append(f"the tests are for {', '.join(foreign)}, which is not supported: use {SUPPORTED}")
    if snapshot.tests and not snapshot.data["modules"] and any(package.get("dependencies") or package.get("devDependencies") for package in known.by_folder.values()):  # fmt: skip
        lines.append(
            "node_modules is missing: run npm install (or pnpm, yarn) in the repository, so that tests find packages"
        )
    if prepared.unparsed:
        lines.append(f"{prepared.unparsed} files cannot be parsed: their functions are left out")
    for key, count in sorted(coverage.outcomes.items()):
        if key.startswith("needs_of_its_runner"):
            lines.append(f"{count} tests use {key.partition(': ')[2]} of their runner, which is not supported")
    for key, text in (
        ("failed", "tests fail in the repository as it is"), ("slow", "tests are too slow for grading"),
        ("needs_network_or_database", "tests need the network or a database: the sandbox has neither"),
        ("needs_a_browser", "tests need the document of a browser, which is not supported"),
        ("writes_into_the_repository", "tests write into the repository, which is read-only in the sandbox"),
        ("ends_the_process_or_hangs", "tests end their process or hang"),
        ("file_over_budget", "test files were not reached within `tests.budget_seconds`"),
    ):  # fmt: skip
        if coverage.outcomes[key]:
            lines.append(f"{coverage.outcomes[key]} {text}")
    return lines
