"""Hostile programs: none gets a reward, none reaches the machine, none makes the pool fail."""

import json

import pytest

from alignment.grading import Grader, Limits, Verdict

from .hostile_hosts import EXHAUST, REACH, reaching
from .hostile_rewards import AGAINST_ASSERTS, AGAINST_CALLS, AGAINST_STDIO

TEST = """
def check(candidate):
    assert candidate(2) == 4
    assert candidate(3) == 9
    assert abs(candidate(1.5) - 2.25) < 1e-6
    assert candidate(-1) != 0 and not candidate(0)
"""
ASSERTS = {"kind": "asserts", "tests": json.dumps({"code": TEST}), "entry_point": "f"}
CALLS = {
    "kind": "calls",
    "tests": json.dumps({"cases": [{"args": [x], "expected": x * x} for x in (2, 3, 1)]}),
    "entry_point": "f",
}
STDIO = {
    "kind": "stdio",
    "tests": json.dumps({"cases": [{"stdin": f"{x}\n", "stdout": f"{x * x}\n"} for x in (2, 3)]}),
}
HONEST = "def f(x): return x * x"


@pytest.fixture(scope="module")
def verdicts(grader: Grader) -> dict[str, Verdict]:
    """The verdicts of all programs, graded together."""
    groups = ((ASSERTS, AGAINST_ASSERTS, "asserts"), (CALLS, AGAINST_CALLS, "calls"), (STDIO, AGAINST_STDIO, "stdio"))
    pairs = {f"{label}/{name}": (task, text) for task, programs, label in groups for name, text in programs.items()}
    return dict(zip(pairs, grader.grade_many(pairs.values()), strict=True))


def test_an_honest_program_passes(grader: Grader) -> None:
    pairs = [(ASSERTS, HONEST), (CALLS, HONEST), (STDIO, "print(int(input()) ** 2)")]
    assert [verdict.status for verdict in grader.grade_many(pairs)] == ["passed"] * 3


@pytest.mark.parametrize("name", AGAINST_ASSERTS)
def test_no_hostile_program_passes_asserts(verdicts: dict[str, Verdict], name: str) -> None:
    verdict = verdicts[f"asserts/{name}"]
    assert verdict.status == "failed" and verdict.fraction < 1, verdict


@pytest.mark.parametrize("name", AGAINST_CALLS)
def test_no_hostile_program_passes_calls(verdicts: dict[str, Verdict], name: str) -> None:
    verdict = verdicts[f"calls/{name}"]
    assert verdict.status == "failed" and verdict.fraction < 1, verdict


@pytest.mark.parametrize("name", AGAINST_STDIO)
def test_no_hostile_program_passes_by_its_output(verdicts: dict[str, Verdict], name: str) -> None:
    verdict = verdicts[f"stdio/{name}"]
    assert verdict.status == "failed" and verdict.fraction < 1, verdict


@pytest.fixture(scope="module")
def reached(grader: Grader) -> dict[str, Verdict]:
    task = {"kind": "stdio", "tests": json.dumps({"cases": [{"stdin": "", "stdout": "contained"}]})}
    grader.grade_many([(task, "x = 'earlier-rollout-secret' * 3\nprint('contained')")] * 4)
    return dict(zip(REACH, grader.grade_many([(task, reaching(name)) for name in REACH]), strict=True))


@pytest.mark.parametrize("name", REACH)
def test_the_host_is_out_of_reach(reached: dict[str, Verdict], name: str) -> None:
    """Passed means: the program ran to its last line, and its attack failed."""
    assert reached[name].status == "passed", reached[name]


@pytest.mark.parametrize("name", EXHAUST)
def test_exhausting_a_resource_ends_only_the_program(exhausted: dict[str, tuple[Verdict, Verdict]], name: str) -> None:
    verdict, after = exhausted[name]
    assert verdict.status == "failed", verdict
    assert after.status == "passed", after


@pytest.fixture(scope="module")
def exhausted() -> dict[str, tuple[Verdict, Verdict]]:
    task = {"kind": "stdio", "tests": json.dumps({"cases": [{"stdin": "", "stdout": "never"}]})}
    well = {"kind": "stdio", "tests": json.dumps({"cases": [{"stdin": "", "stdout": "well"}]})}
    limits = Limits(cpu_seconds=1, wall_seconds=1, memory_bytes=512 << 20)
    with Grader(workers=4, limits=limits) as grader:
        pairs = [pair for name in EXHAUST for pair in ((task, EXHAUST[name]), (well, "print('well')"))]
        results = grader.grade_many(pairs)
    return dict(zip(EXHAUST, zip(results[::2], results[1::2], strict=True), strict=True))
