"""Charts of the report: escaped text, and values as in ladder.json."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from alignment.report import charts

ROOT = Path(__file__).resolve().parents[2]
RUNGS = [
    {"stage": "base", "metric": "m", "value": 0.0, "low": 0.0, "high": 1.2, "n": 300, "seed": 1},
    {"stage": "<sft>", "metric": "m", "value": 61.3, "low": 55.7, "high": 66.7, "n": 300, "seed": 1},
]


def test_a_stage_name_is_escaped():
    assert "<sft>" not in str(charts.bars(RUNGS))
    assert "&lt;sft&gt;" in str(charts.bars(RUNGS))


def test_every_bar_shows_its_value():
    values = re.findall(r'class="value">([\d.]+)<', str(charts.bars(RUNGS)))
    assert values == ["0.0", "61.3"]


def test_bars_of_higher_values_are_taller():
    heights = [float(height) for height in re.findall(r'height="([\d.]+)" class="bar"', str(charts.bars(RUNGS)))]
    assert heights[0] == 0 < heights[1]


def test_a_curve_of_equal_values_is_drawn():
    assert "nan" not in str(charts.curve([(1, 0.5), (2, 0.5)]))


def test_svg_is_well_formed():
    class Counter(HTMLParser):
        depth = 0

        def handle_starttag(self, tag, attrs):
            self.depth += tag in ("svg",)

        def handle_endtag(self, tag):
            self.depth -= tag in ("svg",)

    parser = Counter()
    parser.feed(str(charts.curve([(1, 2.0), (5, 1.0), (9, 0.2)])))
    assert parser.depth == 0


def test_the_picture_of_several_seeds_has_every_seed_and_the_mean_of_each_stage():
    other = [{**RUNGS[0]}, {**RUNGS[1], "value": 71.3}]
    svg = charts.ladder_picture([RUNGS, other], ["m"])
    assert svg.count("<circle") == 4
    assert re.findall(r'class="value">(\d+)<', svg) == ["0", "66"]


def test_a_panel_has_the_title_it_was_given():
    assert ">Chat &amp; code, % of 300<" in charts.ladder_picture([RUNGS], ["m=Chat & code"])


def test_ladders_of_different_stages_are_refused():
    with pytest.raises(ValueError, match="differ in their stages"):
        charts.ladder_picture([RUNGS, RUNGS[:1]], ["m"])


def test_a_missing_metric_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no metric `n`; known metrics: m"):
        charts.ladder_picture([RUNGS], ["n"])


def test_the_shipped_ladder_picture_is_drawn_by_this_code():
    """Redrawn from its own coordinates, it comes out the same but for means of rounded values."""
    shipped = (ROOT / "recipes" / "quickstart-ladder.svg").read_text()
    metrics, ladders = [], [[], [], []]
    for number, panel in enumerate(re.findall("<g transform.*?</g>", shipped)):
        title, tasks = re.search('class="title">(.*?), % of ([0-9]+)<', panel).groups()
        metrics.append(f"m{number}={title}")
        stages = re.findall('class="stage"[^>]*>([^<]*)<', panel)
        dots = re.findall('y1="([0-9.]+)" y2="([0-9.]+)" class="interval"/><circle cx="[0-9.]+" cy="([0-9.]+)"', panel)
        for place, dot in enumerate(dots):
            low, high, value = ((208 - float(y)) / 174 * 100 for y in dot)
            rung = {"stage": stages[place // 3], "metric": f"m{number}", "n": tasks, "seed": place % 3}
            ladders[place % 3].append({**rung, "low": low, "high": high, "value": value})
    redrawn = charts.ladder_picture(ladders, metrics)
    parts = [re.findall(r"[0-9.]+|[^0-9.]+", svg) for svg in (shipped, redrawn)]
    different = [(a, b) for a, b in zip(*parts, strict=True) if a != b]
    assert all(abs(float(a) - float(b)) < 0.11 for a, b in different) and len(different) < 5
