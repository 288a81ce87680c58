"""Open, use and close environments `repository` in a row, and do the same with `git worktree` and subprocesses.

    python -m benchmarks environments                            # 100 environments and 20 worktrees
    python -m benchmarks environments --count 2000 --tests-every 20

The repository is generated: modules, tests and data files of a middle-sized project. An environment is opened, its files are
listed, read, searched and changed, and in every Nth one the visible tests are run and the patch is graded. The baseline does
the same work without any isolation: a `git worktree` for each, `git grep`, pytest in a subprocess, `git diff`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment.environments.environment_registry import build_environment
from alignment.environments.visible_tests import split_tests
from alignment.grading import Grader
from alignment.grading.repository import STORE
from alignment.recipe.stage_parts import GrpoEnvironment
from benchmarks.sandbox_speed import children, descendants, memory_of
from data_builders.repositories.sources import resolve
from data_builders.tasks.python.python_suite import prepare_suite

WRONG, RIGHT = "return left - right", "return left + right"
MODULE = f'"""Arithmetic."""\n\n\ndef add(left, right):\n    {WRONG}\n'
TESTS = "from shop.arithmetic import add\n\n\ndef test_seen():\n    assert add(1, 2) == 3\n\n\ndef test_kept():\n    assert add(4, 5) == 9\n"
TEST_FILE = "tests/test_arithmetic.py"
BULK = "".join(f"def helper_{n}(value):\n    return value * {n}\n\n\n" for n in range(40))


def make_repository(folder: Path, modules: int) -> None:
    """Write a repository with one wrong function, and commit it."""
    files = {"shop/__init__.py": "", "shop/arithmetic.py": MODULE, TEST_FILE: TESTS}
    files |= {f"shop/part_{n % 20}/module_{n}.py": BULK for n in range(modules)}
    files |= {f"data/table_{n}.csv": "1,2,3\n" * 500 for n in range(modules // 2)}
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    for command in ("init -q", "add -A", "-c user.name=a -c user.email=a@b commit -q -m all"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)


class StepCosts:
    """Sums the wall time and the CPU time of steps, by the name of the step."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure the code of the `with` block, its ended child processes included."""
        begun = (time.perf_counter(), _cpu())
        yield
        sums = self.sums.setdefault(name, [0, 0.0, 0.0])
        sums[0] += 1
        sums[1] += time.perf_counter() - begun[0]
        sums[2] += _cpu() - begun[1]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each step: `step, count, wall_ms, cpu_ms`, both times per call."""
        return [
            {"step": name, "count": int(count), "wall_ms": round(1e3 * wall / count, 2), "cpu_ms": round(1e3 * cpu / count, 2)}
            for name, (count, wall, cpu) in self.sums.items()
        ]  # fmt: skip


def _cpu() -> float:
    """Return the CPU seconds of this process, its ended children, and the launchers with their ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(item.ru_utime + item.ru_stime for item in used)
    for launcher in children():
        for pid in (launcher, *descendants(launcher)):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(value) for value in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return total


def use_environments(count: int, tests_every: int, repository: Path, clock: StepCosts) -> dict[str, Any]:
    """Open, use and close environments one after the other.

    Returns:
        Memory of this process and of the launchers after a tenth and at the end, and what is left behind.
    """
    suite = prepare_suite(resolve([str(repository)])[0])
    tests = {"suite": suite.id, "visible": [f"{TEST_FILE}::test_seen"], "hidden": [f"{TEST_FILE}::test_kept"]}
    task = {"kind": "repository", "language": "python", "tests": json.dumps(tests)}
    visible, _ = split_tests(task, 0.5)
    mounts, files = Path("/proc/self/mounts").read_text(), {path.name for path in Path("/tmp").iterdir()}
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    figures: dict[str, Any] = {"environments": count}
    begun = time.perf_counter()
    with Grader(1) as grader:
        make = build_environment(GrpoEnvironment(name="repository"), grader)
        for number in range(count):
            with clock.step("open and reset"):
                made: Any = make()
                made.reset(visible_tests=visible)
            with clock.step("list, read, search"):
                assert "shop/arithmetic.py" in made.list_files(folder="shop")
                assert WRONG in made.read_file(path="shop/arithmetic.py")
                assert "arithmetic.py:5" in made.search(pattern=WRONG)
            with clock.step("edit"):
                made.edit_file(path="shop/arithmetic.py", search=WRONG, replace=RIGHT)
            if number % tests_every == 0:
                with clock.step("run the tests"):
                    assert made.run_tests() == "1 of 1 visible tests pass."
            with clock.step("patch and close"):
                patch = made.outcome.submission
                assert made.outcome.problem is None
                del made
            if number % tests_every == 0:
                with clock.step("grade"):
                    assert grader.grade_many([(task, patch)])[0].status == "passed"
            if number == count // 10:
                figures["memory_mb_after_a_tenth"] = _memory()
        figures["per_second"] = round(count / (time.perf_counter() - begun), 1)
        figures["memory_mb_at_the_end"] = _memory()
        pids = [pid for launcher in children() for pid in (launcher, *descendants(launcher))]
    deadline = time.monotonic() + 10  # the kernel needs some time to remove namespaces
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    figures["processes_left"] = sum(Path(f"/proc/{pid}").exists() for pid in pids) + len(children())
    figures["mounts_changed"] = Path("/proc/self/mounts").read_text() != mounts
    figures["files_left"] = sorted({path.name for path in Path("/tmp").iterdir()} - files)
    figures["descriptors_left"] = len(list(Path("/proc/self/fd").iterdir())) - descriptors
    return figures


def _memory() -> float:
    return round(memory_of([os.getpid(), *(pid for top in children() for pid in (top, *descendants(top)))]) / 1e6, 1)


def use_worktrees(count: int, tests_every: int, repository: Path, clock: StepCosts) -> None:
    """Do the same work with worktrees of git and subprocesses."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*command: str, cwd: Path) -> str:
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True).stdout

    def pytest(tree: Path, *names: str) -> None:
        run(
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *(f"{TEST_FILE}::{name}" for name in names),
            cwd=tree,
        )

    for number in range(count):
        tree = repository.parent / f"worktree-{number}"
        with clock.step("open and reset"):
            run("git", "worktree", "add", "-q", "--detach", str(tree), cwd=repository)
        with clock.step("list, read, search"):
            run("git", "ls-files", "shop", cwd=tree)
            assert WRONG in (tree / "shop" / "arithmetic.py").read_text()
            run("git", "grep", "-n", WRONG, cwd=tree)
        with clock.step("edit"):
            (tree / "shop" / "arithmetic.py").write_text(MODULE.replace(WRONG, RIGHT))
        if number % tests_every == 0:
            with clock.step("run the tests"):
                pytest(tree, "test_seen")
        with clock.step("patch and close"):
            patch = run("git", "diff", cwd=tree)
            run("git", "worktree", "remove", "--force", str(tree), cwd=repository)
        if number % tests_every == 0:
            with clock.step("grade"):  # on a clean worktree
                run("git", "worktree", "add", "-q", "--detach", str(tree), cwd=repository)
                subprocess.run(["git", "apply"], cwd=tree, input=patch, text=True, check=True)
                pytest(tree, "test_seen", "test_kept")
                run("git", "worktree", "remove", "--force", str(tree), cwd=repository)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks environments",
        description="Environments `repository` opened, used and closed in a row, beside `git worktree` and subprocesses.",
    )
    parser.add_argument("--count", type=int, default=100, help="environments in a row (default: 100)")
    parser.add_argument("--worktrees", type=int, default=20, help="worktrees of the baseline (default: 20)")
    parser.add_argument("--tests-every", type=int, default=5, help="run tests in every Nth one (default: 5)")
    parser.add_argument("--modules", type=int, default=400, help="modules of the repository (default: 400)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    clocks = {"environment": StepCosts(), "git worktree": StepCosts()}
    uses: dict[str, Callable[..., Any]] = {"environment": use_environments, "git worktree": use_worktrees}
    with tempfile.TemporaryDirectory() as name:
        os.environ[STORE] = str(Path(name) / "suites")
        repository = Path(name) / "repository"
        make_repository(repository, options.modules)
        counts = {"environment": options.count, "git worktree": options.worktrees}
        results = {
            method: use(counts[method], options.tests_every, repository, clocks[method]) for method, use in uses.items()
        }
    rows = [{"method": method, **row} for method, clock in clocks.items() for row in clock.rows()]
    if options.json:
        print(json.dumps({"figures": results["environment"], "rows": rows}))
        return 0
    for row in rows:
        print(
            f"{row['method']:14} {row['step']:20} {row['count']:6} x {row['wall_ms']:9.2f} ms {row['cpu_ms']:9.2f} ms CPU"
        )
    print(json.dumps(results["environment"], indent=1))
    return 0
