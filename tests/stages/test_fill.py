"""Packing with `fill_rows`: no sample is lost, no row is too long, and padding is below 1% if the lengths allow it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.tokenization.packing import best_fit, closest_subset, fill_rows, subset_sums


def _efficiency(lengths, size, rows):
    assert sorted(sample for row in rows for sample in row) == list(range(len(lengths)))
    assert all(sum(lengths[sample] for sample in row) <= size for row in rows)
    return sum(lengths) / (len(rows) * size)


@given(st.lists(st.integers(1, 60), max_size=200), st.integers(60, 130), st.integers(0, 3))
def test_every_sample_is_in_exactly_one_row_and_no_row_is_too_long(lengths, size, seed):
    ways = best_fit(lengths, size), subset_sums(lengths, size, random.Random(seed))
    for rows in (*ways, fill_rows(lengths, size, seed)):
        if lengths:
            _efficiency(lengths, size, rows)
        else:
            assert rows == []
    assert len(fill_rows(lengths, size, seed)) <= min(map(len, ways))


@given(st.lists(st.integers(1, 30), max_size=9), st.integers(0, 90))
def test_the_closest_subset_has_the_largest_sum_within_the_limit(lengths, wanted):
    chosen, total = closest_subset(lengths, wanted)
    assert len(set(chosen)) == len(chosen) and sum(lengths[at] for at in chosen) == total
    sums = {0}
    for length in lengths:
        sums |= {known + length for known in sums}
    assert total == max(known for known in sums if known <= wanted)


LENGTHS = {
    "no short ones": (lambda draw: draw.randint(65, 137), 512),
    "some longer than half a row": (
        lambda draw: draw.randint(300, 500) if draw.random() < 0.2 else draw.randint(30, 120),
        576,
    ),
    "many short ones": (lambda draw: min(4096, max(1, int(draw.lognormvariate(6.5, 1)))), 4096),
    "a few tokens each": (lambda draw: draw.randint(1, 4), 256),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_padding_is_below_one_percent(name):
    draw = random.Random(0)
    draw_length, size = LENGTHS[name]
    lengths = [draw_length(draw) for _ in range(6000)]
    assert _efficiency(lengths, size, fill_rows(lengths, size, 0)) > 0.99


def test_best_fit_alone_leaves_more_padding_without_short_samples():
    draw = random.Random(1)
    lengths = [draw.randint(65, 137) for _ in range(6000)]
    assert _efficiency(lengths, 512, best_fit(lengths, 512)) < 0.97


def test_the_same_seed_gives_the_same_rows():
    lengths = [3, 2, 5, 1, 4] * 40
    assert fill_rows(lengths, 7, 1) == fill_rows(lengths, 7, 1) != fill_rows(lengths, 7, 2)


def test_a_sample_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="9 tokens does not fit into a row of 8"):
        fill_rows([3, 9], 8, 0)
