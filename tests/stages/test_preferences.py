"""Which answers become a pair."""

import random

from hypothesis import given
from hypothesis import strategies as st

from alignment.stages.preferences import choose_pairs

ANSWERS = st.lists(st.text(alphabet="ab", max_size=8), max_size=8)


@given(ANSWERS, ANSWERS, st.integers(0, 5), st.integers(0, 2**32))
def test_pairs_are_of_a_passing_and_a_failing_answer_and_use_no_answer_twice(passing, failing, most, seed):
    pairs = list(choose_pairs(passing, failing, most, random.Random(seed)))
    assert len(pairs) == min(most, len(set(passing)), len(set(failing)))
    for side, answers in zip(zip(*pairs, strict=True), (passing, failing), strict=False):
        assert set(side) <= set(answers) and len(set(side)) == len(side)


def test_the_failing_answer_nearest_in_length_is_taken():
    assert list(choose_pairs(["aaaa"], ["b", "bbbbb", "bbbbbbbb"], 1, random.Random(0))) == [("aaaa", "bbbbb")]


def test_without_a_failing_or_a_passing_answer_there_is_no_pair():
    assert list(choose_pairs(["a"], [], 2, random.Random(0))) == []
    assert list(choose_pairs([], ["a"], 2, random.Random(0))) == []


def test_the_order_of_the_answers_does_not_matter_and_the_seed_does():
    passing, failing = [f"p{n}" for n in range(9)], [f"f{n}" for n in range(9)]
    first = list(choose_pairs(passing, failing, 3, random.Random(1)))
    assert first == list(choose_pairs(passing[::-1], failing[::-1], 3, random.Random(1)))
    assert any(list(choose_pairs(passing, failing, 3, random.Random(seed))) != first for seed in range(2, 9))
