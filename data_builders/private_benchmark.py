"""Builder `private_benchmark`: make a benchmark from code that was added to a repository after the training split.

A source with `before` or `held_out` is split by time. Builders of training data read the last commit before the split.
This builder uses code of the head commit that no file of the earlier commit contains, exactly or nearly (see
`data_builders.cleaning.held_out`). Code that was only moved or slightly edited is therefore not used. The report counts
it as `not_new`.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pydantic import model_validator

from alignment.settings import Positive, Settings
from data_builders.builder import BuildContext
from data_builders.cleaning.held_out import HELD_OUT_COLUMN, Bodies
from data_builders.parsing.languages import detect
from data_builders.parsing.syntax_tree import SyntaxTree
from data_builders.repositories import git
from data_builders.repositories.sources import Repository, Sources, cloned, read_texts
from data_builders.storage.dataset import sorted_counts, write_card
from data_builders.tasks.build_tasks import failure_reasons, tasks_by_language, write_rows
from data_builders.tasks.python.python_suite import is_documentation, is_test_file
from data_builders.tasks.python.python_tasks import FIM_AFTER, FIM_BEFORE
from data_builders.tasks.python.task_context import window
from data_builders.tasks.suite_settings import SuiteSettings, suite_card
from data_builders.tasks.task_language import TASK_LANGUAGES
from data_builders.tasks.task_rows import without_secrets
from data_builders.tasks.validation import Maskable, TaskSettings

TEXTS = frozenset({"markdown", "json", "yaml", "restructuredtext", "html", "css", "xml", "csv", "text", ""})
"""Languages that are not code. No benchmark rows are made from their files."""
MIN_LINES, MAX_LINES, PART_LINES = 3, 40, 20
"""A block of added lines is used if it has at least `MIN_LINES` lines. If it has more than `MAX_LINES` lines, it is cut
into parts of `PART_LINES` lines."""
_HUNK = re.compile(rb"^@@ -\S+ \+(\d+)(?:,(\d+))? @@", re.MULTILINE)


class PrivateBenchmarkSettings(Settings):
    """Settings of the builder `private_benchmark`."""

    sources: Sources
    """Git repositories, each with `before` (a date) or `held_out` (a share of the newest commits)."""
    tests: SuiteSettings = SuiteSettings()
    """Settings for running the tests of the repositories."""
    settings: TaskSettings = TaskSettings()
    """Conditions that a new function must meet to become an executable task."""
    executable: bool = True
    """Whether to make executable tasks from tests. If false, the benchmark only measures exact match and similarity."""
    max_pieces: Positive = 300
    """Maximum number of fill-in-the-middle rows per repository. If more are possible, rows are drawn at random."""
    context_characters: Positive = 6000
    """Maximum number of characters of code that the prompt of an executable task shows, see the builder `tasks`."""

    @model_validator(mode="after")
    def _check_split(self) -> Self:
        unsplit = [str(source.path) for source in self.sources if source.before is None and source.held_out is None]
        if unsplit:
            raise ValueError(
                f"source {', '.join(unsplit)} is not split: give it `before` (a date) or `held_out` (a share of its commits)"
            )
        return self


@dataclass(frozen=True)
class NewCode:
    """Code that a benchmark row asks the model to write: the body of a function, or consecutive added lines of a file.

    `line` is the line number of the first line. `start` and `end` are character offsets of the code in the file.
    """

    file: str
    line: int
    name: str
    language: str
    start: int
    end: int


@dataclass
class _Rows:
    """The rows of the benchmark: one list for each output file."""

    fim: list[dict[str, Any]] = field(default_factory=list)
    fim_tasks: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)

    def by_file(self) -> dict[str, list[dict[str, Any]]]:
        return {"fim": self.fim, "fim-tasks": self.fim_tasks, "tasks": self.tasks}


def build_private_benchmark(settings: PrivateBenchmarkSettings, context: BuildContext) -> dict[str, Any]:
    """Write a benchmark of code that was added after the split: fill-in-the-middle rows, and executable tasks.

    Raises:
        ValueError: a source has no commits after the split, or no new code to measure. The message says what to do.
    """
    rows = _Rows()
    report: dict[str, Any] = {}
    with cloned(settings.sources, context) as repositories:
        for repository in repositories:
            if not repository.head:
                raise ValueError(
                    f"{repository.name} is not split: give its source `before` (a date) or `held_out` (a share of its commits)"
                )
            report[repository.name] = _add_repository(repository, rows, settings, context)
    for name, file_rows in rows.by_file().items():
        write_rows(context.out / f"{name}.jsonl", file_rows)
    (context.out / "account.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    if not rows.fim:
        raise ValueError(
            f"nothing in {', '.join(report)} is new since the split: choose an earlier date, or a larger share"
        )
    if settings.executable and not rows.tasks:
        raise ValueError(
            f"no new function became a task: {failure_reasons(report)}. Choose an earlier date or a larger share, or set "
            "`executable: false` to make only fill-in-the-middle rows"
        )
    counts = {name: len(file_rows) for name, file_rows in rows.by_file().items()}
    origins = [
        f"{name} {account['held_out_until']}, what is new since {account['trained_until']}"
        for name, account in report.items()
    ]
    used = {
        "tests": suite_card(settings.tests), "settings": settings.settings.model_dump(),
        "executable": settings.executable, "max_pieces": settings.max_pieces,
        "context_characters": settings.context_characters, "seed": context.seed,
    }  # fmt: skip
    files = {f"{name}.jsonl": count for name, count in counts.items()}
    account = _card_counts(rows, report) | {"repositories": report}
    write_card(context.out, "Private benchmark", files, origins, used, account)
    return {**counts, "repositories": report}


def _card_counts(rows: _Rows, report: Mapping[str, Any]) -> dict[str, Any]:
    """Count the rows by language and the omitted functions by reason, for the dataset card."""
    removed = Counter[str]()
    for account in report.values():
        removed.update({reason: count for reason, count in account["pieces"].items() if reason != "new"})
        removed.update({f"task: {reason}": count for reason, count in account["dropped"].items()})
    languages = Counter(row["language"] for file_rows in rows.by_file().values() for row in file_rows)
    return {"languages": sorted_counts(languages), "removed": sorted_counts(removed)}


def _add_repository(
    repository: Repository, rows: _Rows, settings: PrivateBenchmarkSettings, context: BuildContext
) -> dict[str, Any]:
    """Add the rows of one repository to `rows`, and return the counts of this repository."""
    earlier, now = read_texts(repository), read_texts(replace(repository, commit=repository.head))
    counts: Counter[str] = Counter()
    new = select_new(code_pieces(repository, now, earlier), earlier, now, counts)
    chosen = new
    if len(new) > settings.max_pieces:
        generator = random.Random(f"{context.seed}:{repository.name}")
        chosen = [new[place] for place in sorted(generator.sample(range(len(new)), settings.max_pieces))]
    clean, redacted = without_secrets((_fim_row(repository, piece, now[piece.file]) for piece in chosen), counts)
    rows.fim += clean
    if redacted:
        counts["redacted_contexts"] = redacted
    account: dict[str, Any] = {
        "trained_until": repository.commit, "held_out_until": repository.head, "pieces": dict(sorted(counts.items())),
        "advice": [], "dropped": {},
    }  # fmt: skip
    if settings.executable:
        _add_tasks(repository, new, rows, account, settings, context)
    return account


def _add_tasks(
    repository: Repository,
    new: Sequence[NewCode],
    rows: _Rows,
    account: dict[str, Any],
    settings: PrivateBenchmarkSettings,
    context: BuildContext,
) -> None:
    """Add executable tasks of the new functions to `rows`, and their counts to the build report `account`."""
    wanted = {(piece.file, piece.start, piece.end) for piece in new}

    def is_new(function: Maskable, text: str) -> bool:
        return (function.file, function.start, function.end) in wanted

    head = replace(repository, commit=repository.head)
    for name, found in tasks_by_language(head, settings.tests, settings.settings, context, is_new):
        rows.tasks += found.rows("heldout", settings.context_characters)
        rows.fim_tasks += found.rows("heldout", settings.context_characters, fim=True)
        language_report = found.report()
        account["advice"] += language_report.pop("advice")
        account["dropped"] |= language_report.pop("dropped")
        account[name] = language_report


def code_pieces(repository: Repository, now: Mapping[str, str], earlier: Mapping[str, str]) -> list[NewCode]:
    """Collect code that may be new: the functions of changed files, and the added lines of files without functions.

    Args:
        repository: a repository that is split by time.
        now: texts of the head commit, keyed by path.
        earlier: texts of the last commit before the split, keyed by path.
    """
    pieces: list[NewCode] = []
    for path, text in sorted(now.items()):
        if earlier.get(path) == text:
            continue
        language = detect(path, text)
        if is_test_file(path) or is_documentation(path) or language in TEXTS:
            continue
        functions = [item for known in TASK_LANGUAGES for item in known.functions(path, text)]
        if functions or language == "python":
            pieces += [
                NewCode(path, item.line, item.name, language, item.start, item.end)
                for item in functions if item.end > item.start
            ]  # fmt: skip
        else:
            tree = SyntaxTree.parse(text, language)
            bodies = [] if tree is None else list(tree.named_bodies())
            pieces += [
                NewCode(path, text.count("\n", 0, start) + 1, name, language, start, end)
                for name, (start, end) in bodies
            ] or list(_added_lines(repository, path, text, language))
    return pieces


def _added_lines(repository: Repository, path: str, text: str, language: str) -> Iterable[NewCode]:
    """Yield the blocks of consecutive lines that were added to a file after the split."""
    difference = git.run(
        repository.path, "diff-tree", "-p", "--unified=0", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames",
        repository.commit, repository.head, "--", f":(top,literal){path}",
    )  # fmt: skip
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    for match in _HUNK.finditer(difference):
        first, count = int(match.group(1)), int(match.group(2) or 1)
        if count and first + count <= len(starts):
            while count > MAX_LINES:
                yield NewCode(path, first, "", language, starts[first - 1], starts[first + PART_LINES - 1] - 1)
                first, count = first + PART_LINES, count - PART_LINES
            if count >= MIN_LINES:
                yield NewCode(path, first, "", language, starts[first - 1], starts[first + count - 1] - 1)


def select_new(
    pieces: Sequence[NewCode], earlier: Mapping[str, str], now: Mapping[str, str], counts: Counter[str]
) -> list[NewCode]:
    """Return the pieces that no earlier file contains, exactly or nearly.

    Args:
        pieces: code that may be new.
        earlier: texts of the last commit before the split, keyed by path.
        now: texts of the head commit, keyed by path.
        counts: counter to which the numbers of pieces that are `too_short`, `not_new` and `new` are added.
    """
    index, indexed = Bodies(), []
    for piece in pieces:
        if index.add(now[piece.file][piece.start : piece.end]):
            indexed.append(piece)
        else:
            counts["too_short"] += 1
    known = index.matches(earlier.values())
    counts["not_new"] = len(known)
    new = [piece for number, piece in enumerate(indexed) if number not in known]
    counts["new"] = len(new)
    return new


def _fim_row(repository: Repository, piece: NewCode, text: str) -> dict[str, Any]:
    """Make a fill-in-the-middle row, which is scored by exact match and edit similarity."""
    opening, closing = window(text, piece, FIM_BEFORE, FIM_AFTER)
    row = {
        "id": f"{repository.name}/{piece.file}:{piece.line}:{piece.name}", "prefix": text[opening : piece.start],
        "middle": text[piece.start : piece.end], "suffix": text[piece.end : closing], "language": piece.language,
        "source": f"{repository.name}@{repository.head[:12]}", "split": "heldout",
    }  # fmt: skip
    return {**row, HELD_OUT_COLUMN: row["middle"]}
