"""Order of rows that are not packed: each once per epoch, similar lengths in a step, the same order in a resumed
run.
"""

import itertools
import random

import pytest

from alignment.tokenization.length_order import LengthSampler

STEP = 8


@pytest.fixture
def lengths():
    draw = random.Random(0)
    return [draw.randint(1, 500) for _ in range(1003)]


def padding(order, lengths):
    """Share of the tokens of all batches that are padding."""
    steps = [[lengths[row] for row in order[at : at + STEP]] for at in range(0, len(order), STEP)]
    return 1 - sum(map(sum, steps)) / sum(max(step) * len(step) for step in steps)


def test_an_epoch_has_every_row_once(lengths):
    assert sorted(LengthSampler(lengths, STEP, 0)) == list(range(len(lengths)))


def test_little_of_a_batch_is_padding(lengths):
    order = list(LengthSampler(lengths, STEP, 0))
    assert padding(order, lengths) < 0.05 < 0.3 < padding(list(range(len(lengths))), lengths)


def test_long_and_short_steps_alternate(lengths):
    order = list(LengthSampler(lengths, STEP, 0))[: 50 * STEP]
    steps = [lengths[order[at]] for at in range(0, len(order), STEP)]
    rises = sum(later > earlier for earlier, later in itertools.pairwise(steps))
    assert 15 < rises < 35


def test_the_order_depends_only_on_seed_and_epoch(lengths):
    run = LengthSampler(lengths, STEP, 3)
    first = list(run)
    run.set_epoch(1)
    second = list(run)
    resumed = LengthSampler(lengths, STEP, 3)
    resumed.set_epoch(1)
    assert list(resumed) == second != first
    assert list(LengthSampler(lengths, STEP, 4)) != first


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9])
def test_any_number_of_rows_is_ordered(rows):
    assert sorted(LengthSampler([5] * rows, STEP, 0)) == list(range(rows))
