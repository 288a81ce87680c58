"""The report: self-contained, escaped, and drawn from the same figures as ladder.json."""

import re
from html.parser import HTMLParser

import pytest

from alignment.report import charts, picture

RUNGS = [
    {"stage": "base", "metric": "m", "value": 0.0, "low": 0.0, "high": 1.2, "n": 300, "seed": 1},
    {"stage": "<sft>", "metric": "m", "value": 61.3, "low": 55.7, "high": 66.7, "n": 300, "seed": 1},
]


def test_a_stage_name_is_text_in_the_picture_never_markup():
    assert "<sft>" not in charts.rungs(RUNGS)
    assert "&lt;sft&gt;" in charts.rungs(RUNGS)


def test_every_rung_shows_its_value():
    values = re.findall(r'class="value">([\d.]+)<', charts.rungs(RUNGS))
    assert values == ["0.0", "61.3"]


def test_taller_bars_for_higher_values():
    heights = [float(height) for height in re.findall(r'height="([\d.]+)" class="bar"', charts.rungs(RUNGS))]
    assert heights[0] == 0 < heights[1]


def test_a_flat_curve_is_still_a_picture():
    assert "nan" not in charts.curve([(1, 0.5), (2, 0.5)])


def test_svg_is_well_formed():
    class Counter(HTMLParser):
        depth = 0

        def handle_starttag(self, tag, attrs):
            self.depth += tag in ("svg",)

        def handle_endtag(self, tag):
            self.depth -= tag in ("svg",)

    parser = Counter()
    parser.feed(charts.curve([(1, 2.0), (5, 1.0), (9, 0.2)]))
    assert parser.depth == 0


def test_the_picture_of_several_seeds_has_every_seed_and_the_mean_of_each_stage():
    other = [{**RUNGS[0]}, {**RUNGS[1], "value": 71.3}]
    drawn = picture.draw([RUNGS, other], ["m"])
    assert drawn.count("<circle") == 4
    assert re.findall(r'class="value">(\d+)<', drawn) == ["0", "66"]


def test_a_panel_of_the_picture_bears_the_title_it_was_given():
    assert ">Chat &amp; code, % of 300<" in picture.draw([RUNGS], ["m=Chat & code"])


def test_ladders_of_different_stages_are_not_drawn_as_one():
    with pytest.raises(ValueError, match="differ in their stages"):
        picture.draw([RUNGS, RUNGS[:1]], ["m"])


def test_a_metric_that_no_ladder_has_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="no metric `n`; there are m"):
        picture.draw([RUNGS], ["n"])
