"""Find changes of one Python repository that tests can grade: commits of its history, and bugs put into functions."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from alignment.grading.repository import store
from alignment.logs import get_logger
from alignment.progress import Progress
from alignment.settings import Positive, Settings, Share
from data_builders.commits import is_bot
from data_builders.repositories import git, history
from data_builders.repositories.history import Commit
from data_builders.repositories.sources import Repository, list_files
from data_builders.tasks.build_tasks import SuiteSettings
from data_builders.tasks.history.bug_changes import BugChange, BugLimits, bug_changes
from data_builders.tasks.history.commit_changes import CommitChange, read_change
from data_builders.tasks.history.outcome_comparison import OutcomeComparison, RunLimits, compare
from data_builders.tasks.history.repair_rows import RepairCandidate
from data_builders.tasks.history.source_patches import changed_lines
from data_builders.tasks.python.python_coverage import CoverageMap, coverage_map
from data_builders.tasks.python.python_suite import MAX_FILE, PreparedSuite, prepare_suite
from data_builders.tasks.task_rows import contains_secret

logger = get_logger(__name__)


class RepairLimits(Settings):
    """Conditions that a commit must meet to become a task."""

    max_commits: Positive = 200
    """Maximum number of commits to read per repository, the newest first. Held-out commits are counted separately."""
    max_tasks: Positive = 100
    """Maximum number of tasks per repository. Held-out tasks are counted separately."""
    max_files: Positive = 8
    """Maximum number of changed files besides tests and documentation."""
    max_changed_lines: Positive = 300
    """Maximum number of lines that the commit adds and removes in these files."""
    pass_to_pass: Literal["touched", "covering"] = "covering"
    """Files whose tests are run, and must pass before and after the change. `touched`: test files that the commit changes.
    `covering`: also test files that call functions of the changed files. For this, the suite of the newest commit is run
    once, within `tests.budget_seconds`."""
    max_tests: Positive = 100
    """Maximum number of tests of a task that fail before the change, and of tests that pass before and after it. If there
    are more, tests are drawn at random."""
    hidden_share: Share = 0.5
    """Share of the tests that the model can't see and run. At least one test that fails before the change is hidden."""


@dataclass
class RepairCounts:
    """Counts of one repository for the build report."""

    commits: int = 0
    """Number of commits that were read."""
    compared: int = 0
    """Number of changes whose tests were run."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Number of commits and bugs that became no task, keyed by reason."""
    flaky_tests: int = 0
    fail_to_pass: int = 0
    pass_to_pass: int = 0


class CandidateFinder:
    """Makes candidates from one repository.

    Args:
        repository: the repository. If it is split by time, commits after the split are held out.
        tests: settings for running the tests.
        limits: conditions on commits.
        allow_weaker: whether a weaker sandbox is allowed, see `SandboxSettings.allow_weaker`.
    """

    def __init__(
        self, repository: Repository, tests: SuiteSettings, limits: RepairLimits, allow_weaker: bool = False
    ) -> None:
        self.repository = repository
        self.tests = tests
        self.limits = limits
        self.allow_weaker = allow_weaker
        self.counts = RepairCounts()
        self.run_limits = RunLimits(tests.budget_seconds, tests.seconds_per_test, allow_weaker)
        self._made: set[str] = set()

    def commits(self, part: str) -> list[str]:
        """Return the ids of the newest commits with one parent, of the part `train` or `heldout`, newest first."""
        repository = self.repository
        known = [name for batch in history.commit_batches(repository.path, repository.commit) for name in batch]
        if part == "heldout":
            newest = history.commit_batches(repository.path, repository.head) if repository.head else ()
            known = [name for batch in newest for name in batch if name not in set(known)]
        return known[::-1][: self.limits.max_commits]

    def from_commits(self, part: str, drop: Callable[[Commit], str]) -> Iterator[tuple[RepairCandidate, Commit]]:
        """Yield the candidates that the commits of a part give, with their commits, newest first.

        Args:
            part: `train` or `heldout`.
            drop: returns the reason why a commit that changes code and tests is left out before its tests run, or "".
        """
        identifiers = self.commits(part)
        progress = Progress(f"{self.repository.name}: commits ({part})", len(identifiers), "commits")
        with git.BlobReader(self.repository.path) as reader:
            # All commits are read first, because the reader can't read files while it reads commits.
            for commit in list(history.read_commits(self.repository.path, identifiers, reader)):
                self.counts.commits += 1
                candidate = self._candidate(commit, reader, part, drop)
                progress.advance()
                if isinstance(candidate, str):
                    self.counts.dropped[candidate] += 1
                else:
                    yield candidate, commit
        progress.finish()

    def _candidate(
        self, commit: Commit, reader: git.BlobReader, part: str, drop: Callable[[Commit], str]
    ) -> RepairCandidate | str:
        if is_bot(commit.author):
            return "bot"
        change = read_change(commit, reader)
        if isinstance(change, str):
            return change
        if reason := drop(commit):
            return reason
        if len(change.code) > self.limits.max_files:
            return "many_files"
        patch = change.patch()
        if patch is None:
            return "not_plain_text"
        if changed_lines(patch) > self.limits.max_changed_lines:
            return "large_change"
        name = f"{self.repository.name}@{commit.id[:12]}"
        return self._compared_commit(change, RepairCandidateHead(name, "commits", patch, name, part))

    def _compared_commit(self, change: CommitChange, head: RepairCandidateHead) -> RepairCandidate | str:
        after_commit = replace(self.repository, commit=change.id)
        before_commit = replace(self.repository, commit=git.resolve_commit(self.repository.path, f"{change.id}^"))
        files = self._test_files(change, {file.path for file in list_files(after_commit, MAX_FILE)})
        if not files:
            return "no_tests_changed"
        with self.temporary_snapshots() as kept:
            try:
                after = self.suite(after_commit, files)
                before = self.suite(before_commit, files, change.tests)
            except ValueError as error:
                logger.warning("%s: %s", head.id, error)
                return "not_prepared"
            candidate = self._compared(head, before, after, after.tests)
            if isinstance(candidate, RepairCandidate):
                kept.add(before.id)
            return candidate

    def _compared(
        self, head: RepairCandidateHead, before: PreparedSuite, after: PreparedSuite, names: list[str]
    ) -> RepairCandidate | str:
        """Return the candidate of a change if at least one test always fails before and always passes after it."""
        names = [name for name in names if not contains_secret(name)]
        if not names:
            return "no_tests_collected"
        self.counts.compared += 1
        comparison = compare(before, after, names, self.run_limits)
        self.counts.flaky_tests += len(comparison.flaky)
        if not comparison.fail_to_pass:
            if comparison.flaky:
                return "only_flaky_tests_fail_before"
            return "no_test_fails_before" if comparison.pass_to_pass else "no_tests_pass_after"
        self.counts.fail_to_pass += len(comparison.fail_to_pass)
        self.counts.pass_to_pass += len(comparison.pass_to_pass)
        return head.candidate(before, comparison)

    def _test_files(self, change: CommitChange, present: set[str]) -> list[str]:
        """Return the test files to run for a commit, without files that the user's `tests.paths` exclude."""
        files = set(change.test_files)
        if self.limits.pass_to_pass == "covering":
            files |= {test for path in change.sources for test in self._covering_files.get(path, ())}
        paths = [path.rstrip("/") for path in self.tests.paths]
        allowed = [
            file for file in files & present if not paths or any(f"{file}/".startswith(f"{path}/") for path in paths)
        ]
        return sorted(file for file in allowed if not file.endswith("conftest.py"))

    @cached_property
    def newest(self) -> tuple[PreparedSuite, CoverageMap]:
        """The suite of the newest commit before the split, and the functions that its tests call."""
        prepared = self.suite(self.repository, self.tests.paths)
        coverage = coverage_map(
            prepared, budget_seconds=self.tests.budget_seconds, test_seconds=self.tests.seconds_per_test,
            allow_weaker=self.allow_weaker,
        )  # fmt: skip
        return prepared, coverage

    @cached_property
    def _covering_files(self) -> Mapping[str, set[str]]:
        """The test files that call functions of each file, in the newest commit."""
        prepared, coverage = self.newest
        file_of = {name: file for name, file in prepared.snapshot.data["tests"]}
        files: dict[str, set[str]] = defaultdict(set)
        for (path, _), names in coverage.covering.items():
            files[path].update(file_of[name] for name in names)
        return files

    def suite(
        self, repository: Repository, paths: Iterable[str], changes: Mapping[str, bytes | None] | None = None
    ) -> PreparedSuite:
        """Make the snapshot of a commit of the repository, see `prepare_suite`."""
        named = self.tests.interpreter
        prepared = prepare_suite(
            repository,
            interpreter=repository.interpreter or (named.absolute() if named is not None else None),
            tests=list(paths),
            environment=self.tests.environment,
            prepare=self.tests.prepare,
            allow_weaker=self.allow_weaker,
            changes=changes,
        )
        self._made.add(prepared.id)
        return prepared

    def from_bugs(self, limits: BugLimits, seed: int) -> Iterator[RepairCandidate]:
        """Yield candidates of bugs in the newest commit before the split, at most `limits.max_tasks`."""
        prepared, coverage = self.newest
        made = 0
        for number, change in enumerate(bug_changes(prepared, coverage, limits, seed)):
            candidate = self._compared_bug(prepared, coverage, change, number)
            if isinstance(candidate, str):
                self.counts.dropped[f"bug: {candidate}"] += 1
                continue
            yield candidate
            made += 1
            if made == limits.max_tasks:
                return

    def _compared_bug(
        self, prepared: PreparedSuite, coverage: CoverageMap, change: BugChange, number: int
    ) -> RepairCandidate | str:
        called = {name for function in change.functions for name in coverage.tests_calling(function)}
        names = [name for name in prepared.tests if name in called]
        file_of = {name: file for name, file in prepared.snapshot.data["tests"]}
        source = f"{self.repository.name}@{self.repository.commit[:12]}"
        head = RepairCandidateHead(f"{source}/bug-{number}", "bugs", change.patch, source, "train")
        with self.temporary_snapshots() as kept:
            changes: dict[str, bytes | None] = {path: text.encode() for path, text in change.texts.items()}
            before = self.suite(self.repository, sorted({file_of[name] for name in names}), changes)
            candidate = self._compared(head, before, prepared, names)
            if isinstance(candidate, RepairCandidate):
                kept.add(before.id)
            return candidate

    @contextmanager
    def temporary_snapshots(self) -> Iterator[set[str]]:
        """Remove the snapshots that are made in the `with` block, except those whose ids are added to the yielded set."""
        known = {path.name for path in store().iterdir()}
        kept: set[str] = set()
        self._made.clear()
        try:
            yield kept
        finally:
            for name in self._made - known - kept:
                shutil.rmtree(store() / name, ignore_errors=True)


@dataclass(frozen=True)
class RepairCandidateHead:
    """What is known of a candidate before its tests have run. For the fields, see `RepairCandidate`."""

    id: str
    kind: str
    patch: str
    source: str
    part: str

    def candidate(self, suite: PreparedSuite, comparison: OutcomeComparison) -> RepairCandidate:
        """Return the candidate."""
        return RepairCandidate(self.id, self.kind, suite, self.patch, comparison, self.source, self.part)
