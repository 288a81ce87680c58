"""Rewards: what is paid, what is logged, and what nothing can be said of."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from alignment.grading import Verdict
from alignment.grading.verdict import TestResult
from alignment.rewards import builtin

RIGHT = Verdict("passed", "passed", "", (TestResult("passed"),) * 2)
HALF = Verdict("failed", "wrong_answer", "", (TestResult("passed"), TestResult("wrong_answer")))
LOST = Verdict("error", "infrastructure", "no kernel")


class Fake:
    """Answers by what the program says; counts how often it is asked."""

    workers = 1

    def __init__(self) -> None:
        self.asked = 0

    async def grade(self, task: dict[str, Any], program: str) -> Verdict:
        self.asked += 1
        return RIGHT if "right" in program else HALF if "half" in program else LOST


@pytest.fixture
def fake() -> Iterator[Fake]:
    yield Fake()


def _columns(count: int, **more: Any) -> dict[str, Any]:
    return {
        "kind": ["calls"] * count,
        "tests": ["{}"] * count,
        "entry_point": ["f"] * count,
        "language": ["python"] * count,
        **more,
    }


def test_infrastructure_errors_are_none_and_never_zero(fake: Fake) -> None:
    reward = builtin.tests_fraction(builtin.Verdicts(fake))  # type: ignore[arg-type]
    assert asyncio.run(reward(["p"] * 3, ["right", "half", "lost"], **_columns(3))) == [1.0, 0.5, None]


def test_one_program_is_graded_once_for_all_rewards(fake: Fake) -> None:
    verdicts = builtin.Verdicts(fake)  # type: ignore[arg-type]
    both = builtin.combined(
        [
            ("tests_passed", builtin.tests_passed(verdicts), 1.0),
            ("tests_fraction", builtin.tests_fraction(verdicts), 1.0),
        ]
    )
    assert asyncio.run(both(["p"] * 2, ["right", "half"], **_columns(2))) == [2.0, 0.5]
    assert fake.asked == 2


def test_a_group_without_any_verdict_is_loud(fake: Fake) -> None:
    logged: dict[str, float] = {}
    reward = builtin.tests_passed(builtin.Verdicts(fake))  # type: ignore[arg-type]
    with pytest.warns(RuntimeWarning, match="could not be graded"):
        asyncio.run(reward(["p", "p", "q"], ["lost", "lost", "right"], **_columns(3, log_metric=logged.__setitem__)))
    assert logged["verdicts/prompts_without_any"] == 0.5
    assert logged["verdicts/error"] == pytest.approx(2 / 3)


def test_unknown_rewards_and_odd_weights_are_refused(fake: Fake) -> None:
    with pytest.raises(ValueError, match="unknown rewards"):
        builtin.build({"looks": 1.0}, fake)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finite"):
        builtin.build({"parses": float("nan")}, fake)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="soft"):
        builtin.length_penalty(5, 5)


def test_length_is_free_up_to_the_soft_limit() -> None:
    values = asyncio.run(builtin.length_penalty(2, 4)(["p"] * 4, ["a", "ab", "abc", "abcdefgh"]))
    assert values == [0, 0, -0.5, -1]


def test_hostile_text_parses_as_nothing_and_harms_nothing() -> None:
    texts = ["def f(): pass", "(" * 100000, "-" * 100000 + "1", "\0", "", "def"]
    assert asyncio.run(builtin.parses(["p"] * 6, texts)) == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
