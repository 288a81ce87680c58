"""Curves and progress, read from metrics.jsonl while it grows."""

import json

import pytest

from alignment.report import charts
from alignment.report.training_curves import MetricsFile, speed_points


def write(folder, rows, mode="a"):
    with (folder / "metrics.jsonl").open(mode) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def lines(first, last, **more):
    return [
        {"step": n, "max_steps": 20, "seconds": 2.0 * n, "loss": 1.0 / n, "num_tokens": 300 * n} | more
        for n in range(first, last + 1)
    ]


def test_progress_has_step_loss_speed_and_time_left(tmp_path):
    write(tmp_path, lines(1, 10))
    progress = MetricsFile(tmp_path).progress()
    assert (progress.step, progress.steps, progress.share) == (10, 20, 0.5)
    assert progress.figures == "loss 0.1, 150 tokens/s, 20 s left"


def test_there_is_no_progress_before_the_first_step(tmp_path):
    assert MetricsFile(tmp_path).progress() is None


def test_a_curve_grows_and_begins_anew_with_the_file(tmp_path):
    metrics = MetricsFile(tmp_path)
    write(tmp_path, lines(1, 3))
    assert metrics.curves("sft")[0].points == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    write(tmp_path, lines(4, 4))
    assert len(metrics.curves("sft")[0].points) == 4
    write(tmp_path, [*lines(1, 2), *lines(3, 9, loss=7.0)], mode="w")
    assert [value for _, value in metrics.curves("sft")[0].points] == [1.0, 0.5, *[7.0] * 7]


def test_the_speed_of_a_resumed_process_does_not_use_the_clock_of_the_one_before():
    logs = [*lines(1, 8), *[row | {"seconds": row["seconds"] - 16} for row in lines(9, 16)]]
    assert {round(value) for _, value in speed_points(logs)} == {150}


def test_a_reduced_curve_keeps_its_ends_and_its_peaks():
    points = [(float(n), 1.0) for n in range(100_000)]
    points[54_321] = (54_321.0, 99.0)
    points[77_777] = (77_777.0, -5.0)
    reduced = charts.reduced(points)
    assert len(reduced) <= charts.MOST_POINTS and reduced == sorted(reduced)
    assert {points[0], points[-1], (54_321.0, 99.0), (77_777.0, -5.0)} <= set(reduced)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.9, 0.91), (-3.0, 17.0), (1e-6, 2e-4), (5.0, 5.0), (0.0, 0.0), (1e6, 9e6)]
)
def test_ticks_are_few_and_enclose_the_values(low, high):
    ticks = charts.nice_ticks(low, high)
    assert 2 <= len(ticks) <= 7 and ticks == sorted(ticks)
    assert ticks[0] <= low and ticks[-1] >= high
    assert len({charts.short(tick) for tick in ticks}) == len(ticks)
