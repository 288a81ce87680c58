"""Do our verdicts agree with the published ones?

    python -m alignment.grading.agreement                              # all benchmarks of the data folder, all
    languages python -m alignment.grading.agreement --only humaneval mbpp        # some python -m
    alignment.grading.agreement --only cpp --sample 20       # a seeded part of a language python -m
    alignment.grading.agreement --json

The data folder is ``$ALIGN_DATA_DIR`` (default ``../shared/data``): benchmarks, and completions with the verdicts
published with them. Prints, for every benchmark, the share of equal verdicts and each disagreement with the reason we
give.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment.grading import benchmarks
from alignment.grading.grader import Grader
from alignment.grading.verdict import Verdict
from alignment.sandbox.limits import Limits

LANGUAGES = {
    "cpp": "cpp",
    "cs": "csharp",
    "java": "java",
    "js": "javascript",
    "php": "php",
    "sh": "bash",
    "ts": "typescript",
}
NAMES = ("canonical", "humaneval", "mbpp", *LANGUAGES)
LIMITS = Limits(cpu_seconds=30, wall_seconds=30, memory_bytes=4 << 30, reply_bytes=512 << 20)
ABSENT = ("/usr/bin/bc",)
"""Not in the image that MultiPL-E's published verdicts were made in, as their messages show ("bc: command not
found")."""


@dataclass(frozen=True)
class Disagreement:
    task: str
    published: str
    ours: str
    reason: str


@dataclass(frozen=True)
class Agreement:
    benchmark: str
    compared: int
    agreed: int
    disagreements: tuple[Disagreement, ...]

    @property
    def percent(self) -> float:
        return 100.0 * self.agreed / self.compared if self.compared else 0.0


def data_folder() -> Path:
    """The folder with benchmarks and published verdicts. Raises ValueError where it is absent."""
    folder = Path(os.environ.get("ALIGN_DATA_DIR", "../shared/data"))
    if not (folder / "benchmarks").is_dir():
        raise ValueError(f"no benchmarks under {folder.resolve()}: set ALIGN_DATA_DIR to the folder that has them")
    return folder


def _compared(name: str, rows: Sequence[tuple[str, bool, str, Verdict | None, bool]]) -> Agreement:
    """rows: task, published verdict, its text, ours, whether it passed."""
    different = [
        Disagreement(task, f"{'passed' if theirs else 'failed'}: {text[:200]}", "passed" if ours else "failed",
                     f"{verdict.status}/{verdict.reason}: {verdict.detail[:200]}" if verdict else "")
        for task, theirs, text, verdict, ours in rows if theirs != ours
    ]  # fmt: skip
    return Agreement(name, len(rows), len(rows) - len(different), tuple(different))


def canonical(folder: Path, grader: Grader) -> Iterator[Agreement]:
    """The benchmarks' own solutions, which should all pass."""
    he = benchmarks.read_rows(folder / "benchmarks/HumanEval.jsonl.gz")
    pairs = [(benchmarks.humaneval(row), row["prompt"] + row["canonical_solution"]) for row in he]
    yield _own("humaneval: own solutions", pairs, grader)
    mbpp = benchmarks.read_rows(folder / "benchmarks/mbpp.jsonl")
    yield _own("mbpp: own solutions", [(benchmarks.mbpp(row), row["code"]) for row in mbpp], grader)
    for name, file in (("humaneval+", "HumanEvalPlus.jsonl.gz"), ("mbpp+", "MbppPlus-v0.1.0.jsonl")):
        rows = benchmarks.plus_rows(folder / "benchmarks" / file)
        tasks = plus_tasks(rows, name, grader)
        pairs = [
            (tasks[row["task_id"]], row["prompt"] + row["canonical_solution"])
            for row in rows
            if row["task_id"] in tasks
        ]
        yield _own(f"{name}: own solutions ({len(tasks)} of {len(rows)} give expected values)", pairs, grader)


def _own(name: str, pairs: list[tuple[dict[str, Any], str]], grader: Grader) -> Agreement:
    verdicts = grader.grade_many(pairs)
    rows = [
        (task["id"], True, "own solution", verdict, verdict.status == "passed")
        for (task, _), verdict in zip(pairs, verdicts, strict=True)
    ]
    return _compared(name, rows)


def plus_tasks(rows: list[dict[str, Any]], name: str, grader: Grader) -> dict[str, dict[str, Any]]:
    """Tasks of HumanEval+ or MBPP+, base inputs first; without those whose reference solution gives no value for some
    input."""
    tasks = {}
    for row in rows:
        inputs = [*row["base_input"], *row["plus_input"]]
        said = grader.outputs(
            row["prompt"] + row["canonical_solution"], row["entry_point"], [(case, {}) for case in inputs]
        )
        if all("value" in message for message in said):
            expected = [message["value"] for message in said]
            tasks[row["task_id"]] = benchmarks.plus_task(row, inputs, expected, name)
        else:
            problem = next(message for message in said if "value" not in message)
            print(f"{name} {row['task_id']}: no expected value: {problem}"[:300], file=sys.stderr)
    return tasks


def plus(folder: Path, grader: Grader, name: str, file: str, results: str) -> Iterator[Agreement]:
    """Base and plus verdicts of HumanEval+ or MBPP+."""
    rows = benchmarks.plus_rows(folder / "benchmarks" / file)
    published = json.loads((folder / "published/qwen2.5-coder-1.5b" / results).read_text())["eval"]
    tasks = plus_tasks([row for row in rows if row["task_id"] in published], name, grader)
    base = {row["task_id"]: len(row["base_input"]) for row in rows}
    names = sorted(tasks)
    verdicts = grader.grade_many([(tasks[key], published[key][0]["solution"]) for key in names])
    compared: dict[str, list[tuple[str, bool, str, Verdict | None, bool]]] = {"base": [], "plus": []}
    for key, verdict in zip(names, verdicts, strict=True):
        told = published[key][0]
        ours_base = verdict.status != "error" and all(test.passed for test in verdict.tests[: base[key]])
        both = told["base_status"] == told["plus_status"] == "pass"
        compared["base"].append((key, told["base_status"] == "pass", told["base_status"], verdict, ours_base))
        compared["plus"].append((key, both, told["plus_status"], verdict, verdict.status == "passed"))
    yield _compared(f"{name}: published base", compared["base"])
    yield _compared(f"{name}: published plus", compared["plus"])


def multipl_e(folder: Path, grader: Grader, short: str, sample: int | None) -> Agreement:
    """Whole programs of MultiPL-E in one language."""
    published = json.loads((folder / "published/qwen2.5-coder-1.5b/multipl_e" / f"{short}.json").read_text())
    names = sorted(published)
    if sample is not None and sample < len(names):
        names = sorted(random.Random(0).sample(names, sample))
    tests = json.dumps({"judge": "assertions"} if short == "cs" else {"marker": True})
    pairs = []
    for name in names:
        task = {"id": name, "language": LANGUAGES[short], "kind": "program", "tests": tests, "entry_point": None}
        pairs.append((task, published[name][0][1]["code"]))
    rows: list[tuple[str, bool, str, Verdict | None, bool]] = []
    for name, verdict in zip(names, grader.grade_many(pairs), strict=True):
        told = published[name][0][1]
        rows.append((name, told["passed"], told["result"], verdict, verdict.status == "passed"))
    return _compared(f"multipl-e {short}", rows)


def run(folder: Path, only: list[str], sample: int | None, workers: int | None) -> Iterator[Agreement]:
    """The comparisons named, one after the other."""
    with Grader(workers, LIMITS, hidden=ABSENT) as grader:
        if "canonical" in only:
            yield from canonical(folder, grader)
        if "humaneval" in only:
            yield from plus(folder, grader, "humaneval+", "HumanEvalPlus.jsonl.gz", "humaneval.results.json")
        if "mbpp" in only:
            yield from plus(folder, grader, "mbpp+", "MbppPlus-v0.1.0.jsonl", "mbpp.results.json")
        for short in LANGUAGES:
            if short in only:
                yield multipl_e(folder, grader, short, sample)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare our verdicts with published ones.")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument(
        "--sample", type=int, help="only so many programs of each MultiPL-E language, drawn with a fixed seed"
    )
    parser.add_argument("--workers", type=int)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    try:
        folder = data_folder()
    except ValueError as error:
        sys.exit(str(error))
    found = []
    for agreement in run(folder, arguments.only, arguments.sample, arguments.workers):
        found.append({**asdict(agreement), "percent": agreement.percent})
        if not arguments.json:
            print(
                f"{agreement.benchmark}: {agreement.agreed} of {agreement.compared} ({agreement.percent:.2f}%)",
                flush=True,
            )
            for item in agreement.disagreements:
                print(f"  {item.task}: published {item.published!r}, ours {item.ours} ({item.reason!r})", flush=True)
    if arguments.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
