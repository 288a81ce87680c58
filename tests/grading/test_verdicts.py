"""Verdicts: comparison of values, bad programs and tasks, and languages."""

import json
import shutil
from pathlib import Path

import pytest

from alignment.grading import Grader, Limits
from alignment.grading.value_comparison import stdout_equal, values_equal
from alignment.sandbox.inside import wire
from alignment.sandbox.toolchains import LANGUAGES
from benchmarks.verdict_agreement import LANGUAGES as MULTIPL_E_LANGUAGES
from benchmarks.verdict_agreement import PUBLISHED, multipl_e

CALLS = {"kind": "calls", "tests": json.dumps({"cases": [{"args": [2], "expected": 4}]}), "entry_point": "f"}


@pytest.mark.parametrize(
    ("expected", "actual"), [(1, True), (1, 1.0), (0.0, False), ([1], (1,)), ("1", 1), ({1}, frozenset({1})), (None, 0)]
)
def test_exact_values_have_exact_types(expected: object, actual: object) -> None:
    assert not values_equal(wire.encode(expected), wire.encode(actual))
    assert values_equal(wire.encode(actual), wire.encode(actual))


@pytest.mark.parametrize("value", [1 << 99, -(1 << 70), {1: {2, 3}}, (b"x", 1j), float("nan"), "\ud800", {"a": [None]}])
def test_plain_data_is_unchanged_by_the_wire_form(value: object) -> None:
    sent = json.loads(json.dumps(wire.encode(value)))
    assert values_equal(sent, wire.encode(value))
    assert repr(wire.decode(sent)) == repr(value)


def test_one_call_may_have_less_time_than_the_program(grader: Grader) -> None:
    cases = {"cases": [{"args": [number], "expected": number} for number in range(4)], "call_seconds": 0.3}
    task = CALLS | {"tests": json.dumps(cases)}
    endless = "def f(x):\n    while x == 3: pass\n    return x"
    busy = "import time\ndef f(x):\n    end = time.process_time() + 0.2\n    while time.process_time() < end: pass\n    return x"
    stubborn = f"import signal\nsignal.signal(signal.SIGPROF, signal.SIG_IGN)\n{endless}"
    first, second, third = grader.grade_many([(task, endless), (task, busy), (task, stubborn)])
    assert (first.reason, first.fraction) == ("timeout", 0.75) and first.cpu_seconds < 2
    assert second.status == "passed"  # each call has its own time
    assert (third.status, third.reason) == ("failed", "timeout")


def test_a_tolerance_applies_to_floats_only() -> None:
    assert values_equal([1.0, 2.0], [1.0 + 1e-9, 2.0], tolerance=1e-6)
    assert not values_equal([1.0], [1.1], tolerance=1e-6)
    assert not values_equal([100], [101], tolerance=5)


def test_output_is_compared_line_by_line() -> None:
    assert stdout_equal("1 \n2\n", "1\n2\n\n")
    assert not stdout_equal("1\n2\n", "1\n") and not stdout_equal("1\n", "1\n2\n")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("", "missing_entry_point"),
        ("x" * (10 << 20), "too_long"),
        ("\0", "syntax"),
        ("\ud800", "syntax"),
        ("def", "syntax"),
    ],
    ids=["empty", "ten_megabytes", "null", "surrogate", "unfinished"],
)
def test_bad_programs_fail(grader: Grader, program: str, reason: str) -> None:
    verdict = grader.grade_many([(CALLS, program)])[0]
    assert (verdict.status, verdict.reason) == ("failed", reason)


@pytest.mark.parametrize(
    "task",
    [
        {}, {"kind": "calls"}, {**CALLS, "tests": "{}"}, {**CALLS, "tests": "not json"}, {**CALLS, "tests": "[]"},
        {**CALLS, "kind": "unknown"}, {**CALLS, "language": "cobol"}, {**CALLS, "language": "rust"},
        {"kind": "asserts", "tests": json.dumps({"code": " "})},
        {"kind": "asserts", "tests": json.dumps({"code": "def ("})},
        {**CALLS, "tests": json.dumps({"cases": [{"expected": 1}]})},
    ],
)  # fmt: skip
def test_bad_tasks_are_errors_not_failures(grader: Grader, task: dict[str, object]) -> None:
    verdict = grader.grade_many([(task, "def f(x): return x")])[0]
    assert (verdict.status, verdict.reason) == ("error", "invalid_task"), verdict


def test_the_fraction_counts_the_asserts_that_pass(grader: Grader) -> None:
    task = {"kind": "asserts", "tests": json.dumps({"code": "assert f(1) == 1\nassert f(2) == 4"}), "entry_point": "f"}
    assert grader.grade_many([(task, "def f(x): return x")])[0].fraction == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_program_in_every_language(language: str) -> None:
    if shutil.which(LANGUAGES[language].tool) is None:
        pytest.skip(f"no {LANGUAGES[language].tool} on this machine")
    task = {"kind": "stdio", "language": language, "tests": json.dumps({"cases": [{"stdin": "", "stdout": "42"}]})}
    wrong = {**task, "tests": json.dumps({"cases": [{"stdin": "", "stdout": "43"}]})}
    with Grader(workers=1, limits=Limits(cpu_seconds=30, wall_seconds=30)) as grader:
        verdicts = grader.grade_many([(task, LANGUAGES[language].probe), (wrong, LANGUAGES[language].probe)])
    assert [verdict.reason for verdict in verdicts] == ["passed", "wrong_answer"]


@pytest.mark.slow
@pytest.mark.parametrize("short", ["js", "php", "sh"])
def test_published_verdicts_of_whole_programs(data_dir: Path, short: str) -> None:
    if shutil.which(LANGUAGES[MULTIPL_E_LANGUAGES[short]].tool) is None:
        pytest.skip(f"no {MULTIPL_E_LANGUAGES[short]} on this machine")
    with Grader(limits=Limits(cpu_seconds=30, wall_seconds=30), hidden=("/usr/bin/bc",)) as grader:
        assert multipl_e(data_dir / PUBLISHED / f"multipl_e/{short}.json", grader, short, 30).percent >= 96
