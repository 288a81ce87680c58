"""Compare this toolkit's verdicts with published verdicts on the same programs.

    python -m benchmarks verdict-agreement                              # all benchmarks
    python -m benchmarks verdict-agreement --only humaneval mbpp        # some
    python -m benchmarks verdict-agreement --only cpp --sample 20       # a seeded sample of a language
    python -m benchmarks verdict-agreement --published DIR --json       # completions of another model

For each benchmark the command prints the share of equal verdicts, and every different verdict with this toolkit's
reason. `canonical` grades the benchmarks' reference solutions, which should all pass. A folder of published verdicts
contains `humaneval.results.json` and `mbpp.results.json` (EvalPlus) and `multipl_e/LANG.json` (qwencoder-eval), or some
of these.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from alignment.evaluation.benchmarks.evalplus import with_types
from alignment.grading import Grader, Limits, TaskRow, Verdict, benchmark_tasks
from alignment.rows.reading import read_rows

LANGUAGES = {
    "cpp": "cpp",
    "cs": "csharp",
    "java": "java",
    "js": "javascript",
    "php": "php",
    "sh": "bash",
    "ts": "typescript",
}
"""Name of a language in MultiPL-E -> name of the toolchain."""
PLUS_FILES = {"humaneval": "HumanEvalPlus.jsonl.gz", "mbpp": "MbppPlus-v0.1.0.jsonl"}
PUBLISHED = "published/qwen2.5-coder-1.5b"
NAMES = ("canonical", *PLUS_FILES, *LANGUAGES)
LIMITS = Limits(cpu_seconds=30, wall_seconds=30, memory_bytes=4 << 30, reply_bytes=512 << 20)
ABSENT = ("/usr/bin/bc",)
"""Programs to hide. The image in which MultiPL-E's published verdicts were made lacks them, as the messages of these
verdicts show ("bc: command not found")."""


@dataclass(frozen=True)
class Disagreement:
    """A program for which this toolkit's verdict differs from the published verdict."""

    task: str
    published: str
    ours: str
    reason: str


@dataclass(frozen=True)
class Agreement:
    """Result of comparing the verdicts of one benchmark."""

    benchmark: str
    compared: int
    agreed: int
    disagreements: tuple[Disagreement, ...]
    left_out: tuple[str, ...] = ()
    """Inputs for which the reference solution returns no value. The task is judged by its other inputs."""

    @property
    def percent(self) -> float:
        """The share of equal verdicts in percent."""
        return 100.0 * self.agreed / self.compared if self.compared else 0.0


@dataclass(frozen=True)
class ComparedProgram:
    """A program with the published verdict and this toolkit's verdict."""

    task: str
    published_passed: bool
    published_text: str
    verdict: Verdict
    passed: bool
    """Whether the program passed in this toolkit. If only base inputs are compared, the results for all other inputs
    are ignored."""


def agreement(benchmark: str, comparisons: Sequence[ComparedProgram]) -> Agreement:
    """Count equal verdicts, and list the different verdicts."""
    different = [
        Disagreement(
            task=item.task,
            published=f"{'passed' if item.published_passed else 'failed'}: {item.published_text[:200]}",
            ours="passed" if item.passed else "failed",
            reason=f"{item.verdict.status}/{item.verdict.reason}: {item.verdict.detail[:200]}",
        )
        for item in comparisons
        if item.published_passed != item.passed
    ]
    return Agreement(benchmark, len(comparisons), len(comparisons) - len(different), tuple(different))


def canonical(folder: Path, grader: Grader) -> Iterator[Agreement]:
    """Grade the benchmarks' reference solutions. `folder` contains the benchmarks."""
    rows = read_rows(folder / "HumanEval.jsonl.gz")
    pairs = [(benchmark_tasks.humaneval(row), row["prompt"] + row["canonical_solution"]) for row in rows]
    yield _own_solutions("humaneval: own solutions", pairs, grader)
    rows = read_rows(folder / "mbpp.jsonl")
    yield _own_solutions("mbpp: own solutions", [(benchmark_tasks.mbpp(row), row["code"]) for row in rows], grader)
    for name, file in PLUS_FILES.items():
        rows = [with_types(row) for row in read_rows(folder / file)]
        tasks, left_out = plus_tasks(rows, f"{name}+", grader)
        pairs = [
            (tasks[row["task_id"]], row["prompt"] + row["canonical_solution"])
            for row in rows
            if row["task_id"] in tasks
        ]
        title = f"{name}+: own solutions ({len(tasks)} of {len(rows)} give expected values)"
        yield replace(_own_solutions(title, pairs, grader), left_out=left_out)


def _own_solutions(title: str, pairs: Sequence[tuple[TaskRow, str]], grader: Grader) -> Agreement:
    verdicts = grader.grade_many(pairs)
    comparisons = [
        ComparedProgram(str(task["id"]), True, "own solution", verdict, verdict.status == "passed")
        for (task, _), verdict in zip(pairs, verdicts, strict=True)
    ]
    return agreement(title, comparisons)


def plus_tasks(
    rows: Sequence[Mapping[str, Any]], name: str, grader: Grader
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Turn rows of HumanEval+ or MBPP+ into tasks, with base inputs first.

    Returns:
        The tasks by id, and a line of text for each input for which the reference solution returns no value. A task is
        skipped if this happens for one of its base inputs.
    """
    tasks, left_out = {}, []
    for row in rows:
        inputs = [*row["base_input"], *row["plus_input"]]
        program = row["prompt"] + row["canonical_solution"]
        outputs = grader.outputs(program, row["entry_point"], [(case, {}) for case in inputs])
        missing = [number for number, output in enumerate(outputs) if "value" not in output]
        left_out += [f"{name} {row['task_id']} input {at + 1} of {len(inputs)}: {outputs[at]}"[:300] for at in missing]
        if not any(number < len(row["base_input"]) for number in missing):
            known = [(case, output["value"]) for case, output in zip(inputs, outputs, strict=True) if "value" in output]
            cases, expected = [case for case, _ in known], [value for _, value in known]
            tasks[row["task_id"]] = benchmark_tasks.plus_task(row, cases, expected, name)
    return tasks, tuple(left_out)


def plus(benchmark: Path, published: Path, name: str, grader: Grader) -> Iterator[Agreement]:
    """Compare base and plus verdicts of HumanEval+ or MBPP+.

    Args:
        benchmark: the file of EvalPlus's rows.
        published: the file of EvalPlus's results.
        name: `humaneval+` or `mbpp+`.
        grader: grader that runs the programs.
    """
    results = json.loads(published.read_text(encoding="utf-8"))["eval"]
    rows = [with_types(row) for row in read_rows(benchmark) if row["task_id"] in results]
    tasks, left_out = plus_tasks(rows, name, grader)
    base_inputs = {row["task_id"]: len(row["base_input"]) for row in rows}
    samples = [(key, sample) for key in sorted(tasks) for sample in results[key]]
    verdicts = grader.grade_many([(tasks[key], sample["solution"]) for key, sample in samples])
    base: list[ComparedProgram] = []
    extended: list[ComparedProgram] = []
    for (key, sample), verdict in zip(samples, verdicts, strict=True):
        base_status, plus_status = sample["base_status"], sample["plus_status"]
        base_passed = verdict.status != "error" and all(test.passed for test in verdict.tests[: base_inputs[key]])
        both = base_status == plus_status == "pass"
        base.append(ComparedProgram(key, base_status == "pass", base_status, verdict, base_passed))
        extended.append(ComparedProgram(key, both, str(plus_status), verdict, verdict.status == "passed"))
    yield agreement(f"{name}: published base", base)
    yield replace(agreement(f"{name}: published plus", extended), left_out=left_out)


def multipl_e(published: Path, grader: Grader, short: str, sample: int | None) -> Agreement:
    """Compare verdicts on the complete programs of MultiPL-E in one language.

    Args:
        published: the file of qwencoder-eval's results.
        grader: grader that runs the programs.
        short: the language, a key of `LANGUAGES`.
        sample: number of tasks to draw, with a fixed seed. None for all tasks.
    """
    results = json.loads(published.read_text(encoding="utf-8"))
    names = sorted(results)
    if sample is not None and sample < len(names):
        names = sorted(random.Random(0).sample(names, sample))
    tests = benchmark_tasks.multipl_e_tests(short)
    entries = [(name, entry) for name in names for _, entry in results[name]]
    task = {"language": LANGUAGES[short], "kind": "program", "tests": tests, "entry_point": None}
    verdicts = grader.grade_many([(task | {"id": name}, entry["code"]) for name, entry in entries])
    comparisons = [
        ComparedProgram(name, entry["passed"], entry["result"], verdict, verdict.status == "passed")
        for (name, entry), verdict in zip(entries, verdicts, strict=True)
    ]
    return agreement(f"multipl-e {short}", comparisons)


def compare(
    data: Path, published: Path, only: Sequence[str], sample: int | None, grader: Grader
) -> Iterator[Agreement]:
    """Yield the comparisons that `only` names.

    Skip benchmarks without published verdicts, and print a note on stderr for each of them.
    """
    for name in only:
        file = published / (f"{name}.results.json" if name in PLUS_FILES else f"multipl_e/{name}.json")
        if name == "canonical":
            yield from canonical(data / "benchmarks", grader)
        elif not file.is_file():
            print(f"{name}: no published verdicts ({file} does not exist)", file=sys.stderr)
        elif name in PLUS_FILES:
            yield from plus(data / "benchmarks" / PLUS_FILES[name], file, f"{name}+", grader)
        else:
            yield multipl_e(file, grader, name, sample)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks verdict-agreement", description="Compare verdicts with published ones."
    )
    data = os.environ.get("ALIGN_DATA_DIR")
    parser.add_argument(
        "--data", type=Path, default=Path(data) if data else None, metavar="DIR",
        help="folder with `benchmarks/` and published verdicts (default: $ALIGN_DATA_DIR)",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--sample", type=int, help="tasks of each MultiPL-E language, drawn with a fixed seed")
    parser.add_argument("--published", type=Path, metavar="DIR", help=f"published verdicts (default: DATA/{PUBLISHED})")
    parser.add_argument("--workers", type=int, help="programs at a time (default: one per core)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    if options.data is None or not (options.data / "benchmarks").is_dir():
        parser.error(
            f"{options.data or '--data'} has no folder `benchmarks`: name the data with --data or ALIGN_DATA_DIR"
        )
    published = options.published or options.data / PUBLISHED
    if not published.is_dir():
        parser.error(f"there is no folder {published}: name the published verdicts with --published")
    results = []
    with Grader(options.workers, LIMITS, hidden=ABSENT) as grader:
        for result in compare(options.data, published, options.only, options.sample, grader):
            results.append({**asdict(result), "percent": result.percent})
            if not options.json:
                _print(result)
    if options.json:
        print(json.dumps(results, indent=1))
    return 0


def _print(result: Agreement) -> None:
    print(f"{result.benchmark}: {result.agreed} of {result.compared} ({result.percent:.2f}%)", flush=True)
    for item in result.disagreements:
        print(f"  {item.task}: published {item.published!r}, here {item.ours} ({item.reason!r})", flush=True)
    for line in result.left_out:
        print(f"  left out: {line}", flush=True)
