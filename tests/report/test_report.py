"""The report: self-contained, escaped, and drawn from the same figures as ladder.json."""

import re
from html.parser import HTMLParser

from alignment import charts

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
