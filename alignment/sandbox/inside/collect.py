"""Collects the tests of a repository with pytest, in the launcher. A plugin prevents pytest from running the tests."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import io
import os
import re
import sys
from collections.abc import Callable
from typing import Any

ARGUMENTS = (
    "-q", "--capture=no", "--tb=native", "--continue-on-collection-errors",
    # A setting for a plugin that is not installed must not stop the tests that need no plugin.
    "-o", "addopts=", "-o", "required_plugins=", "-o", "strict_config=false", "-o", "strict_markers=false",
    "-W", "ignore::pytest.PytestConfigWarning", "-W", "ignore::pytest.PytestUnknownMarkWarning",
    *(part for name in ("cacheprovider", "faulthandler", "xdist", "cov", "randomly", "random_order", "benchmark",
                        "junitxml", "threadexception", "unraisableexception")
      for part in ("-p", f"no:{name}")),
)  # fmt: skip


def run(warm: Any, arguments: list[str], ready: Callable[[], None]) -> None:
    """Collect the tests of a repository.

    Args:
        warm: The `suite.Warm` in which the collected tests, the pytest plugin and collection errors are stored.
        arguments: Additional arguments of pytest.
        ready: Called once, when the tests are collected or pytest has ended early.
    """
    import pytest

    stderr, output = sys.stderr, io.StringIO()

    class Plugin:
        """A pytest plugin that replaces the loop in which pytest would run the tests."""

        def __init__(self) -> None:
            self.reports: list[Any] = []

        @pytest.hookimpl(tryfirst=True)
        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                lines = str(report.longrepr).strip().splitlines()
                reason = lines[-1].removeprefix("E ").strip()[:300] if lines else "collection failed"
                warm.problems.append({"where": report.nodeid, "why": reason})

        @pytest.hookimpl(hookwrapper=True)
        def pytest_make_collect_report(self, collector: Any) -> Any:
            """If the import of a module raises SystemExit, report a failure of that module instead of ending pytest."""
            outcome = yield
            if outcome.excinfo is not None and issubclass(outcome.excinfo[0], SystemExit):
                message = f"SystemExit: {outcome.excinfo[1]}"
                outcome.force_result(pytest.CollectReport(collector.nodeid, "failed", message, []))

        def pytest_runtest_logreport(self, report: Any) -> None:
            self.reports.append(report)

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(self, session: Any) -> bool:
            sys.stderr = stderr
            warm.plugin = self
            warm.items = {item.nodeid: item for item in session.items}
            ready()
            return True

    sys.stderr = output
    try:
        code = int(pytest.main([*ARGUMENTS, f"--rootdir={warm.root}", *arguments], plugins=[Plugin()]))
    except Exception as error:
        if warm.plugin is not None:
            raise
        code = 1
        output.write(f"{type(error).__name__}: {error}")
    finally:
        sys.stderr = stderr
    if warm.plugin is None:  # pytest ended before its loop over the tests
        warm.problems.append(refusal(output.getvalue(), code, warm.root))
        ready()


def load_pytest() -> None:
    """Import pytest and its installed plugins, so that programs find them loaded. Each program saves about half a second."""
    import pytest  # noqa: F401

    for point in importlib.metadata.entry_points(group="pytest11"):
        with contextlib.suppress(Exception):
            point.load()
    gc.collect()


def refusal(output: str, code: int, root: str) -> dict[str, str]:
    """Describe why pytest ended before it ran a test, for example because it could not import a conftest.

    Args:
        output: The text that pytest wrote to stderr.
        code: The exit code of pytest.
        root: The repository's folder.

    Returns:
        A problem: `where` is the conftest, relative to `root`, or "pytest"; `why` is one line of the output.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    raised = [line[2:].strip() for line in lines if line.startswith("E ")]
    errors = [line for line in lines if "error" in line.lower()]
    conftest = re.search(r"while loading conftest '([^']+)'", output)
    reason = raised[-1:] or errors[-1:] or lines[-1:] or [f"ended with code {code} before any test"]
    return {"where": os.path.relpath(conftest.group(1), root) if conftest else "pytest", "why": reason[0][:300]}
