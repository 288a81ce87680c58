"""Builder `commit_tasks`: make repair tasks from the history of Python repositories, and from bugs put into functions.

A task is a repository before a change, a text that says what is wrong, and tests that fail before the change and pass
after it. These steps are done for each commit that changes code and tests, as in SWE-bench (arXiv 2310.06770):

1. Make a snapshot of the commit's parent with the tests of the commit, and a snapshot of the commit.
2. Run the changed tests, and the tests that call functions of the changed files, in both snapshots, three times each.
3. Keep the commit if at least one test always fails before and always passes after. Drop tests that are not stable.
4. Split both kinds of tests into visible and hidden tests.
5. Grade the commit's change and an empty change three times each: the first must pass, the second must fail.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from alignment.grading import Grader, Verdict
from alignment.grading.patched_repository import ProtectedFile, restricted_words
from alignment.grading.patches import PatchError
from alignment.logs import get_logger
from alignment.sandbox.slot import SandboxUnavailable
from alignment.settings import Reference
from data_builders.builder import BuildContext
from data_builders.cleaning.filters import FilterSettings
from data_builders.cleaning.licenses import LicensePolicy, license_of
from data_builders.commit_messages import names_of
from data_builders.models.writers import TextModel, open_model
from data_builders.repositories import history
from data_builders.repositories.history import Commit
from data_builders.repositories.sources import Repository, Sources, cloned, iterate_files
from data_builders.shared_settings import Decontaminated
from data_builders.storage.dataset import sorted_counts, write_card
from data_builders.tasks.build_tasks import SuiteSettings, suite_card, uncontaminated, write_rows
from data_builders.tasks.history.bug_changes import BugLimits
from data_builders.tasks.history.issue_texts import PullRequestTexts, bug_issue, commit_issue, written_issues
from data_builders.tasks.history.repair_candidates import CandidateFinder, RepairLimits
from data_builders.tasks.history.repair_rows import RepairCandidate, TestParts, repair_row
from data_builders.tasks.task_rows import without_secrets
from data_builders.tasks.validation import REPEATS

logger = get_logger(__name__)
TaskOrigin = Literal["commits", "bugs"]


class CommitTaskSettings(Decontaminated):
    """Settings of the builder `commit_tasks`."""

    sources: Sources
    """Python repositories with pytest suites. A source with `before` or `held_out` is split by time: commits after the
    split become rows of `heldout.jsonl`."""
    kinds: list[TaskOrigin] = Field(default=["commits"], min_length=1)
    """What the tasks are made of. `commits`: commits that change code and tests. `bugs`: bugs put into functions of the
    newest commit (of the last commit before the split, if the source is split by time)."""
    tests: SuiteSettings = SuiteSettings()
    """Settings for running the tests."""
    limits: RepairLimits = RepairLimits()
    """Conditions on commits and their tests."""
    bugs: BugLimits = BugLimits()
    """Settings of tasks of the kind `bugs`."""
    pull_requests: list[Reference] = Field(default_factory=list)
    """Exported pull requests, see the builder `pull_requests`. The description of the pull request that a commit merges
    is used in place of the commit's message."""
    writer: TextModel | None = None
    """Model that writes the issue of a commit whose message does not say what to change. Without a writer, such commits
    are left out."""
    licenses: LicensePolicy = LicensePolicy()
    """Rules that decide by license which repositories are read."""

    @model_validator(mode="after")
    def _check_hidden(self) -> Self:
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError("`kinds` names a kind twice")
        return self


def build_commit_tasks(settings: CommitTaskSettings, context: BuildContext) -> dict[str, Any]:
    """Build repair tasks from commits and from bugs. The tests of the repository grade the patched repository.

    Raises:
        ValueError: a source is wrong, or nothing became a task. The message lists the reasons.
    """
    rows: list[dict[str, Any]] = []
    report: dict[str, Any] = {}
    names: list[str] = []
    with cloned(settings.sources, context) as repositories:
        for repository in repositories:
            if not repository.is_git:
                raise ValueError(f"{repository.path} is a plain folder: commit tasks need a git repository")
            names.append(f"{repository.name} {repository.commit}")
            builder = _RepositoryBuilder(repository, settings, context)
            try:
                rows += builder.rows()
            except SandboxUnavailable as error:
                raise ValueError(f"tasks need the sandbox: {error}") from None
            report[repository.name] = builder.report()
            logger.info("%s: %s", repository.name, _summary_line(report[repository.name]))
    files = {f"{name}.jsonl": [row for row in rows if row["split"] == part] for name, part in PARTS.items()}
    for file, part_rows in files.items():
        write_rows(context.out / file, part_rows)
    (context.out / "account.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    if not rows:
        reasons = "; ".join(f"{name}: {_summary_line(counts)}" for name, counts in report.items())
        raise ValueError(f"no commit became a task: {reasons}")
    used = settings.model_dump(
        mode="json", exclude={"sources", "tests", "writer", "decontaminate", "pull_requests"}
    ) | {"tests": suite_card(settings.tests), "decontaminate": settings.benchmark_names(), "seed": context.seed,
         "pull_requests": [path.path().name for path in settings.pull_requests], "writer": settings.writer is not None}  # fmt: skip
    removed = Counter[str]()
    for counts in report.values():
        removed.update(counts["dropped"])
    summary = {**{name: len(part_rows) for name, part_rows in files.items()}, "removed": sorted_counts(removed),
               "repositories": report}  # fmt: skip
    write_card(
        context.out, "Repair tasks", {name: len(part_rows) for name, part_rows in files.items()}, names, used, summary
    )
    return summary


PARTS = {"tasks": "train", "heldout": "heldout"}
"""Value of the column `split` in each file."""


def _summary_line(counts: dict[str, Any]) -> str:
    dropped = ", ".join(f"{reason} {count}" for reason, count in counts["dropped"].items())
    return f"{counts['commits']} commits, {counts['tasks']} tasks; dropped: {dropped or 'none'}"


@dataclass(frozen=True)
class _Draft:
    """A candidate with the text of its issue."""

    candidate: RepairCandidate
    text: str


class _RepositoryBuilder:
    """Makes the rows of one repository."""

    def __init__(self, repository: Repository, settings: CommitTaskSettings, context: BuildContext) -> None:
        self.repository = repository
        self.settings = settings
        self.context = context
        self.finder = CandidateFinder(repository, settings.tests, settings.limits, context.sandbox.allow_weaker)
        self.dropped = self.finder.counts.dropped
        self.license = license_of(
            repository, iterate_files(repository, FilterSettings().max_bytes, top=True), settings.licenses
        )
        self.tasks: Counter[str] = Counter()
        self.redacted = 0

    def report(self) -> dict[str, Any]:
        """Return the counts of the repository."""
        counts = asdict(self.finder.counts)
        return counts | {
            "dropped": sorted_counts(+self.dropped), "tasks": self.tasks.total(), "by_split_and_kind": sorted_counts(self.tasks),
            "redacted": self.redacted, "license": self.license,
        }  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of all valid tasks."""
        if not self.settings.licenses.permits(self.license):
            self.dropped["license"] += 1
            return []
        drafts: list[_Draft] = []
        if "commits" in self.settings.kinds:
            for part in ("train", "heldout") if self.repository.head else ("train",):
                drafts += self._commit_drafts(part)
        if "bugs" in self.settings.kinds:
            drafts += self._bug_drafts()
        rows = [self._row(draft) for draft in drafts]
        clean, self.redacted = without_secrets((row for row in rows if row is not None), self.dropped)
        clean = uncontaminated(clean, self.settings.decontaminator(), self.dropped)
        valid = self._valid(clean)
        self.tasks.update(f"{row['split']} {row['origin']}" for row in valid)
        return valid

    def _commit_drafts(self, part: str) -> list[_Draft]:
        repository, settings = self.repository, self.settings
        names = names_of(history.author_names(repository.path, repository.head or repository.commit))
        texts = PullRequestTexts(path.path() for path in settings.pull_requests)
        drafts: list[_Draft] = []
        unexplained: list[tuple[RepairCandidate, Commit, str]] = []

        def usable(commit: Commit) -> str:
            reason = commit_issue(commit, texts, names)[1]
            return "" if settings.writer is not None and reason != "merge_bump_or_revert" else reason

        for candidate, commit in self.finder.from_commits(part, usable):
            text, reason = commit_issue(commit, texts, names)
            if text:
                drafts.append(_Draft(candidate, text))
            else:
                unexplained.append((candidate, commit, reason))
            if len(drafts) + len(unexplained) >= settings.limits.max_tasks:
                break
        if settings.writer is not None and unexplained:
            requests = [(repository.name, commit.message, candidate.patch) for candidate, commit, _ in unexplained]
            written = written_issues(
                open_model(settings.writer), requests, settings.writer.temperature, self.context.seed
            )
            for (candidate, _, _), (text, reason) in zip(unexplained, written, strict=True):
                if text:
                    drafts.append(_Draft(candidate, text))
                else:
                    self.dropped[reason] += 1
        return drafts

    def _bug_drafts(self) -> list[_Draft]:
        limits = self.settings.limits
        drafts = []
        for candidate in self.finder.from_bugs(self.settings.bugs, self.context.seed):
            shown = TestParts.of(candidate, limits.hidden_share, limits.max_tests).visible_failing
            if shown:
                details = candidate.comparison.details
                drafts.append(_Draft(candidate, bug_issue({name: details[name] for name in shown})))
            else:
                self.dropped["bug: no_visible_test_fails"] += 1
        return drafts

    def _row(self, draft: _Draft) -> dict[str, Any] | None:
        """Return the row of a draft, or None if a patch may not change the files of the reference."""
        limits, candidate = self.settings.limits, draft.candidate
        parts = TestParts.of(candidate, limits.hidden_share, limits.max_tests)
        try:
            words = restricted_words(candidate.suite.snapshot, candidate.patch)
        except (PatchError, ProtectedFile) as error:
            logger.info("%s: left out: %s", candidate.id, error)
            self.dropped["reference_refused"] += 1
            return None
        return repair_row(candidate, draft.text, parts, words) | {"license": self.license}

    def _valid(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows whose reference passes in all of `REPEATS` gradings, and whose empty patch always fails."""
        jobs = [(row, patch) for row in rows for patch in (row["reference"], "") for _ in range(REPEATS)]
        sandbox = self.context.sandbox
        with Grader(self.context.workers, sandbox.limits(), allow_weaker=sandbox.allow_weaker) as grader:
            verdicts = iter(grader.grade_many(jobs))
        valid = []
        for row in rows:
            reference, empty = ([next(verdicts) for _ in range(REPEATS)] for _ in range(2))
            reason = _invalid(reference, empty)
            if reason:
                self.dropped[reason] += 1
                worst = next((verdict for verdict in (*reference, *empty) if verdict.status != "passed"), reference[0])
                logger.info("%s: left out: %s: %s: %s", row["id"], reason, worst.reason, worst.detail)
            else:
                valid.append(row)
        return valid


def _invalid(reference: Sequence[Verdict], empty: Sequence[Verdict]) -> str:
    """Return why a task is not valid, or ""."""
    if any(verdict.status == "error" for verdict in (*reference, *empty)):
        return "not_graded"
    if any(verdict.status != "passed" for verdict in reference):
        return "reference_fails"
    return "passes_without_a_change" if any(verdict.status == "passed" for verdict in empty) else ""
