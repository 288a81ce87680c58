"""What stands in the way of tasks from a repository's tests, in a user's words, and what would help."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterable

from data_builders.cleaning.secrets import redact
from data_builders.tasks.python.python_coverage import CoverageMap
from data_builders.tasks.python.python_suite import PreparedSuite

BUILD = " (a build step may be missing: build or install the repository into the environment that `tests.interpreter` names)"


def redacted_lines(lines: Iterable[str]) -> list[str]:
    """Lines as an account may say them: what a test printed when it failed can hold a password."""
    return [redact(line).text for line in lines]


def advice(prepared: PreparedSuite, coverage: CoverageMap) -> list[str]:
    """What stands in the way, in a user's words, and what would help."""
    data, outcomes = prepared.snapshot.data, Counter(coverage.outcomes.values())
    own = {posixpath.basename(posixpath.dirname(path)) for path in prepared.texts if path.endswith("/__init__.py")}
    said = []
    for problem in data["problems"][:5]:
        said.append(f"{problem['where']}: {problem['why']}{_hint(problem['why'], own)}")
    if not data["tests"]:
        said.append(
            "no tests were collected: name their folders with `tests.paths`, or leave this repository to the corpus"
        )
    if data["threads"]:
        said.append(f"importing it starts threads ({', '.join(data['threads'][:3])}): its programs may hang")
    missing = sorted(key.partition(": ")[2] for key in outcomes if key.startswith("needs_package"))
    if foreign := [name for name in missing if name.partition(".")[0] not in own]:
        said.append(
            f"tests need packages that the environment lacks: {', '.join(foreign)}; name one that has them with `tests.interpreter`"
        )
    if unbuilt := [name for name in missing if name.partition(".")[0] in own]:
        said.append(f"tests need modules of the repository that are not there: {', '.join(unbuilt)}{BUILD}")
    if fixtures := sorted(key.partition(": ")[2] for key in outcomes if key.startswith("needs_fixture")):
        said.append(
            f"tests need fixtures that nothing here gives: {', '.join(fixtures)} (install the plugin of pytest that has them "
            "into the environment that `tests.interpreter` names)"
        )
    for key, text in (
        ("failed", "tests fail as the repository is"),
        ("needs_async_plugin", "tests are coroutines: install pytest-asyncio or anyio into the environment that `tests.interpreter` names"),
        ("needs_network_or_database", "tests need the network or a database: there is none in the sandbox"),
        ("slow", "tests are too slow to grade by"), ("ends_the_process_or_hangs", "tests end their process or hang"),
        ("over_budget", "tests were not reached within `tests.budget_seconds`"),
        ("writes_into_the_repository", "tests write into the repository, which is read-only here"),
    ):  # fmt: skip
        if outcomes[key]:
            said.append(f"{outcomes[key]} {text}")
    return redacted_lines(said)


def _hint(why: str, own: Collection[str]) -> str:
    """What would help; `own` are the names of the repository's packages."""
    missing = re.search(r"No module named ['\"]?(\w+)", why)
    if missing and missing.group(1) not in own:
        return " (install it into the environment that `tests.interpreter` names)"
    if missing or "version" in why.lower() or "undefined symbol" in why or "cannot import name" in why:
        return BUILD
    return ""
