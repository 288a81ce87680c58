"""Run a pytest suite once in the sandbox, and trace which tests call which functions.

Only calls are traced, not executed lines. A few lines with `sys.settrace` inside the sandbox are enough for this.
Nothing has to be installed into the user's environment.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignment.grading.repository import Suite
from alignment.sandbox.limits import Limits
from alignment.sandbox.program_run import Program
from alignment.sandbox.slot import SandboxError
from data_builders.parsing.python_functions import Function
from data_builders.tasks.python.python_suite import PreparedSuite

BATCH = 25
"""Number of tests that one program in the sandbox runs."""
TEST_SECONDS = 20.0
"""Maximum wall time of one test with the tracer, in seconds."""
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


def coverage_map(prepared: PreparedSuite, *, budget_seconds: float = 600.0, allow_weaker: bool = False) -> CoverageMap:
    """Run a suite once with the tracer of calls. The result is stored with the snapshot and reused.

    Args:
        prepared: the suite.
        budget_seconds: maximum wall time of the run. Tests that have not run by then are counted as `over_budget`.
        allow_weaker: whether a weaker sandbox is allowed, see `SandboxSettings.allow_weaker`.
    """
    stored_map = prepared.snapshot.folder / f"map-{int(budget_seconds)}.json"
    if not stored_map.is_file():
        results, seconds = _run(prepared, budget_seconds, allow_weaker)
        stored_map.write_text(json.dumps({"results": results, "seconds": seconds}), encoding="utf-8")
    stored = json.loads(stored_map.read_text(encoding="utf-8"))
    covering: dict[tuple[str, int], list[str]] = {}
    outcomes: dict[str, str] = {}
    for name in prepared.tests:
        result = stored["results"].get(name, {"outcome": "over_budget"})
        outcomes[name] = _outcome(result)
        if outcomes[name] == "passed":
            for file, line in result["places"]:
                covering.setdefault((file, line), []).append(name)
    return CoverageMap(covering, outcomes, stored["seconds"])


def _outcome(result: dict[str, Any]) -> str:
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


def _run(prepared: PreparedSuite, budget_seconds: float, allow_weaker: bool) -> tuple[dict[str, dict[str, Any]], float]:
    """Run the tests in batches. Return the results, keyed by test, and the wall time."""
    results: dict[str, dict[str, Any]] = {}
    began = time.monotonic()
    suite = Suite(prepared.snapshot, allow_weaker)
    try:
        waiting = list(prepared.tests)
        size = BATCH
        while waiting and time.monotonic() - began < budget_seconds:
            batch = waiting[:size]
            left = budget_seconds - (time.monotonic() - began)
            wall = min(TEST_SECONDS if size == 1 else 3 * TEST_SECONDS, max(left, 1.0))
            ended, broken = _run_batch(suite, batch, wall)
            results.update(ended)
            if broken and broken not in ended:
                if size > 1:  # run this test again alone: earlier tests may have used up the time of the batch
                    waiting = waiting[waiting.index(broken) :]
                    size = 1
                    continue
                results[broken] = {"outcome": "ends_the_process_or_hangs"}
            waiting = [name for name in waiting if name not in results]
            size = BATCH
    finally:
        suite.close()
    return results, round(time.monotonic() - began, 1)


def _run_batch(suite: Suite, names: Sequence[str], wall: float) -> tuple[dict[str, dict[str, Any]], str]:
    """Run tests in one program. Return the results, keyed by test, and the test that ended the program (or "")."""
    limits = Limits(
        cpu_seconds=wall,
        wall_seconds=wall,
        memory_bytes=4 << 30,
        files=256,
        output_bytes=64 << 20,
        reply_bytes=256 << 20,
    )
    try:
        (run,) = suite.tester.run([Program("suite_trace", {"tests": list(names)}, limits=limits)])
    except SandboxError:
        return {}, names[0]
    ended: dict[str, dict[str, Any]] = {}
    open_test = names[0]
    for message in run.messages():
        if "begin" in message:
            open_test = message["begin"]
        elif "end" in message:
            ended[message["end"]] = {key: message.get(key) for key in ("outcome", "detail", "seconds", "places")}
            open_test = ""
    return ended, open_test
