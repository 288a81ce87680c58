"""Check executable tasks: the reference passes, an empty answer fails, and known cheats fail.

    python -m benchmarks task-checks tasks.jsonl                  # all tasks, each with all cheats
    python -m benchmarks task-checks tasks.jsonl --tasks 10       # cheats on 10 tasks, drawn with a seed
    python -m benchmarks task-checks tasks.jsonl --cold ~/git/pflag   # with the CPU time of `go test` beside it

The command reads rows of `commit_tasks` (answers are patches) and rows of `tasks` from Go modules. References and empty
answers are graded three times each. For each cheat, the command prints why it failed; a cheat that passes is named with
the task and the tier of the task, and the exit code is then 1. `--cold` measures the CPU time of one `go test -run` with
an empty build cache, on the package of the first task, in the same run as the gradings.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import secrets
import statistics
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.evaluation.answer_forms import program_of_answer, reference_answer
from alignment.grading import Grader, Limits
from alignment.grading.task import tier_of
from alignment.rows.reading import read_rows
from alignment.sandbox.toolchains import toolchain
from benchmarks.task_cheats import go_cheats, patch_cheats

REPEATS = 3
LIMITS = Limits(cpu_seconds=60, wall_seconds=120)
"""Limits for references, which may be slow on a busy machine."""
CHEAT_LIMITS = Limits(cpu_seconds=4, wall_seconds=10)


def main(arguments: Sequence[str] | None = None) -> int:
    """Grade references, empty answers and cheats. Return 1 if one of them has a wrong verdict."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks task-checks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("rows", type=Path, help="tasks.jsonl of `commit_tasks`, or of `tasks` with Go")
    parser.add_argument("--tasks", type=int, default=0, help="number of tasks for the cheats (default: all)")
    parser.add_argument("--references", type=int, default=0, help="number of tasks for the references (default: all)")
    parser.add_argument("--cold", type=Path, help="checkout of a Go module, to measure a cold `go test`")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawn tasks (default: 0)")
    parsed = parser.parse_args(arguments)
    rows = [row for row in read_rows(parsed.rows) if row.get("kind") in ("repository", "project")]
    if not rows:
        parser.error(f"{parsed.rows} has no rows of the kinds `repository` and `project`")
    with Grader(1, LIMITS) as grader:
        wrong = check_answers(grader, _drawn(rows, parsed.references, parsed.seed))
    if parsed.cold is not None:
        print(f"cold `go test`: {cold_seconds(parsed.cold, rows[0]):.2f} s of CPU")
    with Grader(1, CHEAT_LIMITS) as grader:
        wrong += check_cheats(grader, _drawn(rows, parsed.tasks, parsed.seed))
    return int(wrong > 0)


def check_answers(grader: Grader, rows: Sequence[dict[str, Any]]) -> int:
    """Grade references and empty answers three times, and print the counts. Return the number of wrong verdicts."""
    counts: Counter[str] = Counter()
    warm: list[float] = []
    for row in rows:
        reference = program_of_answer(row, reference_answer(row)) if row["kind"] == "project" else row["reference"]
        for name, program, wanted in (("reference", reference, "passed"), ("empty", "", "failed")):
            verdicts = [grader.grade_many([(row, program)])[0] for _ in range(REPEATS)]
            counts[name] += all(verdict.status == wanted for verdict in verdicts)
            if name == "reference":
                warm.append(grader.grade_many([(row, _unseen(row, reference))])[0].cpu_seconds)
            for verdict in verdicts:
                if verdict.status != wanted:
                    print(f"  {row['id']}: {name} is {verdict.status}: {verdict.reason} {verdict.detail[:200]}")
    print(
        f"{len(rows)} tasks: reference passes {REPEATS}/{REPEATS} on {counts['reference']}, empty answer fails "
        f"{REPEATS}/{REPEATS} on {counts['empty']}; median {statistics.median(warm):.2f} s of CPU for a grading of an "
        "answer that was not compiled before",
        flush=True,
    )
    return 2 * len(rows) - sum(counts.values())


def check_cheats(grader: Grader, rows: Sequence[dict[str, Any]]) -> int:
    """Grade all cheats on each row, and print why they failed. Return the number of cheats that were not failed."""
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    wins = []
    for row in rows:
        cheats = go_cheats(row) if row["kind"] == "project" else patch_cheats(row)
        for name, program in cheats.items():
            verdict = grader.grade_many([(row, program)])[0]
            reasons[name][verdict.reason if verdict.status == "failed" else verdict.status] += 1
            if verdict.status != "failed":
                wins.append(f"{name} on {row['id']} (tier {tier_of(row)}): {verdict.status} {verdict.detail[:200]}")
    width = max(map(len, reasons))
    for name, counted in reasons.items():
        print(f"  {name:{width}}  " + ", ".join(f"{reason} {count}" for reason, count in counted.most_common()))
    print(
        f"{len(reasons)} cheats on {len(rows)} tasks: {len(wins)} of {sum(map(Counter.total, reasons.values()))} not failed"
    )
    for line in wins:
        print(f"  {line}")
    return len(wins)


def cold_seconds(folder: Path, row: Mapping[str, Any]) -> float:
    """Return the CPU seconds of one `go test` of a task's tests with an empty build cache."""
    tests = json.loads(row["tests"])
    names = [name.partition("::")[2] for name in (*tests["visible"], *tests["hidden"])]
    package = folder / Path(tests["target"]["file"]).parent
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as cache:
        command = [toolchain("go").tool, "test", "-count=1", "-run", f"^({'|'.join(names)})$", "."]
        environment = {**os.environ, "GOCACHE": cache, "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
        subprocess.run(command, cwd=package, env=environment, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _unseen(row: Mapping[str, Any], reference: str) -> str:
    """Return the reference with a comment that no compiled program in the cache has. Patches are returned unchanged."""
    if row["kind"] != "project":
        return reference
    body = str(row["reference_body"])
    return reference.replace(body, f"{body}\n\t// {secrets.token_hex(8)}", 1)


def _drawn(rows: list[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    return random.Random(seed).sample(rows, count) if 0 < count < len(rows) else rows
