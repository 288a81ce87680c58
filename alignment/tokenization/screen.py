"""No benchmark in training data: every row that a model is to be trained on is held against the recipe's benchmarks.

Targets are all benchmarks of `evaluate:` and of evaluate stages, and what the recipe names under `decontaminate:`. The
rules are those of `data_builders.cleaning.decontamination`: word 10-grams, and an exact match for what is shorter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.grading.sandbox_settings import SandboxSettings
from alignment.logs import get_logger
from alignment.recipe.stage_request import BenchmarkRows, ScreenTargets
from alignment.rows import reading as row_files

logger = get_logger(__name__)

REPORT = "contamination.jsonl"


@dataclass
class Screen:
    """Takes rows out of a stage's training data, counts them, and writes down why."""

    index: Any
    """A `Decontaminator`, or None where there is nothing to hold rows against."""
    allowed: dict[str, str]
    """Benchmarks that rows may share text with, and the recipe's reason."""
    report: Path
    removed: Counter[str] = field(default_factory=Counter)
    read: int = 0

    @staticmethod
    def of(targets: ScreenTargets, out: Path) -> Screen:
        """The screen of a stage; `targets` are the plan's. `out` gets the report."""
        report = out / REPORT
        report.unlink(missing_ok=True)
        allowed = dict(targets.allowed)
        for name, reason in allowed.items():
            logger.info(f"      training data may share text with {name!r}: {reason}")
        if not targets.benchmarks and not targets.paths:
            return Screen(None, allowed, report)
        from data_builders.cleaning.decontamination import Decontaminator

        index = Decontaminator()
        for benchmark in targets.benchmarks:
            index.add(benchmark.name, _benchmark_rows(benchmark, targets.sandbox))
        for path in targets.paths:
            index.add_path(path)
        index.seal()
        return Screen(index, allowed, report)

    def rows(self, source: Any, counted: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """The clean rows of one `data:` entry with their numbers from 1."""
        for number, row in enumerate(row_files.read(Path(source.data), source.rows), 1):
            self.read += 1
            match = self.index.check_row(row) if self.index is not None else None
            if match is None:
                yield number, row
                continue
            counted["contaminated"] += 1
            self.removed[match.benchmark] += 1
            name = {key: row[key] for key in ("id", "repository", "path", "source") if isinstance(row.get(key), str)}
            line = {"data": Path(source.data).name, "row": number, **name, **vars(match)}
            with self.report.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=True) + "\n")

    def counts(self) -> dict[str, Any]:
        """What happened, for the artifact."""
        if self.index is None:
            return {"decontamination": {"benchmarks": {}, "allowed": self.allowed}} if self.allowed else {}
        total = sum(self.removed.values())
        if total:
            why = ", ".join(f"{name} {count}" for name, count in sorted(self.removed.items()))
            logger.info(
                f"      {total} of {self.read} rows share text with a benchmark and were removed ({why}): {REPORT}"
            )
        found = {
            "rows": self.read, "removed": total, "by_benchmark": dict(sorted(self.removed.items())),
            "benchmarks": dict(sorted(self.index.sizes.items())), "allowed": self.allowed,
        }  # fmt: skip
        return {"decontamination": found}


def _benchmark_rows(entry: BenchmarkRows, sandbox: SandboxSettings) -> Iterator[dict[str, Any]]:
    """All rows of a benchmark as they are, whatever the recipe's `limit`."""
    from alignment.evaluation import catalogue
    from alignment.evaluation.benchmark_request import BenchmarkRequest

    request = BenchmarkRequest(benchmark=entry.benchmark, name=entry.name, data=entry.data, sandbox=sandbox)
    try:
        problems = catalogue.load(request).problems
    except ValueError as error:
        raise ValueError(
            f"{error}\n  Training data is held against this benchmark. Get its rows, or give its entry `allow_overlap` "
            "with the reason why that is not needed."
        ) from None
    for problem in problems:
        yield problem.row
