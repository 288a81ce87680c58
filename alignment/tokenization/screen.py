"""Remove training rows that share text with a benchmark of the recipe.

Rows are compared with the benchmarks of `evaluate:` and of evaluate stages, and with the files that the recipe names
under `decontaminate:`. `data_builders.cleaning.decontamination` defines a match: a shared run of 10 words, or an exact
match of a shorter text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.evaluation import catalogue
from alignment.evaluation.benchmark_request import BenchmarkRequest
from alignment.grading.sandbox_settings import SandboxSettings
from alignment.logs import get_logger
from alignment.recipe.schema import DataSource
from alignment.recipe.stage_request import BenchmarkRows, ScreenTargets
from alignment.rows import reading as row_files
from alignment.rows.conversions import convert
from alignment.rows.kinds import Row
from data_builders.cleaning.decontamination import Decontaminator, Match

logger = get_logger(__name__)

REPORT = "contamination.jsonl"
"""File in the artifact with one line per removed row."""


@dataclass
class ContaminationScreen:
    """Remove training rows of a stage that share text with a benchmark, and count and report the removed rows."""

    index: Decontaminator | None
    """Index of the benchmarks' texts. None if the stage has no benchmarks or files to compare with."""
    allowed: dict[str, str]
    """Names of benchmarks that rows may share text with, each with the reason that the recipe gives."""
    report: Path
    """File to which a line is written for each removed row."""
    removed: Counter[str] = field(default_factory=Counter)
    """Number of removed rows for each benchmark."""
    read: int = 0
    """Number of rows that were compared."""
    matched: dict[str, set[int]] = field(default_factory=dict)
    """Row numbers (from 1) of the removed rows, keyed by the path of the data. When the data is read again, its rows
    are not compared again."""

    @classmethod
    def for_targets(cls, targets: ScreenTargets, out: Path) -> ContaminationScreen:
        """Create a screen: index the texts of the benchmarks and files that training rows are compared with.

        Args:
            targets: benchmarks and files that training rows must share no text with.
            out: folder for the report. An older report in it is removed.

        Raises:
            ValueError: the rows of a benchmark are missing.
        """
        report = out / REPORT
        report.unlink(missing_ok=True)
        allowed = dict(targets.allowed)
        for name, reason in allowed.items():
            logger.info("      training data may share text with %r: %s", name, reason)
        if not targets.benchmarks and not targets.paths:
            return cls(None, allowed, report)
        index = Decontaminator()
        for benchmark in targets.benchmarks:
            index.add(benchmark.name, _benchmark_rows(benchmark, targets.sandbox))
        for path in targets.paths:
            index.add_path(path)
        index.seal()
        return cls(index, allowed, report)

    def clean_rows(self, source: DataSource, counts: Counter[str]) -> Iterator[tuple[int, Row]]:
        """Read one `data:` entry, and yield (row number from 1, row) for each row without text of a benchmark.

        Rows of an entry with a `format` are converted first.

        Args:
            source: the entry, with an absolute path.
            counts: counter whose `contaminated` is increased for each removed row.
        """
        matched = self.matched.setdefault(str(source.data), set())
        for number, row in _numbered_rows(source):
            self.read += 1
            match = self.index.check_row(row) if self.index is not None else None
            if match is None:
                yield number, row
                continue
            counts["contaminated"] += 1
            matched.add(number)
            self.removed[match.benchmark] += 1
            self._write_line(Path(source.data).name, number, row, match)

    def clean_again(self, source: DataSource) -> Iterator[tuple[int, Row]]:
        """Yield the rows that `clean_rows` yielded for an entry, without comparing them again."""
        matched = self.matched[str(source.data)]
        return ((number, row) for number, row in _numbered_rows(source) if number not in matched)

    def _write_line(self, data: str, number: int, row: Row, match: Match) -> None:
        names = {key: row[key] for key in ("id", "repository", "path", "source") if isinstance(row.get(key), str)}
        line = {"data": data, "row": number, **names, **vars(match)}
        with self.report.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=True) + "\n")

    def counts(self) -> dict[str, Any]:
        """Return the counts for the artifact, under the key `decontamination`, and log how many rows were removed."""
        if self.index is None:
            return {"decontamination": {"benchmarks": {}, "allowed": self.allowed}} if self.allowed else {}
        total = sum(self.removed.values())
        if total:
            by_name = ", ".join(f"{name} {count}" for name, count in sorted(self.removed.items()))
            logger.info(
                "      removed %d of %d rows that share text with a benchmark (%s): %s",
                total,
                self.read,
                by_name,
                REPORT,
            )
        figures = {
            "rows": self.read, "removed": total, "by_benchmark": dict(sorted(self.removed.items())),
            "benchmarks": dict(sorted(self.index.sizes.items())), "allowed": self.allowed,
        }  # fmt: skip
        return {"decontamination": figures}


def _benchmark_rows(entry: BenchmarkRows, sandbox: SandboxSettings) -> Iterator[Row]:
    """Yield all rows of a benchmark, including rows beyond the recipe's `limit`."""
    request = BenchmarkRequest(benchmark=entry.benchmark, name=entry.name, data=entry.data, sandbox=sandbox)
    try:
        problems = catalogue.load(request).problems
    except ValueError as error:
        raise ValueError(
            f"{error}\n  The stage compares its training rows with this benchmark. Get the benchmark's rows, or set "
            "`allow_overlap` in its entry to the reason why the comparison is not needed."
        ) from None
    for problem in problems:
        yield problem.row


def _numbered_rows(source: DataSource) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row) for a `data:` entry. Rows of an entry with a `format` are converted."""
    for number, row in enumerate(row_files.read(Path(source.data), source.rows), 1):
        yield number, convert(row, source.format, f"{source.data}, row {number}")
