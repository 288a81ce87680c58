"""Put bugs into functions of a repository, several at once if wished, in the style of SWE-smith (arXiv 2504.21798)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alignment.settings import Positive, Settings
from data_builders.instructions.source_bugs import Bug, bugs
from data_builders.parsing.python_functions import Function
from data_builders.tasks.history.source_patches import unified_patch
from data_builders.tasks.python.python_coverage import CoverageMap
from data_builders.tasks.python.python_suite import PreparedSuite


class BugLimits(Settings):
    """Settings of tasks that are made by putting bugs into functions."""

    max_tasks: Positive = 20
    """Maximum number of tasks per repository. Each task has a snapshot of the repository on disk."""
    bugs_per_task: Positive = 1
    """Number of bugs that one task has, each in another function."""
    min_tests: Positive = 2
    """Minimum number of tests that call a function with a bug."""


@dataclass(frozen=True)
class BugChange:
    """A repository with bugs."""

    functions: list[Function]
    """The functions that have a bug."""
    texts: dict[str, str]
    """Texts of the files with bugs, keyed by path."""
    patch: str
    """The patch that removes the bugs."""


def bug_changes(prepared: PreparedSuite, coverage: CoverageMap, limits: BugLimits, seed: int) -> Iterator[BugChange]:
    """Yield repositories with bugs in tested functions, in random order.

    Args:
        prepared: the repository without bugs.
        coverage: the tests that call each function.
        limits: number of bugs, and conditions on the functions.
        seed: seed for drawing functions and bugs.
    """
    tested = [item for item in prepared.functions if len(coverage.tests_calling(item)) >= limits.min_tests]
    random.Random(f"{seed}:bugs:{prepared.snapshot.data['name']}").shuffle(tested)
    chosen: list[tuple[Function, Bug]] = []
    for function in tested:
        drawn = bugs(prepared.texts[function.file], function, 1, seed)
        chosen += [(function, bug) for bug in drawn]
        if len(chosen) == limits.bugs_per_task:
            yield _change(prepared, chosen)
            chosen = []


def _change(prepared: PreparedSuite, chosen: Sequence[tuple[Function, Bug]]) -> BugChange:
    texts: dict[str, str] = {}
    # The last bug of a file comes first, so that the offsets of the other bugs stay right.
    for function, bug in sorted(chosen, key=lambda pair: pair[1].start, reverse=True):
        texts[function.file] = bug.broken_text(texts.get(function.file, prepared.texts[function.file]))
    originals = {path: prepared.texts[path] for path in texts}
    return BugChange([function for function, _ in chosen], texts, unified_patch(texts, originals))
