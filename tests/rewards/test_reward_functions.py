"""Built-in rewards: their scores, what they log, and which completions have no score."""

import asyncio
import logging

import pytest

from alignment.rewards import build_rewards, execution
from alignment.rewards.combination import RewardPart, combined
from alignment.rewards.execution import Verdicts
from alignment.rewards.text import length_penalty, parses


def test_infrastructure_errors_are_none_and_never_zero(fake, columns) -> None:
    reward = execution.tests_fraction(Verdicts(fake))
    assert asyncio.run(reward(["p"] * 3, ["right", "half", "lost"], **columns(3))) == [1.0, 0.5, None]


def test_one_program_is_graded_once_for_all_rewards(fake, columns) -> None:
    verdicts = Verdicts(fake)
    both = combined(
        [
            RewardPart("tests_passed", execution.tests_passed(verdicts), 1.0),
            RewardPart("tests_fraction", execution.tests_fraction(verdicts), 1.0),
        ]
    )
    assert asyncio.run(both(["p"] * 2, ["right", "half"], **columns(2))) == [2.0, 0.5]
    assert fake.calls == 2


def test_a_group_without_any_verdict_is_warned_about(fake, columns, caplog) -> None:
    logged: dict[str, float] = {}
    reward = execution.tests_passed(Verdicts(fake))
    with caplog.at_level(logging.WARNING):
        asyncio.run(reward(["p", "p", "q"], ["lost", "lost", "right"], **columns(3, log_metric=logged.__setitem__)))
    assert "1 of 2 prompts could not be graded" in caplog.text
    assert logged["verdicts/prompts_without_any"] == 0.5
    assert logged["verdicts/error"] == pytest.approx(2 / 3)


def test_a_completion_without_a_verdict_has_no_reward_for_its_looks(fake, entry, columns) -> None:
    (reward,) = build_rewards([entry(name="tests_passed"), entry(name="parses", weight=0.5)], fake)
    assert asyncio.run(reward(["p"] * 2, ["right", "lost"], **columns(2))) == [1.5, None]


def test_a_part_that_does_not_apply_is_left_out_of_the_sum(fake, entry, columns) -> None:
    (reward,) = build_rewards([entry(name="tests_passed"), entry(name="parses", weight=0.5)], fake)
    assert asyncio.run(reward(["p"] * 2, ["right"] * 2, **columns(2, language=["python", "java"]))) == [1.5, 1.0]


def test_a_completion_that_was_cut_off_fails_without_being_graded(fake, entry, columns) -> None:
    (reward,) = build_rewards([entry(name="tests_passed")], fake, end_ids=[7])
    scores = asyncio.run(reward(["p"] * 2, ["right"] * 2, **columns(2, completion_ids=[[1, 7], [1, 2]])))
    assert scores == [1.0, 0.0] and fake.calls == 1


def test_unknown_rewards_and_odd_weights_are_refused(fake, entry) -> None:
    with pytest.raises(ValueError, match="unknown reward 'looks'"):
        build_rewards([entry(name="looks")], fake)
    with pytest.raises(ValueError, match="finite"):
        build_rewards([entry(name="parses", weight=float("nan"))], fake)
    with pytest.raises(ValueError, match="needs `soft` and `hard`"):
        build_rewards([entry(name="length_penalty")], fake)
    with pytest.raises(ValueError, match="soft"):
        length_penalty(5, 5)


def test_length_is_free_up_to_the_soft_limit() -> None:
    values = asyncio.run(length_penalty(2, 4)(["p"] * 4, ["a", "ab", "abc", "abcdefgh"]))
    assert values == [0, 0, -0.5, -1]


def test_hostile_text_does_not_parse_and_harms_nothing() -> None:
    texts = ["def f(): pass", "(" * 100000, "-" * 100000 + "1", "\0", "", "def"]
    assert asyncio.run(parses(["p"] * 6, texts)) == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
