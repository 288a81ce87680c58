"""Start pytest in a launcher: collect the tests, and hand over where pytest would run them."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from typing import Any

ARGUMENTS = (
    "-q", "--capture=no", "--tb=native", "--continue-on-collection-errors",
    # What a plugin that is not here would need must not stop the tests that need no plugin.
    "-o", "addopts=", "-o", "required_plugins=", "-o", "strict_config=false", "-o", "strict_markers=false",
    "-W", "ignore::pytest.PytestConfigWarning", "-W", "ignore::pytest.PytestUnknownMarkWarning",
    *(part for name in ("cacheprovider", "faulthandler", "xdist", "cov", "randomly", "random_order", "benchmark",
                        "junitxml", "threadexception", "unraisableexception")
      for part in ("-p", f"no:{name}")),
)  # fmt: skip


def run(warm: Any, arguments: list[str], ready: Callable[[], None]) -> None:
    """Collect into `warm` (`suite.Warm`) and call `ready`, once, whatever became of it."""
    import pytest

    stderr, said = sys.stderr, io.StringIO()

    class Plugin:
        """Takes the place of pytest's loop over the tests."""

        def __init__(self) -> None:
            self.reports: list[Any] = []

        @pytest.hookimpl(tryfirst=True)
        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                lines = str(report.longrepr).strip().splitlines()
                why = lines[-1].removeprefix("E ").strip()[:300] if lines else "collection failed"
                warm.problems.append({"where": report.nodeid, "why": why})

        @pytest.hookimpl(hookwrapper=True)
        def pytest_make_collect_report(self, collector: Any) -> Any:
            """A module that ends the program when it is imported takes no other's tests with it."""
            outcome = yield
            if outcome.excinfo is not None and issubclass(outcome.excinfo[0], SystemExit):
                ended = f"SystemExit: {outcome.excinfo[1]}"
                outcome.force_result(pytest.CollectReport(collector.nodeid, "failed", ended, []))

        def pytest_runtest_logreport(self, report: Any) -> None:
            self.reports.append(report)

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(self, session: Any) -> bool:
            sys.stderr = stderr
            warm.plugin = self
            warm.items = {item.nodeid: item for item in session.items}
            ready()
            return True

    sys.stderr = said
    try:
        code = int(pytest.main([*ARGUMENTS, f"--rootdir={warm.root}", *arguments], plugins=[Plugin()]))
    except Exception as error:
        if warm.plugin is not None:
            raise
        code = 1
        said.write(f"{type(error).__name__}: {error}")
    finally:
        sys.stderr = stderr
    if warm.plugin is None:  # it ended before its loop over the tests
        warm.problems.append(_refusal(said.getvalue(), code, warm.root))
        ready()


def _refusal(said: str, code: int, root: str) -> dict[str, str]:
    """Why pytest ended before any test, of what it printed: a conftest that can't be imported, a setting."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    raised = [line[2:].strip() for line in lines if line.startswith("E ")]
    named = [line for line in lines if "error" in line.lower()]
    place = re.search(r"while loading conftest '([^']+)'", said)
    why = raised[-1:] or named[-1:] or lines[-1:] or [f"ended with code {code} before any test"]
    return {"where": os.path.relpath(place.group(1), root) if place else "pytest", "why": why[0][:300]}
