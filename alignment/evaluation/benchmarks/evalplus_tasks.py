"""EvalPlus's rows as tasks, with the expected values that its reference solutions return.

EvalPlus publishes inputs and reference solutions; the outputs are computed here, once, in the sandbox, and kept in the
cache (`expected/` beside the benchmarks). How values are compared is `alignment.grading`'s business.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alignment.evaluation.benchmark_files import cache_folder
from alignment.evaluation.problem import Row
from alignment.evaluation.store import digest
from alignment.grading import Grader, Limits, SandboxSettings
from alignment.grading.benchmark_tasks import plus_task
from alignment.grading.python import CallOutput

logger = logging.getLogger(__name__)
REFERENCES = 2
"""Raised when reference solutions may return other values than before: 2 came with one hash seed for all programs."""
FINAL = ("memory", "output_limit")
"""Why an input has no expected value, whatever machine it is computed on."""


def evalplus_tasks(rows: list[Row], dataset: str, *, plus: bool, sandbox: SandboxSettings) -> dict[str, Row]:
    """Tasks by id; `plus` adds the extended inputs to those of the original benchmark.

    An input for which the reference solution gives no value is left out, with a warning. Two of MBPP+ are, both of Mbpp/255:
    their answers have 128 and 6 million items, more than the 64 MB that one value may take.
    """
    keys = ("base_input", "plus_input") if plus else ("base_input",)
    expected = {key: _expected(rows, key, sandbox) for key in keys}
    tasks: dict[str, Row] = {}
    for row in rows:
        inputs = [case for key in keys for case in row[key]]
        values = [value for key in keys for value in expected[key][row["task_id"]]]
        told = [(case, value["value"]) for case, value in zip(inputs, values, strict=True) if "value" in value]
        if len(told) < len(inputs):
            problem = next(value for value in values if "value" not in value)
            logger.warning(
                "%s: its reference solution gives no value for %d of %d inputs (%s): they are left out",
                row["task_id"], len(inputs) - len(told), len(inputs), str(problem)[:200],
            )  # fmt: skip
        if not told:
            raise ValueError(f"{row['task_id']}: its own reference solution gives no value for any input")
        cases, results = [case for case, _ in told], [value for _, value in told]
        tasks[row["task_id"]] = plus_task(row, cases, results, dataset + "+")
    return tasks


def _expected(rows: list[Row], key: str, sandbox: SandboxSettings) -> dict[str, list[CallOutput]]:
    """What the reference solutions return for the inputs under `key`, in the grader's wire form.

    Kept by a hash of program and inputs, outside of what a program in the sandbox can see.
    """
    folder = cache_folder() / "expected"
    found: dict[str, list[CallOutput]] = {}
    missing: list[tuple[Row, Path]] = []
    for row in rows:
        program = row["prompt"] + row["canonical_solution"]
        path = folder / f"{digest(REFERENCES, program, row['entry_point'], repr(row[key]))}.json.gz"
        known = _kept(path)
        if known is not None and len(known) == len(row[key]):
            found[row["task_id"]] = known
        else:
            missing.append((row, path))
    if missing:
        logger.info("computing what the reference solutions of %d tasks return, once", len(missing))
        folder.mkdir(parents=True, exist_ok=True)
        limits = Limits(cpu_seconds=60, wall_seconds=60, memory_bytes=4 << 30, reply_bytes=512 << 20)
        local = Grader(limits=limits, allow_weaker=sandbox.allow_weaker)  # a service gives verdicts, not values
        with local as grader, ThreadPoolExecutor(grader.workers) as threads:

            def compute(item: tuple[Row, Path]) -> None:
                row, path = item
                program = row["prompt"] + row["canonical_solution"]
                values = grader.outputs(program, row["entry_point"], [(arguments, {}) for arguments in row[key]])
                found[row["task_id"]] = values
                # What ran out of time is not kept, the next start tries again; what is too large will be so again.
                if all("value" in value or value["reason"] in FINAL for value in values):
                    _keep(path, values)

            list(threads.map(compute, missing))
    return found


def _kept(path: Path) -> list[CallOutput] | None:
    """Values from the cache; None where there are none, or where the file is damaged."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            values = json.load(file)
    except (OSError, EOFError, zlib.error, ValueError):
        return None
    return values if isinstance(values, list) else None


def _keep(path: Path, values: list[CallOutput]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with gzip.open(partial, "wt", compresslevel=1, encoding="ascii") as file:
        file.write(json.dumps(values))
    partial.replace(path)
