"""EvalPlus's rows as tasks, with the expected values that its reference solutions return.

EvalPlus publishes inputs and reference solutions; the outputs are computed here, once, in the sandbox, and kept in the
cache (`expected/` beside the benchmarks). How values are compared is `alignment.grading`'s business.
"""

from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from alignment.evaluation.home import cache_folder
from alignment.evaluation.problem import Row
from alignment.evaluation.store import digest

logger = logging.getLogger(__name__)


def evalplus_tasks(rows: list[Row], dataset: str, *, plus: bool) -> dict[str, Row]:
    """Tasks by id; `plus` adds the extended inputs to those of the original benchmark.

    An input for which the reference solution gives no value is left out, with a warning.
    """
    from alignment.grading.benchmarks import plus_task

    expected = _expected(rows)
    tasks: dict[str, Row] = {}
    for row in rows:
        inputs = [*row["base_input"], *(row["plus_input"] if plus else [])]
        values = expected[row["task_id"]][: len(inputs)]
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


def _expected(rows: list[Row]) -> dict[str, list[dict[str, Any]]]:
    """What the reference solutions return, in the grader's wire form, base inputs first."""
    folder = cache_folder() / "expected"
    found: dict[str, list[dict[str, Any]]] = {}
    missing: list[tuple[Row, Path]] = []
    for row in rows:
        written = (repr(row["base_input"]), repr(row["plus_input"]))
        path = folder / f"{digest(row['task_id'], row['prompt'], row['canonical_solution'], *written)}.json"
        if path.exists():
            found[row["task_id"]] = json.loads(path.read_text())
        else:
            missing.append((row, path))
    if missing:
        from alignment.grading import Grader, Limits

        folder.mkdir(parents=True, exist_ok=True)
        limits = Limits(cpu_seconds=60, wall_seconds=60, memory_bytes=4 << 30, reply_bytes=512 << 20)
        with Grader(limits=limits) as grader, ThreadPoolExecutor(grader.workers) as threads:

            def compute(item: tuple[Row, Path]) -> None:
                row, path = item
                inputs = [*row["base_input"], *row["plus_input"]]
                program = row["prompt"] + row["canonical_solution"]
                values = grader.outputs(program, row["entry_point"], [(arguments, {}) for arguments in inputs])
                found[row["task_id"]] = values
                if any("value" not in value for value in values):
                    return  # not kept: the next start tries again
                partial = path.with_name(f"{path.name}.{os.getpid()}")
                partial.write_text(json.dumps(values))
                partial.replace(path)

            list(threads.map(compute, missing))
    return found
