"""Statistics against closed forms, brute force and known values."""

import itertools
import math
import random

import pytest

from alignment.evaluation.statistics.intervals import bootstrap, pass_at_k, wilson
from alignment.evaluation.statistics.paired import compare_scores, mcnemar
from alignment.evaluation.statistics.text_scores import edit_similarity, fuzz_ratio


@pytest.mark.parametrize(("n", "correct", "k"), [(5, 0, 1), (5, 2, 1), (5, 2, 3), (6, 6, 2), (6, 1, 6), (4, 3, 2)])
def test_pass_at_k_is_the_share_of_k_subsets_with_a_correct_sample(n, correct, k):
    subsets = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(any(subset) for subset in subsets) / len(subsets))


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match="at least 10"):
        pass_at_k(5, 2, 10)


def test_wilson_gives_the_textbook_interval():
    low, high = wilson(10, 20)
    assert (round(low, 4), round(high, 4)) == (0.2993, 0.7007)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (0, 164), (164, 164), (1, 3), (72, 164)])
def test_wilson_contains_the_share_and_stays_between_0_and_1(successes, n):
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert high - low > 0


def test_bootstrap_is_reproducible_and_contains_the_mean():
    generator = random.Random(3)
    values = [generator.random() for _ in range(80)]
    low, high = bootstrap(values, seed=1)
    assert (low, high) == bootstrap(values, seed=1)
    assert low < sum(values) / len(values) < high


def test_bootstrap_gets_narrower_with_more_tasks():
    generator = random.Random(5)
    few, many = ([generator.random() for _ in range(size)] for size in (30, 3000))
    (low, high), (lower, higher) = bootstrap(few), bootstrap(many)
    assert higher - lower < (high - low) / 5


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (3, 3), (10, 2), (1, 8)])
def test_mcnemar_is_the_two_sided_binomial_test(won, lost):
    n = won + lost
    tail = sum(math.comb(n, i) for i in range(n + 1) if abs(i - n / 2) >= abs(won - n / 2)) / 2**n
    assert mcnemar(won, lost) == pytest.approx(tail)


def test_paired_comparison_lists_won_and_lost_tasks():
    result = compare_scores({"a": 0.0, "b": 1.0, "c": 1.0, "x": 1.0}, {"a": 1.0, "b": 0.0, "c": 1.0, "y": 1.0})
    assert (result.n, result.won, result.lost, result.difference) == (3, ["a"], ["b"], 0.0)
    assert result.p_value == 1.0


def test_paired_comparison_detects_a_difference_beyond_chance():
    before = {str(index): float(index % 4 == 0) for index in range(200)}
    after = {task: 1.0 if int(task) < 100 else value for task, value in before.items()}
    result = compare_scores(before, after)
    assert result.p_value < 1e-6
    assert 0 < result.low < result.difference < result.high


def test_paired_comparison_works_for_shares():
    before = {str(index): index % 10 / 10 for index in range(100)}
    after = {task: min(1.0, value + 0.2) for task, value in before.items()}
    assert compare_scores(before, after).p_value < 0.01
    assert compare_scores(before, before).p_value == 1.0


def test_paired_comparison_refuses_results_of_different_tasks():
    with pytest.raises(ValueError, match="share no task"):
        compare_scores({"a": 1.0}, {"b": 1.0})


@pytest.mark.parametrize(
    ("first", "second", "distance"), [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)]
)
def test_edit_similarity_counts_edits_in_both_directions(first, second, distance):
    expected = 1.0 - distance / max(len(first), len(second), 1)
    assert edit_similarity(first, second) == edit_similarity(second, first) == expected


def levenshtein(first, second):
    """The textbook dynamic programme."""
    row = list(range(len(second) + 1))
    for line, left in enumerate(first, 1):
        diagonal, row[0] = row[0], line
        for column, right in enumerate(second, 1):
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, diagonal + (left != right))
    return row[-1]


def test_edit_similarity_is_the_textbook_distance_over_the_longer_length():
    generator = random.Random(7)
    for alphabet in ("ab", "abc (){}\n", "äö漢字😀x"):
        for _ in range(200):
            first, second = ("".join(generator.choices(alphabet, k=generator.randrange(40))) for _ in range(2))
            longest = max(len(first), len(second))
            expected = 1.0 - levenshtein(first, second) / longest if longest else 1.0
            assert edit_similarity(first, second) == expected


@pytest.mark.parametrize(
    ("first", "second", "ratio"), [("", "", 1.0), ("", "a", 0.0), ("abcd", "bcde", 0.75), ("qabxcd", "abycdf", 0.67)]
)
def test_fuzz_ratio_is_difflibs_in_whole_percents(first, second, ratio):
    assert fuzz_ratio(first, second) == ratio


def test_edit_similarity_is_1_only_for_equal_texts():
    assert edit_similarity("", "") == edit_similarity("ab", "ab") == 1.0
    assert edit_similarity("abcd", "abce") == 0.75
    assert edit_similarity("", "abc") == 0.0
