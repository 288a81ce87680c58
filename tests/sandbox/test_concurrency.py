"""The pool under many gradings at once, cancelled gradings and killed launchers; the compile cache."""

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from alignment.grading import Grader, Limits
from alignment.grading.value_comparison import stdout_equal, values_equal
from alignment.sandbox import SandboxError
from alignment.sandbox.compiled import cache_folder

TASK = {"kind": "calls", "tests": json.dumps({"cases": [{"args": [2], "expected": 4}]}), "entry_point": "f"}
RIGHT = "def f(x): return x * x"
PROBE = {"kind": "stdio", "language": "c", "tests": json.dumps({"cases": [{"stdin": "", "stdout": "42"}]})}
C = '#include <stdio.h>\nint main(void) { printf("42\\n"); }\n'


def test_many_coroutines_at_once_each_get_their_own_verdict(grader: Grader) -> None:
    async def run() -> list[str]:
        programs = [f"def f(x): return x * x + {n % 3}" for n in range(150)]
        return [verdict.status for verdict in await asyncio.gather(*(grader.grade(TASK, text) for text in programs))]

    assert asyncio.run(run()) == ["passed", "failed", "failed"] * 50


def test_cancelled_gradings_do_not_affect_the_others(grader: Grader) -> None:
    async def run() -> list[str]:
        waiting = [asyncio.ensure_future(grader.grade(TASK, f"{RIGHT} + {n} - {n}")) for n in range(60)]
        await asyncio.sleep(0.05)
        for future in waiting[::2]:
            future.cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        return [item.status for item in done[1::2] if not isinstance(item, BaseException)]

    assert asyncio.run(run()) == ["passed"] * 30
    assert grader.grade_many([(TASK, RIGHT)])[0].status == "passed"


def test_a_timeout_of_the_caller_leaves_the_pool_usable(grader: Grader) -> None:
    async def run() -> None:
        slow = "import time\ndef f(x): time.sleep(1); return 4"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(grader.grade(TASK, slow) for _ in range(4))), 0.2)

    asyncio.run(run())
    assert [verdict.status for verdict in grader.grade_many([(TASK, RIGHT)] * 4)] == ["passed"] * 4


@pytest.mark.parametrize("inner", [False, True], ids=["launcher", "its_first_process"])
def test_a_program_whose_launcher_is_killed_is_graded_again(inner: bool) -> None:
    with Grader(workers=1, limits=Limits(wall_seconds=5)) as fresh:
        assert fresh.grade_many([(TASK, RIGHT)])[0].status == "passed"
        future = fresh.submit(TASK, "import time\ndef f(x): time.sleep(1); return x * x")
        time.sleep(0.3)
        process = psutil.Process(fresh.slots[0].process.pid)  # type: ignore[union-attr]
        os.kill(process.children()[0].pid if inner else process.pid, signal.SIGKILL)
        assert future.result(60).status == "passed"


def test_threads_that_share_a_grader_do_not_mix_their_verdicts(grader: Grader) -> None:
    statuses: list[object] = []

    def work(number: int) -> None:
        task = {**TASK, "tests": json.dumps({"cases": [{"args": [number], "expected": number * number}]})}
        for verdict in grader.grade_many([(task, RIGHT), (task, "def f(x): return x * x + 1")] * 5):
            statuses.append(verdict.status)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count("passed") == statuses.count("failed") == 30


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine")
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    return tmp_path / "compiled"


@pytest.mark.parametrize("damage", [b"", b"\xff\n", b'{"files": [["program", 5]]}\nabc', b'{"files": []}\n'])
def test_a_damaged_entry_of_the_compile_cache_is_compiled_again(cache: Path, damage: bytes) -> None:
    with Grader(workers=1) as fresh:
        assert fresh.grade_many([(PROBE, C)])[0].status == "passed"
        (entry,) = cache.glob("??/*")
        whole = entry.read_bytes()
        entry.write_bytes(damage)
        assert fresh.grade_many([(PROBE, C)])[0].status == "passed"
        assert len(entry.read_bytes()) == len(whole)


def test_different_programs_have_different_entries_in_the_compile_cache(cache: Path) -> None:
    other = C.replace("42", "43")
    with Grader(workers=2) as fresh:
        statuses = [verdict.status for verdict in fresh.grade_many([(PROBE, C), (PROBE, other)] * 3)]
    assert statuses == ["passed", "failed"] * 3
    assert len(list(cache.glob("??/*"))) == 2


def test_a_compile_cache_that_others_can_write_to_is_refused(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with pytest.raises(SandboxError, match="chmod 700"):
        cache_folder()
    with Grader(workers=1) as fresh:
        assert fresh.grade_many([(PROBE, C)])[0].status == "error"


def test_a_cache_folder_that_cannot_be_made_is_an_error_verdict(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "file"))
    with Grader(workers=1) as fresh:
        (verdict,) = fresh.grade_many([(PROBE, C)])
    assert verdict.status == "error" and "ALIGN_CACHE" in verdict.detail


@pytest.mark.parametrize(
    ("expected", "actual"),
    [(float("inf"), 5.0), (float("inf"), float("-inf")), (5.0, float("inf")), (float("nan"), 5.0), (5.0, float("nan")),
     (1.0, 1.1), ([], {}), ("", None), (0, ""), ("1", 1), ([1], [1, 2]), ({"a": 1}, {"a": 1, "b": 2}), ({1}, {1, 2})],
)  # fmt: skip
@pytest.mark.parametrize("exact", [True, False])
def test_a_tolerance_does_not_make_other_differences_equal(expected: object, actual: object, exact: bool) -> None:
    from alignment.sandbox.inside import wire

    assert not values_equal(wire.encode(expected), wire.encode(actual), exact=exact, tolerance=1e-3)


@pytest.mark.parametrize(
    ("expected", "actual"), [("inf", "5"), ("inf", "-inf"), ("nan", "1"), ("1", "1e999"), ("1", "")]
)
def test_printed_infinity_is_close_to_no_number(expected: str, actual: str) -> None:
    assert not stdout_equal(expected, actual, 1e-3)
