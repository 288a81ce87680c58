"""Limits hold for all processes of a program together, and a program that reaches a limit is reported by that limit."""

import json
import platform
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

from alignment.grading import Grader, Limits
from alignment.sandbox import Program, Slot
from alignment.sandbox.launcher_settings import launcher_settings

from .limit_evasions import MEMORY, NODE_MEMORY, PAGE_TABLES, SCHEDULING, TIME

LIMITS = Limits(cpu_seconds=1, wall_seconds=1, memory_bytes=512 << 20)
SYS_EXIT = "93" if platform.machine() == "aarch64" else "60"


def stdio(*cases: tuple[str, str], **tests: object) -> dict[str, object]:
    rows = [{"stdin": stdin, "stdout": stdout} for stdin, stdout in cases]
    return {"kind": "stdio", "tests": json.dumps({"cases": rows, **tests})}


NEVER, WELL = stdio(("", "never")), stdio(("", "well"))


@pytest.fixture(scope="module")
def limited(grader: Grader) -> Iterator[Grader]:
    """A grader with low limits; `grader` skips tests if the machine refuses the sandbox."""
    with Grader(workers=1, limits=LIMITS) as made:
        yield made


@pytest.mark.parametrize("name", MEMORY)
def test_memory_is_limited_for_all_processes_together(limited: Grader, name: str) -> None:
    patient = replace(LIMITS, wall_seconds=60, cpu_seconds=20)
    verdict = limited.submit(NEVER, MEMORY[name].replace("SYS_EXIT", SYS_EXIT), patient).result()
    refused = any(text in verdict.detail for text in ("PermissionError", "Cannot allocate memory", "ended by signal"))
    assert verdict.reason == "memory" or (verdict.reason in ("exception", "died") and refused), verdict
    assert limited.grade_many([(WELL, "print('well')")])[0].status == "passed"


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
@pytest.mark.parametrize("name", NODE_MEMORY)
def test_memory_of_node_is_limited_by_the_setting_and_not_by_what_node_reserves(limited: Grader, name: str) -> None:
    patient = replace(LIMITS, wall_seconds=100, cpu_seconds=20, memory_bytes=400 << 20)
    verdict = limited.submit({**NEVER, "language": "javascript"}, NODE_MEMORY[name], patient).result()
    assert verdict.reason == "memory", verdict


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on this machine")
def test_page_tables_count_as_memory(limited: Grader) -> None:
    slot = Slot(launcher_settings())
    try:
        source = PAGE_TABLES.encode()
        header = {
            "files": [["a.c", len(source)]], "command": ["/bin/sh", "-c", "gcc -O1 a.c -o a && exec ./a"],
            "environment": {}, "collect": [],
        }  # fmt: skip
        limits = replace(LIMITS, wall_seconds=30, cpu_seconds=30)
        (run,) = slot.run([Program("command", header, source, limits=limits, address_space=False)])
    finally:
        slot.close()
    assert run.stop == "memory", run


@pytest.mark.parametrize("name", TIME)
def test_children_do_not_prolong_the_time_of_a_program(limited: Grader, name: str) -> None:
    verdict = limited.grade_many([(NEVER, TIME[name])])[0]
    assert verdict.reason == "timeout", verdict
    assert verdict.cpu_seconds < 3 * LIMITS.wall_seconds  # six times the wall time on each core, if waiting counted
    assert limited.grade_many([(WELL, "print('well')")])[0].status == "passed"


@pytest.mark.parametrize("name", SCHEDULING)
def test_programs_cannot_choose_cores_or_scheduling_classes(limited: Grader, name: str) -> None:
    program = f"import os\ntry: {SCHEDULING[name]}\nexcept PermissionError: print('well')"
    assert limited.grade_many([(WELL, program)])[0].status == "passed"


def test_the_device_of_zeros_can_be_read(limited: Grader) -> None:
    program = "f = open('/dev/zero', 'rb')\nprint('well' if f.read(1 << 24) == bytes(1 << 24) else 'no')"
    assert limited.grade_many([(WELL, program)])[0].status == "passed"


LOOP = "def f(x):\n    while True: pass"
ENDLESS = {
    "calls": ({"kind": "calls", "tests": json.dumps({"cases": [{"args": [2], "expected": 4}]}), "entry_point": "f"}, LOOP),
    "asserts": ({"kind": "asserts", "tests": json.dumps({"code": "assert f(2) == 4"}), "entry_point": "f"}, LOOP),
    "asserts_in_the_module": ({"kind": "asserts", "tests": json.dumps({"code": "assert f(2) == 4"}), "entry_point": "f"}, "while True: pass"),
    "asserts_that_catch": (
        {"kind": "asserts", "tests": json.dumps({"code": "try:\n    f(2)\nexcept BaseException:\n    pass\nassert True"}), "entry_point": "f"}, LOOP),
    "asserts_in_a_child": ({"kind": "asserts", "tests": json.dumps({"code": "assert f(2) == 4"}), "entry_point": "f"},
                           "import os\ndef f(x):\n    if os.fork() == 0:\n        while True: pass\n    os.wait()"),
    "stdio": (NEVER, "while True: pass"),
    "stdio_in_a_child": (NEVER, "import subprocess, sys\nsubprocess.run(['/bin/sh', '-c', 'while :; do :; done'])"),
    "program": ({"kind": "program", "tests": "{}"}, "while True: pass"),
}  # fmt: skip


@pytest.mark.parametrize("wall", [1.0, 30.0], ids=["by wall time", "by CPU time"])
@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_loop_is_reported_as_a_timeout(limited: Grader, name: str, wall: float) -> None:
    task, program = ENDLESS[name]
    verdict = limited.submit(task, program, replace(LIMITS, wall_seconds=wall)).result()
    assert (verdict.status, verdict.reason) == ("failed", "timeout"), verdict


CASES = [(str(number), str(number)) for number in range(20)]


def test_a_program_that_never_ends_costs_two_cases_and_not_all(limited: Grader) -> None:
    verdict = limited.grade_many([(stdio(*CASES), "while True: pass")])[0]
    assert [test.reason for test in verdict.tests] == ["timeout"] * 2 + ["not_run"] * 18
    assert verdict.tests_run == 2


def test_the_cases_of_a_slow_program_have_a_limit_together(limited: Grader) -> None:
    verdict = limited.grade_many([(stdio(*CASES * 2), "import time\ntime.sleep(0.5)\nprint(input())")])[0]
    reasons = [test.reason for test in verdict.tests]
    assert verdict.reason == "timeout"
    assert reasons.count("passed") < 30 and reasons[-1] == "not_run"  # 8 s for 40 cases of 0.5 s


def test_one_slow_case_fails_alone(limited: Grader) -> None:
    program = "n = int(input())\nwhile n == 3: pass\nprint(n)"
    verdict = limited.submit(stdio(*CASES), program, replace(LIMITS, wall_seconds=30)).result()
    assert [test.reason for test in verdict.tests].count("passed") == 19


RUST_LOOP = """#![allow(long_running_const_eval)]
const fn f() -> u64 { let mut n = 0u64; loop { n = n.wrapping_add(1); if n == u64::MAX { return n; } } }
const N: u64 = f();
fn main() { println!("{}", N); }
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("rustc") is None, reason="no rustc on this machine")
def test_a_loop_that_the_compiler_runs_ends_at_the_limit_of_the_compiler(limited: Grader) -> None:
    verdict = limited.grade_many([({**WELL, "language": "rust"}, RUST_LOOP)])[0]
    assert (verdict.status, verdict.reason) == ("failed", "timeout"), verdict
