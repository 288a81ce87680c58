"""Builder `instructions`: make conversations from the code of repositories by rules. Models can improve the result.

All code in the rows parses. If executable tasks of the same functions are given (setting `tasks`), the code was also
executed: the original code and answers of a writer model pass the tests of the function, and the buggy code that a
conversation of the kind `fix` shows fails the tests.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from alignment.grading import Grader, Limits
from alignment.grading.protected_files import is_test_file
from alignment.progress import Progress
from alignment.rows import reading as row_files
from alignment.sandbox.slot import SandboxUnavailable
from alignment.settings import Count, Positive, Reference, Settings
from data_builders.builder import BuildContext
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.cleaning.duplicates import find_duplicates, fingerprints
from data_builders.cleaning.secrets import redact
from data_builders.instructions.instruction_kinds import KINDS, Code, Draft, Rejected
from data_builders.instructions.javascript_drafts import javascript_drafts
from data_builders.instructions.refine import Refinement, refine
from data_builders.instructions.renames import refactors
from data_builders.instructions.unittest_translations import translations
from data_builders.parsing.python_functions import Function, functions, parse
from data_builders.repositories.sources import Repository, Sources, cloned, read_texts
from data_builders.shared_settings import Decontaminated
from data_builders.storage.dataset import sorted_counts, write_card
from data_builders.storage.parallel import batched
from data_builders.tasks.python.needed_code import RepositoryCode
from data_builders.tasks.python.python_suite import is_documentation
from data_builders.tasks.python.shown_tests import TestFunction, code_of_tests

LIMITS = Limits(cpu_seconds=10, wall_seconds=10)
MAX_TEST_CHARACTERS = 2999
"""Maximum number of characters of visible tests that a conversation shows."""
GRADED_AT_ONCE = 64
"""Number of bugs that are executed between two messages about the progress."""
InstructionKind = Literal["implement", "document", "tests", "fix", "explain", "refactor", "translate"]
ALL_KINDS: list[InstructionKind] = list(get_args(InstructionKind))


class ConversationLimits(Settings):
    """Limits on the sizes of functions and conversations."""

    min_lines: Count = 3
    """Minimum number of lines of a function, including its header."""
    max_characters: Positive = 8000
    """Maximum number of characters of question and answer together."""
    per_function: Positive = 4
    """Maximum number of conversations about one function, so that no function has too much weight."""


class InstructionsSettings(Decontaminated):
    """Settings of the builder `instructions`."""

    sources: Sources
    """Repositories whose Python, JavaScript and TypeScript files contain the functions. JavaScript and TypeScript give the
    kinds `implement` and `document`."""
    tasks: Reference | None = None
    """Executable tasks of the same repositories, made by the builder `tasks`. With this setting, answers are executed,
    and the kinds `fix` and `tests` are possible."""
    kinds: list[InstructionKind] = Field(default_factory=lambda: list(ALL_KINDS))
    """Kinds of instructions to make."""
    bounds: ConversationLimits = ConversationLimits()
    """Limits on the sizes of functions and conversations."""
    max_rows: Positive = 20_000
    """Maximum number of conversations. If more are possible, conversations are drawn at random."""
    refinement: Refinement | None = None
    """Models that rewrite and judge the conversations. By default, no model is used."""


def build_instructions(settings: InstructionsSettings, context: BuildContext) -> dict[str, Any]:
    """Build conversations from repositories, which ask to implement, document, fix, explain or rewrite functions.

    Raises:
        ValueError: a source is wrong, or no conversation could be made. The message lists the reasons.
    """
    tasks = _tasks_by_id(settings.tasks.path()) if settings.tasks is not None else {}
    benchmarks = settings.decontaminator()
    dropped: Counter[str] = Counter()
    drafts: list[Draft] = []
    names: list[str] = []
    with cloned(settings.sources, context) as repositories:
        for repository in repositories:
            names.append(f"{repository.name} {repository.commit or 'folder'}")
            maker = _DraftMaker(repository, tasks, settings, context, dropped)
            drafts += _without_long_or_secret(maker.drafts(), settings.bounds, dropped)
    drafts = _distinct(drafts, dropped)
    if len(drafts) > settings.max_rows:
        chosen = sorted(random.Random(context.seed).sample(range(len(drafts)), settings.max_rows))
        dropped["above_max_rows"] += len(drafts) - settings.max_rows
        drafts = [drafts[place] for place in chosen]
    try:
        with Grader(context.workers, LIMITS, allow_weaker=context.sandbox.allow_weaker) as grader:
            progress = Progress("instructions: bugs", unit="programs")
            drafts = _without_unnoticed_bugs(drafts, grader, dropped, progress)
            refinement_counts: dict[str, int] = {}
            if settings.refinement is not None:
                drafts, refinement_counts = refine(drafts, settings.refinement, grader, context.seed)
    except SandboxUnavailable as error:
        raise ValueError(f"instructions with tasks need the sandbox: {error}") from None
    rows = _uncontaminated(_distinct(drafts, dropped), benchmarks, dropped)
    with (context.out / "instructions.jsonl").open("w", encoding="utf-8") as file:
        for draft in rows:
            file.write(json.dumps(_row(draft), ensure_ascii=False) + "\n")
    account = {
        "rows": len(rows), "kinds": dict(sorted(Counter(draft.kind for draft in rows).items())),
        "languages": sorted_counts(Counter(draft.language for draft in rows)),
        "executed": sum(draft.task is not None for draft in rows), "dropped": dict(sorted((+dropped).items())),
        **refinement_counts,
    }  # fmt: skip
    (context.out / "account.json").write_text(json.dumps(account, indent=1), encoding="utf-8")
    if not rows:
        raise ValueError(
            f"no instruction could be made from these repositories (dropped: {dict(dropped)}): instructions are made of "
            "functions in Python, and of functions with a JSDoc comment in JavaScript and TypeScript. Use the builder "
            "`commits` for repositories in other languages"
        )
    used = {
        "kinds": list(settings.kinds), "bounds": settings.bounds.model_dump(), "max_rows": settings.max_rows,
        "tasks": settings.tasks is not None, "refined": settings.refinement is not None,
        "decontaminate": settings.benchmark_names(), "seed": context.seed,
    }  # fmt: skip
    write_card(context.out, "Instructions", {"instructions.jsonl": len(rows)}, names, used, account)
    return account


def _row(draft: Draft) -> dict[str, Any]:
    """Make the dataset row of a draft."""
    return {
        "messages": [
            {"role": "user", "content": draft.prompt},
            {"role": "assistant", "content": draft.answer},
        ],
        "source": f"{draft.kind}:{draft.source}",
        "verified": "executes" if draft.task is not None else "parses",
    }


def _tasks_by_id(path: Path) -> dict[str, dict[str, Any]]:
    """Read the Python tasks of a folder or file, keyed by their id. Fill-in-the-middle tasks are left out."""
    tasks = {
        row["id"]: row for row in row_files.read(path) if row.get("kind") == "pytest" and not row["id"].endswith(":fim")
    }
    if not tasks:
        raise ValueError(
            f"{path} holds no executable tasks of Python repositories: `tasks` must name the output of the builder `tasks`"
        )
    return tasks


@dataclass
class _DraftMaker:
    """Makes the drafts of conversations from one repository. Rows that are not made are counted in `dropped`."""

    repository: Repository
    tasks: Mapping[str, dict[str, Any]]
    settings: InstructionsSettings
    context: BuildContext
    dropped: Counter[str]

    def drafts(self) -> Iterator[Draft]:
        """Yield the drafts of one repository, file by file."""
        texts = read_texts(self.repository)
        sources = {path: text for path, text in texts.items() if path.endswith(".py") and not is_test_file(path)}
        code = RepositoryCode(sources, self.repository.name)
        progress = Progress(f"instructions: {self.repository.name}", len(sources), "files", amount_unit="MB")
        for path, text in sorted(sources.items()):
            progress.advance(1, len(text) / 1e6)
            if is_documentation(path):
                continue
            if parse(text) is None:
                self.dropped["file_does_not_parse"] += 1
                continue
            for function in functions(path, text):
                yield from self._of_function(function, text, code, texts)
        name, commit, kinds = self.repository.name, self.repository.commit, self.settings.kinds
        if "refactor" in kinds:
            yield from self._made(refactors(name, commit, texts, self.context.seed))
        if "translate" in kinds:
            yield from self._made(translations(name, commit, texts, self.context.seed))
        yield from javascript_drafts(self.repository, texts, kinds, self.settings.bounds.min_lines, self.dropped)

    def _of_function(
        self, function: Function, text: str, repository: RepositoryCode, texts: Mapping[str, str]
    ) -> Iterator[Draft]:
        if function.problem == "no_body":
            return
        task = self.tasks.get(f"{self.repository.name}/{function.file}:{function.line}:{function.qualname}")
        source = f"{self.repository.name}@{self.repository.commit[:12]}:{function.file}:{function.qualname}"
        tests = _visible_tests(task, function, texts) if task else ""
        code = Code(function, text, source, repository, self.context.seed, task, tests)
        bounds = self.settings.bounds
        if code.definition.count("\n") + 1 < bounds.min_lines:
            self.dropped["function_too_short"] += 1
            return
        drafts = [draft for kind in self.settings.kinds if kind in KINDS for draft in self._made(KINDS[kind](code))]
        # The drafts of the kind `fix` are alternatives: one of them is kept.
        fixes = [draft for draft in drafts if draft.broken]
        others = [draft for draft in drafts if not draft.broken]
        most = bounds.per_function - bool(fixes)
        self.dropped["above_per_function"] += max(0, len(others) - most)
        yield from [*others[:most], *fixes]

    def _made(self, results: Iterable[Draft | Rejected]) -> Iterator[Draft]:
        """Yield the drafts among the results of a rule, and count the reasons of the others."""
        for result in results:
            if isinstance(result, Rejected):
                self.dropped[result.reason] += 1
            else:
                yield result


def _visible_tests(task: dict[str, Any], function: Function, texts: Mapping[str, str]) -> str:
    """Return the code of those visible tests of a task that call the function, with the data that they need."""
    tests = json.loads(task["tests"])
    name = function.qualname.rpartition(".")[2]
    calling = [
        item for item in tests["visible"] if (test := TestFunction.find(texts, item)) is not None and test.calls(name)
    ]
    collected = [*tests["visible"], *tests.get("hidden", [])]
    return code_of_tests(texts, collected, calling, MAX_TEST_CHARACTERS)


def _without_long_or_secret(
    drafts: Iterable[Draft], bounds: ConversationLimits, dropped: Counter[str]
) -> Iterator[Draft]:
    """Yield the drafts that are short enough and contain neither secrets nor personal data."""
    for draft in drafts:
        if len(draft.prompt) + len(draft.answer) > bounds.max_characters:
            dropped["too_long"] += 1
        elif redact(f"{draft.prompt}\n{draft.answer}", draft.language).counts:
            dropped["secret"] += 1
        else:
            yield draft


def _without_unnoticed_bugs(
    drafts: list[Draft], grader: Grader, dropped: Counter[str], progress: Progress
) -> list[Draft]:
    """Keep at most one bug of each function: the first bug that makes a test of the function fail."""
    noticed: dict[str, int] = {}
    with_bug = [draft for draft in drafts if draft.broken and draft.task is not None]
    for batch in batched(with_bug, GRADED_AT_ONCE):
        verdicts = grader.grade_many([(draft.task, draft.broken) for draft in batch if draft.task is not None])
        progress.advance(len(batch))
        for draft, verdict in zip(batch, verdicts, strict=True):
            if verdict.status == "failed":
                noticed.setdefault(draft.source, id(draft))
            else:
                dropped["bug_that_no_test_notices"] += 1
    kept = set(noticed.values())
    return [draft for draft in drafts if not draft.broken or id(draft) in kept]


def _uncontaminated(drafts: list[Draft], benchmarks: Decontaminator | None, dropped: Counter[str]) -> list[Draft]:
    """Return the drafts that contain no text of a benchmark."""
    clean = [draft for draft in drafts if benchmarks is None or benchmarks.check_row(_row(draft)) is None]
    dropped["contaminated"] += len(drafts) - len(clean)
    return clean


def _distinct(drafts: Sequence[Draft], dropped: Counter[str]) -> list[Draft]:
    """Drop drafts that repeat an earlier draft of the same kind, or are nearly equal to it.

    Drafts with a bug of the same function are alternatives, of which one is kept later.
    """
    texts = [f"{draft.material}\n{draft.answer}\n{draft.source if draft.broken else ''}" for draft in drafts]
    removed = set()
    for kind in sorted({draft.kind for draft in drafts}):
        places = [place for place, draft in enumerate(drafts) if draft.kind == kind and not draft.broken]
        kind_texts = [texts[place] for place in places]
        found = find_duplicates(fingerprints(kind_texts), kind_texts.__getitem__)
        removed |= {places[duplicate.index] for duplicate in found}
    dropped["near_duplicate"] += len(removed)
    return [draft for place, draft in enumerate(drafts) if place not in removed]
