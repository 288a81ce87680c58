"""Which tests of a JavaScript repository call which functions: every test file runs once, with a mark in each function."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from alignment.grading.nodejs import NodeSuite, messages
from alignment.sandbox.limits import Limits
from alignment.sandbox.slot import SandboxError, Slot
from data_builders.tasks.javascript.javascript_runners import FOREIGN, OURS
from data_builders.tasks.javascript.javascript_suite import JsPreparedSuite
from data_builders.tasks.python.python_coverage import FAST_SECONDS

LIMITS = Limits(cpu_seconds=60, wall_seconds=60)
TEST_MILLISECONDS = 5000
ATTEMPTS = 5  # of one file whose tests end the process
_REASONS = (
    (r"^unsupported: (\w+\.\w+)", "needs_of_its_runner: {}"),
    (r"ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ENETUNREACH|fetch failed|EPERM|ECONNRESET", "needs_network_or_database"),
    (r"EROFS|read-only file system", "writes_into_the_repository"),
    (r"\b(?:document|window|navigator|HTMLElement|localStorage|customElements) is not defined", "needs_a_browser"),
    (r"toMatch(?:Inline)?Snapshot|toThrowErrorMatching", "needs_of_its_runner: snapshots"),
)


@dataclass
class JsCoverage:
    """What the suite showed."""

    covering: dict[int, list[str]]
    """Number of a function -> the usable tests that call it, in the suite's order."""
    outcomes: Counter[str]
    problems: list[str]
    loaded: set[int]
    """Functions that run while files are loaded."""
    seconds: float


def js_coverage(prepared: JsPreparedSuite, budget_seconds: float, *, allow_weaker: bool = False) -> JsCoverage:
    """Run every test file; those that `budget_seconds` of wall time do not reach are counted as ``over_budget``."""
    found = JsCoverage({}, Counter(), list(prepared.problems), set(), 0.0)
    suite = NodeSuite(prepared.snapshot, allow_weaker)
    suite.tester = Slot(prepared.snapshot.settings("tracer", allow_weaker))
    began = time.monotonic()
    try:
        for path in sorted(prepared.snapshot.tests):
            if time.monotonic() - began > budget_seconds:
                found.outcomes["file_over_budget"] += 1
                continue
            _file(suite, path, found)
    finally:
        suite.close()
    found.seconds = round(time.monotonic() - began, 1)
    return found


def _file(suite: NodeSuite, path: str, found: JsCoverage) -> None:
    """One file; tests that end the process are left out when it runs again."""
    done: list[str] = []
    for _ in range(ATTEMPTS):
        asked = {
            "mode": "trace",
            "nonce": "align:",
            "tests": [],
            "files": [path],
            "skip": done,
            "limit": TEST_MILLISECONDS,
        }
        try:
            (run,) = suite.tester.run([suite.program("tester", asked, {path: suite.snapshot.tests[path]}, LIMITS)])
        except SandboxError:
            found.outcomes["ends_the_process_or_hangs"] += 1
            return
        open_test, ended = "", False
        for told in messages(run, "align:"):
            if "problem" in told:
                found.problems.append(f"{told['problem']}: {told['detail']}{_hint(told['detail'])}")
            elif "begin" in told:
                open_test = told["begin"]
            elif "end" in told:
                open_test = ""
                done.append(told["end"])
                _count(told, found)
            elif told.get("done"):
                ended = True
                found.loaded.update(told["loading"])
        if ended:
            return
        found.outcomes["ends_the_process_or_hangs"] += 1
        if not open_test:
            said = run.stderr.decode(errors="replace").strip().splitlines()[-1:] or [run.stop or "it ends its process"]
            found.problems.append(f"{path}: {said[0][:300]}")
            return
        done.append(open_test)


def _count(told: dict[str, Any], found: JsCoverage) -> None:
    outcome = outcome_of(told)
    found.outcomes[outcome] += 1
    for number in told["hits"] if outcome == "passed" else []:
        found.covering.setdefault(number, []).append(told["end"])


def outcome_of(told: dict[str, Any]) -> str:
    """``passed``, or one word for why a test can't be used."""
    if told["outcome"] == "passed":
        return "passed" if max(told["cpu"], min(told["seconds"], 10 * told["cpu"])) <= FAST_SECONDS else "slow"
    if told["outcome"] != "failed":
        return str(told["outcome"])
    if "takes too long" in told["detail"]:
        return "slow"
    for pattern, name in _REASONS:
        if found := re.search(pattern, told["detail"]):
            return name.format(*found.groups())
    return "failed"


def _hint(detail: str) -> str:
    missing = re.search(r"Cannot find (?:package|module) '([^']+)'", detail)
    if (
        missing
        and re.search(r"(?:^|/)(?:dist|build|lib|out|es|cjs)/", missing[1])
        and missing[1].startswith((".", "/repository"))
    ):
        return " (a build step may be missing: point the tests at the source, or name a folder that holds the build)"
    return " (install what it needs beside the repository: npm install)" if missing else ""


def js_advice(prepared: JsPreparedSuite, found: JsCoverage) -> list[str]:
    """What stands in the way, in a user's words, and what would help."""
    said = list(dict.fromkeys(found.problems))[:5]
    snapshot, known = prepared.snapshot, prepared.packages
    foreign = known.wants(*FOREIGN)
    if not snapshot.tests and foreign:
        said.append(f"its tests are for {', '.join(foreign)}, which is not supported: only {OURS} are")
    elif not snapshot.tests:
        said.append(f"no tests were found: files like *.test.js or below test/, for {OURS}")
    elif not found.outcomes and foreign:
        said.append(f"its tests are for {', '.join(foreign)}, which is not supported: only {OURS} are")
    if snapshot.tests and not snapshot.data["modules"] and any(package.get("dependencies") or package.get("devDependencies") for package in known.found.values()):  # fmt: skip
        said.append(
            "it has no node_modules: run npm install (or pnpm, yarn) in its folder, so that tests find their packages"
        )
    if prepared.unparsed:
        said.append(f"{prepared.unparsed} files can't be parsed: their functions are left out")
    for key, count in sorted(found.outcomes.items()):
        if key.startswith("needs_of_its_runner"):
            said.append(f"{count} tests need {key.partition(': ')[2]} of their runner, which is not supported")
    for key, text in (
        ("failed", "tests fail as the repository is"), ("slow", "tests are too slow to grade by"),
        ("needs_network_or_database", "tests need the network or a database: there is none in the sandbox"),
        ("needs_a_browser", "tests need a browser's document, which is not supported"),
        ("writes_into_the_repository", "tests write into the repository, which is read-only here"),
        ("ends_the_process_or_hangs", "tests end their process or hang"),
        ("file_over_budget", "test files were not reached within `tests.budget_seconds`"),
    ):  # fmt: skip
        if found.outcomes[key]:
            said.append(f"{found.outcomes[key]} {text}")
    return said
