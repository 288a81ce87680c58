"""Builder `instructions`: make conversations from the code of repositories by rules. Models can improve the result.

All code in the rows parses. If executable tasks of the same functions are given (setting `tasks`), the code was also
executed: the original code and answers of a writer model pass the tests of the function, and the buggy code that a
conversation of the kind `fix` shows fails the tests.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from alignment.grading import Grader, Limits
from alignment.rows import reading as row_files
from alignment.sandbox.slot import SandboxUnavailable
from alignment.settings import Count, Positive, Reference, Settings
from data_builders.builder import BuildContext
from data_builders.cleaning.decontamination import Decontaminator
from data_builders.cleaning.secrets import redact
from data_builders.instructions import rewrites
from data_builders.instructions.instruction_kinds import KINDS, Code, Draft
from data_builders.instructions.refine import Refinement, refine
from data_builders.parsing.python_functions import functions, parse
from data_builders.repositories.sources import Repository, Sources, cloned, read_texts
from data_builders.shared_settings import Decontaminated
from data_builders.storage.dataset import sorted_counts, write_card
from data_builders.tasks.python.python_suite import is_documentation, is_test_file
from data_builders.tasks.python.task_context import test_sources

LIMITS = Limits(cpu_seconds=10, wall_seconds=10)
MAX_TEST_CHARACTERS = 2999
"""Maximum number of characters of visible tests that a conversation shows."""
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
    """Repositories whose Python files contain the functions."""
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
    with cloned(settings.sources, context.clone_folder) as repositories:
        for repository in repositories:
            names.append(f"{repository.name} {repository.commit or 'folder'}")
            unchecked = _drafts(repository, tasks, settings.kinds, settings.bounds, dropped)
            drafts += _without_long_or_secret(unchecked, settings.bounds, dropped)
    if len(drafts) > settings.max_rows:
        chosen = sorted(random.Random(context.seed).sample(range(len(drafts)), settings.max_rows))
        dropped["above_max_rows"] += len(drafts) - settings.max_rows
        drafts = [drafts[place] for place in chosen]
    try:
        with Grader(context.workers, LIMITS, allow_weaker=context.sandbox.allow_weaker) as grader:
            drafts = _without_unnoticed_bugs(drafts, grader, dropped)
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
        raise ValueError(f"no instruction could be made from these repositories (dropped: {dict(dropped)})")
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


def _drafts(
    repository: Repository,
    tasks: dict[str, dict[str, Any]],
    kinds: Sequence[str],
    bounds: ConversationLimits,
    dropped: Counter[str],
) -> Iterator[Draft]:
    """Yield drafts of conversations (see `instruction_kinds.Draft`) about the functions of one repository.

    Omitted functions and drafts are counted in `dropped`.
    """
    texts = read_texts(repository)
    for path, text in sorted(texts.items()):
        if not path.endswith(".py") or is_test_file(path) or is_documentation(path) or "\r" in text:
            continue
        if parse(text) is None:
            dropped["file_does_not_parse"] += 1
            continue
        for function in functions(path, text):
            if function.problem == "no_body":
                continue
            task = tasks.get(f"{repository.name}/{path}:{function.line}:{function.qualname}")
            source = f"{repository.name}@{repository.commit[:12]}:{path}:{function.qualname}"
            code = Code(function, text, source, task, _visible_tests(task, texts) if task else "")
            if code.definition.count("\n") + 1 < bounds.min_lines:
                dropped["function_too_short"] += 1
                continue
            drafts = [draft for kind in kinds if kind in KINDS for draft in KINDS[kind](code)]
            dropped["above_per_function"] += max(0, len(drafts) - bounds.per_function)
            yield from drafts[: bounds.per_function]
    if "refactor" in kinds:
        yield from rewrites.refactors(repository.name, repository.commit, texts)
    if "translate" in kinds:
        yield from rewrites.translations(repository.name, repository.commit, texts)


def _visible_tests(task: dict[str, Any], texts: dict[str, str]) -> str:
    """Return the code of a task's visible tests."""
    return test_sources(texts, json.loads(task["tests"])["visible"], MAX_TEST_CHARACTERS)


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


def _without_unnoticed_bugs(drafts: list[Draft], grader: Grader, dropped: Counter[str]) -> list[Draft]:
    """Drop drafts of the kind `fix` whose buggy code passes all tests of the function, because this code may have no
    bug.
    """
    with_bug = [draft for draft in drafts if draft.broken]
    verdicts = grader.grade_many([(draft.task, draft.broken) for draft in with_bug if draft.task is not None])
    noticed = {id(draft) for draft, verdict in zip(with_bug, verdicts, strict=True) if verdict.status == "failed"}
    dropped["bug_that_no_test_notices"] += len(with_bug) - len(noticed)
    return [draft for draft in drafts if not draft.broken or id(draft) in noticed]


def _uncontaminated(drafts: list[Draft], benchmarks: Decontaminator | None, dropped: Counter[str]) -> list[Draft]:
    """Return the drafts that contain no text of a benchmark."""
    clean = [draft for draft in drafts if benchmarks is None or benchmarks.check_row(_row(draft)) is None]
    dropped["contaminated"] += len(drafts) - len(clean)
    return clean


def _distinct(drafts: Iterable[Draft], dropped: Counter[str]) -> list[Draft]:
    """Drop drafts that repeat the question and answer of an earlier draft."""
    seen: set[tuple[str, str]] = set()
    distinct = []
    for draft in drafts:
        key = (draft.prompt, draft.answer)
        if key in seen:
            dropped["duplicate"] += 1
        else:
            seen.add(key)
            distinct.append(draft)
    return distinct
