"""Turn rows of EvalPlus into tasks, with expected values computed by the reference solutions.

EvalPlus publishes inputs and reference solutions, but no expected values. They are computed once in the sandbox, and
cached in the folder `expected` of the benchmark cache. `alignment.grading` defines how values are compared.
"""

from __future__ import annotations

import gzip
import json
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
from alignment.logs import get_logger
from alignment.progress import results

logger = get_logger(__name__)
EXPECTED_VERSION = 2
"""Version of the expected values, which is part of their cache key.

Increase this number when the same reference solutions may return different values. Version 2 came with a fixed hash
seed for all programs.
"""
FINAL_REASONS = ("memory", "output_limit")
"""Reasons for a missing expected value that do not depend on the machine. Only these results are cached."""


def evalplus_tasks(rows: list[Row], dataset: str, *, plus: bool, sandbox: SandboxSettings) -> dict[str, Row]:
    """Return a mapping: task id -> task, for rows of EvalPlus.

    An input for which the reference solution returns no value is dropped with a warning. In MBPP+ these are two inputs
    of Mbpp/255: their values have 128 and 6 million items, more than the 64 MB that one value may take.

    Args:
        rows: rows of EvalPlus.
        dataset: `humaneval` or `mbpp`.
        plus: whether to use the additional inputs besides the inputs of the original benchmark.
        sandbox: how the reference solutions run.

    Raises:
        ValueError: a reference solution returns no value for any input.
    """
    keys = ("base_input", "plus_input") if plus else ("base_input",)
    expected = {key: _expected(rows, key, sandbox) for key in keys}
    tasks: dict[str, Row] = {}
    for row in rows:
        inputs = [case for key in keys for case in row[key]]
        outputs = [output for key in keys for output in expected[key][row["task_id"]]]
        cases = [(case, output["value"]) for case, output in zip(inputs, outputs, strict=True) if "value" in output]
        if len(cases) < len(inputs):
            problem = next(output for output in outputs if "value" not in output)
            logger.warning(
                "%s: the reference solution returns no value for %d of %d inputs (%s): these inputs are dropped",
                row["task_id"], len(inputs) - len(cases), len(inputs), str(problem)[:200],
            )  # fmt: skip
        if not cases:
            raise ValueError(
                f"{row['task_id']}: the reference solution returns no value for any input: check the row's "
                "`canonical_solution` and that the sandbox works (`align doctor`)"
            )
        values = [value for _, value in cases]
        tasks[row["task_id"]] = plus_task(row, [case for case, _ in cases], values, dataset + "+")
    return tasks


def _expected(rows: list[Row], key: str, sandbox: SandboxSettings) -> dict[str, list[CallOutput]]:
    """Return the outputs of the reference solutions by task id, in the encoding of the grader.

    The inputs are those in the column `key`. The cache key is a hash of program and inputs. Programs in the sandbox
    can't see the cache.
    """
    folder = cache_folder() / "expected"
    outputs: dict[str, list[CallOutput]] = {}
    missing: list[tuple[Row, Path]] = []
    for row in rows:
        program = row["prompt"] + row["canonical_solution"]
        path = folder / f"{digest(EXPECTED_VERSION, program, row['entry_point'], repr(row[key]))}.json.gz"
        cached = _read_cached(path)
        if cached is not None and len(cached) == len(row[key]):
            outputs[row["task_id"]] = cached
        else:
            missing.append((row, path))
    if missing:
        logger.info("computing the expected values of %d tasks with their reference solutions", len(missing))
        folder.mkdir(parents=True, exist_ok=True)
        limits = Limits(cpu_seconds=60, wall_seconds=60, memory_bytes=4 << 30, reply_bytes=512 << 20)
        # Values are computed on this machine even if the recipe names a grading service, which returns no values.
        local = Grader(limits=limits, allow_weaker=sandbox.allow_weaker)
        with local as grader, ThreadPoolExecutor(grader.workers) as threads:

            def compute(item: tuple[Row, Path]) -> None:
                row, path = item
                program = row["prompt"] + row["canonical_solution"]
                values = grader.outputs(program, row["entry_point"], [(arguments, {}) for arguments in row[key]])
                outputs[row["task_id"]] = values
                # After a timeout nothing is cached, and the next start tries again. A value that is too large is final.
                if all("value" in value or value["reason"] in FINAL_REASONS for value in values):
                    _write_cached(path, values)

            results([threads.submit(compute, item) for item in missing], "expected values", "tasks")
    return outputs


def _read_cached(path: Path) -> list[CallOutput] | None:
    """Read outputs from the cache. Return None if the file is missing or damaged."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            values = json.load(file)
    except (OSError, EOFError, zlib.error, ValueError):
        return None
    return values if isinstance(values, list) else None


def _write_cached(path: Path, values: list[CallOutput]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with gzip.open(partial, "wt", compresslevel=1, encoding="ascii") as file:
        file.write(json.dumps(values))
    partial.replace(path)
