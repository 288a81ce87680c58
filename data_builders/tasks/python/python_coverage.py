"""Run a pytest suite once in the sandbox, and trace which tests call which functions.

Only calls are traced, not executed lines. A few lines with `sys.settrace` inside the sandbox are enough for this.
Nothing has to be installed into the user's environment.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.grading.repository import Suite
from alignment.logs import get_logger
from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program
from alignment.sandbox.slot import SandboxError
from data_builders.parsing.python_functions import Function
from data_builders.tasks.python.python_suite import PreparedSuite
from data_builders.tasks.suite_settings import TEST_SECONDS

logger = get_logger(__name__)

BATCH = 25
"""Number of tests that one program in the sandbox runs."""
LOG_SECONDS = 15.0
"""Minimum time between two messages about the number of tests that have run."""
HANGS_PER_FILE = 3
"""Number of tests of one file that may exceed their time limit before the other tests of this file run last."""
FAST_SECONDS = 2.0
"""Maximum duration of a usable test in seconds, because training runs each test thousands of times. Slower tests are
counted as `slow`."""
_NETWORK = re.compile(
    r"socket|gaierror|getaddrinfo|ConnectionError|ConnectionRefused|Network is unreachable|Temporary failure in name|"
    r"OperationalError|could not connect|urlopen error|Max retries|redis|psycopg|pymysql|mongo", re.IGNORECASE
)  # fmt: skip


@dataclass
class CoverageMap:
    """The outcome of each test of a pytest suite, and the functions that each test calls."""

    covering: dict[tuple[str, int], list[str]]
    """Maps (file, line) of a function to the usable tests that call the function, in the suite's order."""
    outcomes: dict[str, str]
    """Maps a test to `passed`, or to the reason why the test cannot be used."""
    seconds: float
    """Wall time of the run."""

    def account(self) -> dict[str, int]:
        """Count the tests by outcome, for the build report."""
        return dict(sorted(Counter(self.outcomes.values()).items()))

    def tests_calling(self, function: Function) -> list[str]:
        """Return the usable tests that call a function, in the suite's order."""
        return self.covering.get((function.file, function.line), [])


def coverage_map(
    prepared: PreparedSuite,
    *,
    budget_seconds: float = 600.0,
    test_seconds: float = TEST_SECONDS,
    allow_weaker: bool = False,
) -> CoverageMap:
    """Run a suite once with the tracer of calls. The result is stored with the snapshot and reused.

    Args:
        prepared: the suite.
        budget_seconds: maximum wall time of the run. Tests that have not run by then are counted as `over_budget`.
        test_seconds: maximum wall time of one test. Longer tests are interrupted and counted as `hangs`.
        allow_weaker: whether a weaker sandbox is allowed, see `SandboxSettings.allow_weaker`.
    """
    stored_map = prepared.snapshot.folder / f"map-{int(budget_seconds)}-{test_seconds:g}.json"
    if not stored_map.is_file():
        logger.info(
            "%s: running %d tests once to find out which functions they call",
            prepared.snapshot.data["name"], len(prepared.tests),
        )  # fmt: skip
        results, seconds = run_tests(prepared, prepared.tests, budget_seconds, test_seconds, allow_weaker)
        stored_map.write_text(json.dumps({"results": results, "seconds": seconds}), encoding="utf-8")
    stored = json.loads(stored_map.read_text(encoding="utf-8"))
    covering: dict[tuple[str, int], list[str]] = {}
    outcomes: dict[str, str] = {}
    for name in prepared.tests:
        result = stored["results"].get(name, {"outcome": "over_budget"})
        outcomes[name] = outcome_of(result)
        if outcomes[name] == "passed":
            for file, line in result["places"]:
                covering.setdefault((file, line), []).append(name)
    return CoverageMap(covering, outcomes, stored["seconds"])


def outcome_of(result: dict[str, Any]) -> str:
    """Return `passed`, or the reason why a test cannot be used."""
    outcome, detail = result["outcome"], result.get("detail", "")
    if outcome == "passed":
        return "passed" if result["seconds"] <= FAST_SECONDS else "slow"
    if outcome != "failed":
        return str(outcome)
    if missing := re.search(r"No module named '([\w.]+)'", detail):
        return f"needs_package: {missing.group(1)}"
    if fixture := re.search(r"^fixture '(.*)' not found$", detail):
        return f"needs_fixture: {fixture.group(1)}"
    if detail.startswith("async def functions are not natively supported"):
        return "needs_async_plugin"
    if "Operation not permitted" in detail or _NETWORK.search(detail):
        return "needs_network_or_database"
    if "Read-only file system" in detail:
        return "writes_into_the_repository"
    return "failed"


def run_tests(
    prepared: PreparedSuite, names: Sequence[str], budget_seconds: float, test_seconds: float, allow_weaker: bool
) -> tuple[dict[str, dict[str, Any]], float]:
    """Run tests of a suite in batches with the tracer. Return the results, keyed by test, and the wall time.

    For the arguments, see `coverage_map`. Tests that have not run within the budget are not in the results.
    """
    results: dict[str, dict[str, Any]] = {}
    began = logged = time.monotonic()
    name = prepared.snapshot.data["name"]
    suite = Suite(prepared.snapshot, allow_weaker)
    try:
        waiting = list(names)
        size = BATCH
        while waiting and (left := budget_seconds - (time.monotonic() - began)) > 0:
            batch = waiting[:size]
            ended, broken, hung = _run_batch(suite, batch, test_seconds, max(left, 1.0))
            results.update(ended)
            if broken and not hung and size > 1:  # run this test again alone: an earlier test may be the reason
                waiting = waiting[waiting.index(broken) :]
                size = 1
                continue
            if broken:
                results[broken] = {"outcome": "hangs" if hung else "ends_the_process"}
            if time.monotonic() - logged > LOG_SECONDS:
                logged = time.monotonic()
                logger.info("%s: %d of %d tests have run", name, len(results), len(names))
            waiting = slow_files_last([name for name in waiting if name not in results], results)
            size = BATCH
    finally:
        suite.close()
    return results, round(time.monotonic() - began, 1)


def slow_files_last(waiting: list[str], results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Move tests of files in which many tests hang to the end, so that they do not use up the time of other files."""
    hanging = Counter(name.partition("::")[0] for name, result in results.items() if result["outcome"] == "hangs")
    return sorted(waiting, key=lambda name: hanging[name.partition("::")[0]] >= HANGS_PER_FILE)


def _run_batch(
    suite: Suite, names: Sequence[str], test_seconds: float, wall: float
) -> tuple[dict[str, dict[str, Any]], str, bool]:
    """Run tests in one program.

    Args:
        suite: the repository.
        names: the tests.
        test_seconds: time limit of one test.
        wall: time limit of all tests together.

    Returns:
        The results, keyed by test; the test that ended the program, or ""; whether this test exceeded its time limit.
    """
    limits = Limits(
        cpu_seconds=wall,
        wall_seconds=wall,
        memory_bytes=4 << 30,
        files=256,
        output_bytes=64 << 20,
        reply_bytes=256 << 20,
    )
    try:
        header = {"tests": list(names), "test_seconds": test_seconds}
        (run,) = suite.tester.run([Program("suite_trace", header, limits=limits)])
    except SandboxError:
        return {}, names[0], False
    ended: dict[str, dict[str, Any]] = {}
    open_test = names[0]
    for message in run.messages():
        if "begin" in message:
            open_test = message["begin"]
        elif "end" in message:
            ended[message["end"]] = {key: message.get(key) for key in ("outcome", "detail", "seconds", "places")}
            open_test = ""
    seconds = run.wall_seconds - sum(result["seconds"] for result in ended.values())
    return ended, open_test, run.stop == "timeout" or (run.code == 1 and seconds >= test_seconds)
