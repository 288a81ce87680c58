"""Advice for users: why a repository's tests give few or no tasks, and how to change that."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Collection

from data_builders.tasks.python.python_coverage import CoverageMap
from data_builders.tasks.python.python_suite import PreparedSuite
from data_builders.tasks.task_rows import redacted_lines

BUILD_HINT = " (a build step may be missing: build or install the repository into the environment that `tests.interpreter` names)"
REASONS = (
    ("failed", "tests fail in the repository as it is"),
    ("needs_async_plugin", "tests are coroutines: install pytest-asyncio or anyio into the environment that `tests.interpreter` names"),
    ("needs_network_or_database", "tests need the network or a database: the sandbox has neither"),
    ("slow", "tests are too slow for grading"), ("ends_the_process", "tests end their process"),
    ("hangs", "tests take longer than `tests.seconds_per_test`"),
    ("over_budget", "tests were not reached within `tests.budget_seconds`"),
    ("writes_into_the_repository", "tests write into the repository, which is read-only in the sandbox"),
)  # fmt: skip
"""Pairs (outcome of a test in `CoverageMap.outcomes`, explanation). A line of advice consists of the number of tests
with this outcome and the explanation."""


def advice(prepared: PreparedSuite, coverage: CoverageMap) -> list[str]:
    """Explain why a pytest suite gives few or no tasks: one line per reason, usually with a remedy."""
    data, outcomes = prepared.snapshot.data, Counter(coverage.outcomes.values())
    packages = {posixpath.basename(posixpath.dirname(path)) for path in prepared.texts if path.endswith("/__init__.py")}
    lines = [
        f"{problem['where']}: {problem['why']}{_hint(problem['why'], packages)}" for problem in data["problems"][:5]
    ]
    if not data["tests"]:
        lines.append(
            "no tests were collected: name their folders with `tests.paths`, or use this repository for the corpus only"
        )
    if data["threads"]:
        lines.append(f"importing the code starts threads ({', '.join(data['threads'][:3])}): graded programs may hang")
    missing = sorted(key.partition(": ")[2] for key in outcomes if key.startswith("needs_package"))
    if foreign := [name for name in missing if name.partition(".")[0] not in packages]:
        lines.append(
            f"tests need packages that are not installed: {', '.join(foreign)}; install them, or name an "
            "interpreter that has them with `tests.interpreter`"
        )
    if unbuilt := [name for name in missing if name.partition(".")[0] in packages]:
        lines.append(f"tests need modules of the repository that do not exist: {', '.join(unbuilt)}{BUILD_HINT}")
    if fixtures := sorted(key.partition(": ")[2] for key in outcomes if key.startswith("needs_fixture")):
        lines.append(
            f"tests need fixtures that do not exist: {', '.join(fixtures)} (install the pytest plugin that defines them "
            "into the environment that `tests.interpreter` names)"
        )
    lines += [f"{outcomes[key]} {text}" for key, text in REASONS if outcomes[key]]
    return redacted_lines(lines)


def _hint(error: str, packages: Collection[str]) -> str:
    """Return a remedy for an error that pytest reports while collecting tests, or "".

    `packages` are the packages that the repository itself defines.
    """
    missing = re.search(r"No module named ['\"]?(\w+)", error)
    if missing and missing.group(1) not in packages:
        return " (install it into the environment that `tests.interpreter` names)"
    if missing or "version" in error.lower() or "undefined symbol" in error or "cannot import name" in error:
        return BUILD_HINT
    return ""
