"""Do our verdicts agree with the published ones?

    python -m alignment.grading.agreement                              # all benchmarks of the data folder
    python -m alignment.grading.agreement --only humaneval mbpp        # some
    python -m alignment.grading.agreement --only cpp --sample 20       # a seeded part of a language
    python -m alignment.grading.agreement --published DIR --json       # completions of another model

The data folder is ``$ALIGN_DATA_DIR`` (default ``../shared/data``): benchmarks, and completions with the verdicts
published with them. A folder of published verdicts has ``humaneval.results.json``, ``mbpp.results.json`` (EvalPlus)
and ``multipl_e/LANG.json`` (qwencoder-eval), or some of them. Prints, for every benchmark, the share of equal verdicts
and each disagreement with the reason we give.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from alignment.grading import benchmark_tasks
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
PUBLISHED = "published/qwen2.5-coder-1.5b"
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
    left_out: tuple[str, ...] = ()
    """Inputs for which the reference solution gives no value that could be compared; the task is judged by the others."""

    @property
    def percent(self) -> float:
        return 100.0 * self.agreed / self.compared if self.compared else 0.0


def data_folder() -> Path:
    """The folder with benchmarks and published verdicts. Raises ValueError where it is absent."""
    folder = Path(os.environ.get("ALIGN_DATA_DIR", "../shared/data"))
    if not (folder / "benchmarks").is_dir():
        raise ValueError(f"no benchmarks under {folder.resolve()}: set ALIGN_DATA_DIR to the folder that has them")
    return folder


Compared = tuple[str, bool, str, Verdict, bool]
"""Task, published verdict, its text, ours, whether it passed."""


def _compared(name: str, rows: Sequence[Compared]) -> Agreement:
    different = [
        Disagreement(task, f"{'passed' if theirs else 'failed'}: {text[:200]}", "passed" if ours else "failed",
                     f"{verdict.status}/{verdict.reason}: {verdict.detail[:200]}")
        for task, theirs, text, verdict, ours in rows if theirs != ours
    ]  # fmt: skip
    return Agreement(name, len(rows), len(rows) - len(different), tuple(different))


def canonical(folder: Path, grader: Grader) -> Iterator[Agreement]:
    """The benchmarks' own solutions, which should all pass."""
    he = benchmark_tasks.read_rows(folder / "benchmarks/HumanEval.jsonl.gz")
    pairs = [(benchmark_tasks.humaneval(row), row["prompt"] + row["canonical_solution"]) for row in he]
    yield _own("humaneval: own solutions", pairs, grader)
    mbpp = benchmark_tasks.read_rows(folder / "benchmarks/mbpp.jsonl")
    yield _own("mbpp: own solutions", [(benchmark_tasks.mbpp(row), row["code"]) for row in mbpp], grader)
    for name, file in (("humaneval+", "HumanEvalPlus.jsonl.gz"), ("mbpp+", "MbppPlus-v0.1.0.jsonl")):
        rows = benchmark_tasks.plus_rows(folder / "benchmarks" / file)
        tasks, left_out = plus_tasks(rows, name, grader)
        pairs = [
            (tasks[row["task_id"]], row["prompt"] + row["canonical_solution"])
            for row in rows
            if row["task_id"] in tasks
        ]
        own = _own(f"{name}: own solutions ({len(tasks)} of {len(rows)} give expected values)", pairs, grader)
        yield replace(own, left_out=left_out)


def _own(name: str, pairs: list[tuple[dict[str, Any], str]], grader: Grader) -> Agreement:
    verdicts = grader.grade_many(pairs)
    rows = [
        (task["id"], True, "own solution", verdict, verdict.status == "passed")
        for (task, _), verdict in zip(pairs, verdicts, strict=True)
    ]
    return _compared(name, rows)


def plus_tasks(
    rows: list[dict[str, Any]], name: str, grader: Grader
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Tasks of HumanEval+ or MBPP+, base inputs first, and what was left out: the added inputs for which the reference
    solution gives no value, and the tasks with such an input among their own."""
    tasks, left_out = {}, []
    for row in rows:
        inputs = [*row["base_input"], *row["plus_input"]]
        program = row["prompt"] + row["canonical_solution"]
        said = grader.outputs(program, row["entry_point"], [(case, {}) for case in inputs])
        missing = [number for number, message in enumerate(said) if "value" not in message]
        left_out += [f"{name} {row['task_id']} input {at + 1} of {len(inputs)}: {said[at]}"[:300] for at in missing]
        if not any(number < len(row["base_input"]) for number in missing):
            told = [(case, message["value"]) for case, message in zip(inputs, said, strict=True) if "value" in message]
            cases, expected = [case for case, _ in told], [value for _, value in told]
            tasks[row["task_id"]] = benchmark_tasks.plus_task(row, cases, expected, name)
    return tasks, tuple(left_out)


def plus(folder: Path, published: Path, grader: Grader, name: str, file: str) -> Iterator[Agreement]:
    """Base and plus verdicts of HumanEval+ or MBPP+."""
    told = json.loads(published.read_text(encoding="utf-8"))["eval"]
    rows = [row for row in benchmark_tasks.plus_rows(folder / "benchmarks" / file) if row["task_id"] in told]
    tasks, left_out = plus_tasks(rows, name, grader)
    base = {row["task_id"]: len(row["base_input"]) for row in rows}
    samples = [(key, sample) for key in sorted(tasks) for sample in told[key]]
    verdicts = grader.grade_many([(tasks[key], sample["solution"]) for key, sample in samples])
    compared: dict[str, list[Compared]] = {"base": [], "plus": []}
    for (key, sample), verdict in zip(samples, verdicts, strict=True):
        ours_base = verdict.status != "error" and all(test.passed for test in verdict.tests[: base[key]])
        both = sample["base_status"] == sample["plus_status"] == "pass"
        compared["base"].append((key, sample["base_status"] == "pass", sample["base_status"], verdict, ours_base))
        compared["plus"].append((key, both, str(sample["plus_status"]), verdict, verdict.status == "passed"))
    yield _compared(f"{name}: published base", compared["base"])
    yield replace(_compared(f"{name}: published plus", compared["plus"]), left_out=left_out)


def multipl_e(published: Path, grader: Grader, short: str, sample: int | None) -> Agreement:
    """Whole programs of MultiPL-E in one language."""
    told = json.loads(published.read_text(encoding="utf-8"))
    names = sorted(told)
    if sample is not None and sample < len(names):
        names = sorted(random.Random(0).sample(names, sample))
    tests = benchmark_tasks.multipl_e_tests(short)
    work = [(name, entry) for name in names for _, entry in told[name]]
    pairs = []
    for name, entry in work:
        task = {"id": name, "language": LANGUAGES[short], "kind": "program", "tests": tests, "entry_point": None}
        pairs.append((task, entry["code"]))
    rows: list[Compared] = [
        (name, entry["passed"], entry["result"], verdict, verdict.status == "passed")
        for (name, entry), verdict in zip(work, grader.grade_many(pairs), strict=True)
    ]
    return _compared(f"multipl-e {short}", rows)


PLUS = {"humaneval": "HumanEvalPlus.jsonl.gz", "mbpp": "MbppPlus-v0.1.0.jsonl"}


def run(
    folder: Path, published: Path, only: Sequence[str], sample: int | None, workers: int | None
) -> Iterator[Agreement]:
    """The comparisons named, one after the other; what `published` has no verdicts of is left out, and said."""
    with Grader(workers, LIMITS, hidden=ABSENT) as grader:
        for name in only:
            file = published / (f"{name}.results.json" if name in PLUS else f"multipl_e/{name}.json")
            if name == "canonical":
                yield from canonical(folder, grader)
            elif not file.is_file():
                print(f"{name}: no published verdicts ({file} is not there)", file=sys.stderr)
            elif name in PLUS:
                yield from plus(folder, file, grader, f"{name}+", PLUS[name])
            else:
                yield multipl_e(file, grader, name, sample)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare our verdicts with published ones.")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument(
        "--sample", type=int, help="only so many programs of each MultiPL-E language, drawn with a fixed seed"
    )
    parser.add_argument("--published", type=Path, metavar="DIR", help="verdicts published with another model")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    try:
        folder = data_folder()
        published = arguments.published or folder / PUBLISHED
        if not published.is_dir():
            raise ValueError(f"no folder {published}: --published names the folder of published verdicts")
    except ValueError as error:
        sys.exit(str(error))
    found = []
    for agreement in run(folder, published, arguments.only, arguments.sample, arguments.workers):
        found.append({**asdict(agreement), "percent": agreement.percent})
        if not arguments.json:
            print(
                f"{agreement.benchmark}: {agreement.agreed} of {agreement.compared} ({agreement.percent:.2f}%)",
                flush=True,
            )
            for item in agreement.disagreements:
                print(f"  {item.task}: published {item.published!r}, ours {item.ours} ({item.reason!r})", flush=True)
            for line in agreement.left_out:
                print(f"  left out: {line}", flush=True)
    if arguments.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
