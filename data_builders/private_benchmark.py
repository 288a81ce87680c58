"""A private benchmark by time split: what a repository got since a date is held out, and measured.

A source that names `before` or `held_out` is split: builders of training data read the last commit before the split, and
this builder what is new at the end of it. New is what no file of the earlier commit holds, exactly or nearly
(`data_builders.cleaning.held_out`): code that was moved or touched up since is not new, and counted.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.grading import SandboxSettings
from data_builders.cleaning.held_out import HELD_OUT_COLUMN, Bodies
from data_builders.parsing.languages import detect
from data_builders.parsing.python_functions import Function, functions
from data_builders.repositories import git
from data_builders.repositories.sources import Location, Repository, Source, read_texts, resolve
from data_builders.storage.dataset import sorted_counts, write_card
from data_builders.tasks.build_tasks import FIM_AFTER, FIM_BEFORE, Found, Tests, by_language, explain, told, write_rows
from data_builders.tasks.javascript.javascript_mutants import JsFunction, js_functions
from data_builders.tasks.python.python_suite import is_prose, is_test_file
from data_builders.tasks.python.task_context import window
from data_builders.tasks.validation import TaskSettings, without_secrets

TEXTS = frozenset({"markdown", "json", "yaml", "restructuredtext", "html", "css", "xml", "csv", "text", ""})
_HUNK = re.compile(rb"^@@ -\S+ \+(\d+)(?:,(\d+))? @@", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A run of new code: what is asked for, in its file."""

    file: str
    line: int
    name: str
    language: str
    start: int
    end: int


def build_private_benchmark(
    sources: Sequence[Location | Source],
    out: Path,
    *,
    seed: int = 0,
    tests: Tests | None = None,
    settings: TaskSettings | None = None,
    executable: bool = True,
    max_pieces: int = 300,
    context_characters: int = 6000,
    workers: int = 1,
    sandbox: SandboxSettings | None = None,
    clone_dir: Path | None = None,
) -> dict[str, Any]:
    """What is new since a date, as an evaluation: fill in the middle, and executable tasks from its own tests.

    Args:
        sources: git repositories, each with `before` (a date) or `held_out` (a share of the newest commits).
        tests: how their tests are run.
        settings: what a new function needs to become an executable task.
        executable: whether tasks are made from tests; without them, only exact match and edit similarity are measured.
        max_pieces: of one repository, at most so many fill-in-the-middle rows; drawn at random where there are more.
        context_characters: of the file around the masked body that an executable task shows, about.

    Raises:
        ValueError: a source is not split, or there is nothing new to measure; the message says which and what to do.
    """
    tests, settings = tests or Tests(), settings or TaskSettings()
    rows: dict[str, list[dict[str, Any]]] = {"fim": [], "fim-tasks": [], "tasks": []}
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="clones-") as temporary:
        for repository in resolve(sources, clone_dir or Path(temporary)):
            if not repository.head:
                raise ValueError(
                    f"{repository.name} is not split: give its source `before` (a date) or `held_out` (a share of its commits)"
                )
            account = _one(
                repository, rows, tests, settings, seed, executable, max_pieces, context_characters, workers,
                sandbox or SandboxSettings(),
            )  # fmt: skip
            report[repository.name] = account
    out.mkdir(parents=True, exist_ok=True)
    for name, found in rows.items():
        write_rows(out / f"{name}.jsonl", found)
    (out / "account.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    if not rows["fim"]:
        raise ValueError(
            f"nothing in {', '.join(report)} is new since the split: choose an earlier date, or a larger share"
        )
    if executable and not rows["tasks"]:
        raise ValueError(
            f"no new function became a task: {explain(report)}. Choose an earlier date or a larger share, or set "
            "`executable: false` and measure `fim` alone"
        )
    write_card(
        out, "Private benchmark", {f"{name}.jsonl": len(found) for name, found in rows.items()},
        [f"{name} {found['held_out_until']}, what is new since {found['trained_until']}" for name, found in report.items()],
        {"tests": told(tests), "settings": dataclasses.asdict(settings), "executable": executable, "max_pieces": max_pieces,
         "context_characters": context_characters, "seed": seed}, _counts(rows, report) | {"repositories": report},
    )  # fmt: skip
    return {**{name: len(found) for name, found in rows.items()}, "repositories": report}


def _counts(rows: Mapping[str, Sequence[dict[str, Any]]], report: Mapping[str, Any]) -> dict[str, Any]:
    """Rows by language, and what did not become one by reason, as the card says them."""
    removed = Counter[str]()
    for account in report.values():
        removed.update({reason: count for reason, count in account["pieces"].items() if reason != "new"})
        removed.update({f"task: {reason}": count for reason, count in account["dropped"].items()})
    languages = Counter(row["language"] for found in rows.values() for row in found)
    return {"languages": sorted_counts(languages), "removed": sorted_counts(removed)}


def check(settings: Mapping[str, Any]) -> Iterator[str]:
    """Every source must be split."""
    sources = settings.get("sources")
    for source in sources if isinstance(sources, list) else []:
        split = isinstance(source, Mapping) and (source.get("before") is not None or source.get("held_out") is not None)
        if not split:
            name = source.get("path") if isinstance(source, Mapping) else source
            yield f"source {name} is not split: give it `before` (a date) or `held_out` (a share of its commits)"


def _one(
    repository: Repository, rows: dict[str, list[dict[str, Any]]], tests: Tests, settings: TaskSettings, seed: int,
    executable: bool, max_pieces: int, context_characters: int, workers: int, sandbox: SandboxSettings,
) -> dict[str, Any]:  # fmt: skip
    """Add the rows of one repository, and return what was counted."""
    earlier, now = read_texts(repository), read_texts(dataclasses.replace(repository, commit=repository.head))
    counted: Counter[str] = Counter()
    new = new_pieces(pieces(repository, now, earlier), earlier, now, counted)
    chosen = new
    if len(new) > max_pieces:
        drawn = sorted(random.Random(f"{seed}:{repository.name}").sample(range(len(new)), max_pieces))
        chosen = [new[place] for place in drawn]
    kept, replaced = without_secrets((_fim_row(repository, piece, now[piece.file]) for piece in chosen), counted)
    rows["fim"] += kept
    if replaced:
        counted["redacted_contexts"] = replaced
    account: dict[str, Any] = {
        "trained_until": repository.commit, "held_out_until": repository.head, "pieces": dict(sorted(counted.items())),
        "advice": [], "dropped": {},
    }  # fmt: skip
    if executable:
        wanted = {(piece.file, piece.start, piece.end) for piece in new}
        later = dataclasses.replace(repository, commit=repository.head)

        def only(function: Function | JsFunction, text: str) -> bool:
            return (function.file, function.start, function.end) in wanted

        for name, found in by_language(later, tests, settings, workers, sandbox, only):
            rows["tasks"] += found.rows("heldout", context_characters)
            if isinstance(found, Found):
                rows["fim-tasks"] += found.rows("heldout", context_characters, fim=True)
            said = found.report()
            account["advice"] += said.pop("advice")
            account["dropped"] |= said.pop("dropped")
            account[name] = said
    return account


def pieces(repository: Repository, now: dict[str, str], earlier: dict[str, str]) -> list[Piece]:
    """What may be asked for at the end of the split: functions of Python and JavaScript, runs of added lines elsewhere.

    Only of files that changed.
    """
    found: list[Piece] = []
    for path, text in sorted(now.items()):
        if earlier.get(path) == text:
            continue
        language = detect(path, text)
        if is_test_file(path) or is_prose(path) or language in TEXTS or "\r" in text:
            continue
        if language == "python":
            found += [_piece(item) for item in functions(path, text) if item.end > item.start]
        elif language == "javascript" and (own := js_functions(path, text)):
            found += [Piece(path, item.line, item.name, language, item.start, item.end) for item in own]
        else:
            found += _added(repository, path, text, language)
    return found


def _piece(function: Function) -> Piece:
    return Piece(function.file, function.line, function.qualname, "python", function.start, function.end)


def _added(repository: Repository, path: str, text: str, language: str) -> Iterable[Piece]:
    """Runs of 3 to 40 lines that the split's later half added to a file."""
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
            while count > 40:  # a new file is one run: take it in parts that a model can be asked for
                yield Piece(path, first, "", language, starts[first - 1], starts[first + 19] - 1)
                first, count = first + 20, count - 20
            if count >= 3:
                yield Piece(path, first, "", language, starts[first - 1], starts[first + count - 1] - 1)


def new_pieces(
    found: Sequence[Piece], earlier: dict[str, str], now: dict[str, str], counted: Counter[str]
) -> list[Piece]:
    """Those that no earlier file holds, exactly or nearly."""
    index, asked = Bodies(), []
    for piece in found:
        if index.add(now[piece.file][piece.start : piece.end]):
            asked.append(piece)
        else:
            counted["too_short"] += 1
    known = index.matches(earlier.values())
    counted["not_new"] = len(known)
    new = [piece for number, piece in enumerate(asked) if number not in known]
    counted["new"] = len(new)
    return new


def _fim_row(repository: Repository, piece: Piece, text: str) -> dict[str, Any]:
    """A row for exact match and edit similarity."""
    opening, closing = window(text, piece, FIM_BEFORE, FIM_AFTER)
    row = {
        "id": f"{repository.name}/{piece.file}:{piece.line}:{piece.name}", "prefix": text[opening : piece.start],
        "middle": text[piece.start : piece.end], "suffix": text[piece.end : closing], "language": piece.language,
        "source": f"{repository.name}@{repository.head[:12]}", "split": "heldout",
    }  # fmt: skip
    return {**row, HELD_OUT_COLUMN: row["middle"]}
