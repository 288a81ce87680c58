"""Instructions from a repository's own code: made by rules, proven by its tests, and rewritten where a model is named.

What is kept parses; where a task of the same function is there (`tasks:`), what is claimed of the code was executed: the
original passes the function's tests, the bug that is to be fixed fails them, and an answer that a model wrote passes them.
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
from data_builders.tasks.python.task_context import definition_of

LIMITS = Limits(cpu_seconds=10, wall_seconds=10)
InstructionKind = Literal["implement", "document", "tests", "fix", "explain", "refactor", "translate"]
ALL_KINDS: list[InstructionKind] = list(get_args(InstructionKind))


class ConversationLimits(Settings):
    """Sizes of the functions and conversations that are used."""

    min_lines: Count = 3
    """Lines of a function, header included."""
    max_characters: Count = 8000
    """Characters of question and answer together."""
    per_function: Positive = 4
    """Conversations about one function, at most, so that a few functions do not fill the dataset."""


class InstructionsSettings(Decontaminated):
    """Settings of the builder `instructions`."""

    sources: Sources
    """Repositories; functions are taken from their Python files."""
    tasks: Reference | None = None
    """Executable tasks of the same repositories, made by the builder `tasks`. With them answers are executed, and there
    are bugs to fix and tests to write code for."""
    kinds: list[InstructionKind] = Field(default_factory=lambda: list(ALL_KINDS))
    """Kinds of instructions to make."""
    bounds: ConversationLimits = ConversationLimits()
    """Sizes of the functions and conversations that are used."""
    max_rows: Positive = 20_000
    """Conversations, at most; drawn at random if there are more."""
    refinement: Refinement | None = None
    """Models that rewrite the conversations, and judge them."""


def build_instructions(settings: InstructionsSettings, context: BuildContext) -> dict[str, Any]:
    """Conversations from repositories: implement, document, tests to code, fix, explain, refactor, translate.

    Raises:
        ValueError: a source is wrong, or no conversation could be made; the message has the reasons.
    """
    known = _tasks(settings.tasks.path()) if settings.tasks is not None else {}
    benchmarks = settings.decontaminator()
    dropped: Counter[str] = Counter()
    drafts: list[Draft] = []
    names: list[str] = []
    with cloned(settings.sources, context.clone_folder) as repositories:
        for repository in repositories:
            names.append(f"{repository.name} {repository.commit or 'folder'}")
            drafted = _drafts(repository, known, settings.kinds, settings.bounds, dropped)
            drafts += _within(drafted, settings.bounds, dropped)
    if len(drafts) > settings.max_rows:
        chosen = sorted(random.Random(context.seed).sample(range(len(drafts)), settings.max_rows))
        dropped["above_max_rows"] += len(drafts) - settings.max_rows
        drafts = [drafts[place] for place in chosen]
    try:
        with Grader(context.workers, LIMITS, allow_weaker=context.sandbox.allow_weaker) as grader:
            drafts = _bugs_that_show(drafts, grader, dropped)
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
        raise ValueError(f"no instruction could be made of these repositories (dropped: {dict(dropped)})")
    used = {
        "kinds": list(settings.kinds), "bounds": settings.bounds.model_dump(), "max_rows": settings.max_rows,
        "tasks": settings.tasks is not None, "refined": settings.refinement is not None,
        "decontaminate": settings.benchmark_names(), "seed": context.seed,
    }  # fmt: skip
    write_card(context.out, "Instructions", {"instructions.jsonl": len(rows)}, names, used, account)
    return account


def _row(draft: Draft) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": draft.prompt},
            {"role": "assistant", "content": draft.answer},
        ],
        "source": f"{draft.kind}:{draft.source}",
        "verified": "executes" if draft.task is not None else "parses",
    }


def _tasks(path: Path) -> dict[str, dict[str, Any]]:
    found = {
        row["id"]: row for row in row_files.read(path) if row.get("kind") == "pytest" and not row["id"].endswith(":fim")
    }
    if not found:
        raise ValueError(f"{path} holds no executable tasks of repositories: give `tasks` what builder `tasks` made")
    return found


def _drafts(
    repository: Repository,
    known: dict[str, dict[str, Any]],
    kinds: Sequence[str],
    bounds: ConversationLimits,
    dropped: Counter[str],
) -> Iterator[Draft]:
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
            where = f"{repository.name}/{path}:{function.line}:{function.qualname}"
            task = known.get(where)
            source = f"{repository.name}@{repository.commit[:12]}:{path}:{function.qualname}"
            code = Code(function, text, source, task, _shown_tests(task, texts) if task else "")
            if code.whole.count("\n") + 1 < bounds.min_lines:
                dropped["function_too_short"] += 1
                continue
            made = [draft for kind in kinds if kind in KINDS for draft in KINDS[kind](code)]
            dropped["above_per_function"] += max(0, len(made) - bounds.per_function)
            yield from made[: bounds.per_function]
    if "refactor" in kinds:
        yield from rewrites.refactors(repository.name, repository.commit, texts)
    if "translate" in kinds:
        yield from rewrites.translations(repository.name, repository.commit, texts)


def _shown_tests(task: dict[str, Any], texts: dict[str, str]) -> str:
    """The code of a task's visible tests; hidden ones stay hidden."""
    parts: list[str] = []
    for name in dict.fromkeys(item.partition("[")[0] for item in json.loads(task["tests"])["visible"]):
        file, *path = name.split("::")
        code = definition_of(texts.get(file, ""), path)
        if code and sum(map(len, parts)) + len(code) < 3000:
            parts.append(code)
    return "\n\n".join(parts)


def _within(drafts: Iterable[Draft], bounds: ConversationLimits, dropped: Counter[str]) -> Iterator[Draft]:
    for draft in drafts:
        if len(draft.prompt) + len(draft.answer) > bounds.max_characters:
            dropped["too_long"] += 1
        elif redact(f"{draft.prompt}\n{draft.answer}", draft.language).counts:
            dropped["secret"] += 1
        else:
            yield draft


def _bugs_that_show(drafts: list[Draft], grader: Grader, dropped: Counter[str]) -> list[Draft]:
    """Without bugs that no test of the function notices: what is shown may then be right."""
    asked = [draft for draft in drafts if draft.broken]
    verdicts = grader.grade_many([(draft.task, draft.broken) for draft in asked if draft.task is not None])
    shown = {id(draft) for draft, verdict in zip(asked, verdicts, strict=True) if verdict.status == "failed"}
    dropped["bug_that_no_test_notices"] += len(asked) - len(shown)
    return [draft for draft in drafts if not draft.broken or id(draft) in shown]


def _uncontaminated(drafts: list[Draft], benchmarks: Decontaminator | None, dropped: Counter[str]) -> list[Draft]:
    clean = [draft for draft in drafts if benchmarks is None or benchmarks.check_row(_row(draft)) is None]
    dropped["contaminated"] += len(drafts) - len(clean)
    return clean


def _distinct(drafts: Iterable[Draft], dropped: Counter[str]) -> list[Draft]:
    seen: set[tuple[str, str]] = set()
    kept = []
    for draft in drafts:
        key = (draft.prompt, draft.answer)
        if key in seen:
            dropped["duplicate"] += 1
        else:
            seen.add(key)
            kept.append(draft)
    return kept
