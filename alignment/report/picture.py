"""The ladders of one recipe under several seeds as one SVG: what every stage earned, and how far that is luck.

python -m alignment.report.picture runs/*/ladder.json --metrics fim.pass@1=FIM instruct.pass@1 --out ladder.svg
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import escape

from alignment.files import write_text

_PANEL, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 270, 270, 34, 10, 34, 62
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 } .title { font-weight: 600; font-size: 13px }
.tick { fill: #888; font-size: 10px; text-anchor: end } .stage { text-anchor: end } .value { text-anchor: middle; font-weight: 600; font-size: 11px }
.grid { stroke: #e5e5e5 } .mean { fill: none; stroke: #1f6feb; stroke-width: 2.5 } .seed { fill: #1f6feb; fill-opacity: .35 }
.interval { stroke: #1f6feb; stroke-opacity: .35; stroke-width: 2 }
"""


def draw(ladders: Sequence[Sequence[dict[str, Any]]], metrics: Sequence[str]) -> str:
    """One panel per metric: a dot with its 95% interval for every seed, and a line through their means.

    Args:
        ladders: The entries of each `ladder.json`; all of them climb the same stages.
        metrics: Which metrics, for example `fim.pass@1`, or `fim.pass@1=Fill in the middle` to give the panel a title of
            its own; values are percent.

    Raises:
        ValueError: A ladder lacks a metric, or the stages differ.
    """
    panels = []
    for number, wanted in enumerate(metrics):
        metric, _, title = wanted.partition("=")
        climbs = [[entry for entry in ladder if entry["metric"] == metric] for ladder in ladders]
        if not all(climbs):
            known = sorted({entry["metric"] for ladder in ladders for entry in ladder})
            raise ValueError(f"a ladder has no metric `{metric}`; there are {', '.join(known)}")
        stages = [entry["stage"] for entry in climbs[0]]
        if any([entry["stage"] for entry in climb] != stages for climb in climbs):
            raise ValueError(
                f"the ladders differ in their stages: {metric} was measured after {', '.join(stages)} in one"
            )
        panels.append(f'<g transform="translate({_PANEL * number},0)">{_panel(title or metric, stages, climbs)}</g>')
    width = _PANEL * len(metrics)
    dots = "a dot" if len(ladders) == 1 else f"{len(ladders)} dots, one a seed,"
    note = (
        f"{dots} with 95% intervals; the line and the figures are {'its value' if len(ladders) == 1 else 'their mean'}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" role="img"><style>{_STYLE}</style>'
        f'<rect width="{width}" height="{_HEIGHT}" fill="#fff"/>{"".join(panels)}'
        f'<text x="{width - _RIGHT}" y="{_HEIGHT - 4}" class="tick">{note}</text></svg>\n'
    )


def _panel(title: str, stages: Sequence[str], climbs: Sequence[Sequence[dict[str, Any]]]) -> str:
    step = (_PANEL - _LEFT - _RIGHT) / len(stages)
    tasks = climbs[0][0]["n"]
    parts = [f'<text x="{_LEFT}" y="18" class="title">{escape(title)}, % of {tasks}</text>']
    for tick in range(0, 101, 25):
        parts.append(
            f'<line x1="{_LEFT}" x2="{_PANEL - _RIGHT}" y1="{_y(tick):.1f}" y2="{_y(tick):.1f}" class="grid"/>'
            f'<text x="{_LEFT - 5}" y="{_y(tick) + 3:.1f}" class="tick">{tick}</text>'
        )
    means = []
    for place, stage in enumerate(stages):
        x = _LEFT + step * (place + 0.5)
        for number, climb in enumerate(climbs):
            dot = x + 5 * (number - (len(climbs) - 1) / 2)  # side by side, so that no interval hides another
            entry = climb[place]
            parts.append(
                f'<line x1="{dot:.1f}" x2="{dot:.1f}" y1="{_y(entry["low"]):.1f}" y2="{_y(entry["high"]):.1f}" class="interval"/>'
                f'<circle cx="{dot:.1f}" cy="{_y(entry["value"]):.1f}" r="2.5" class="seed"/>'
            )
        mean = sum(climb[place]["value"] for climb in climbs) / len(climbs)
        highest = max(climb[place]["high"] for climb in climbs)
        means.append(f"{x:.1f},{_y(mean):.1f}")
        label = _HEIGHT - _BOTTOM + 14
        parts.append(
            f'<text x="{x:.1f}" y="{_y(highest) - 5:.1f}" class="value">{mean:.0f}</text>'
            f'<text x="{x + 4:.1f}" y="{label}" class="stage" transform="rotate(-40 {x + 4:.1f} {label})">{escape(stage)}</text>'
        )
    return "".join([*parts, f'<polyline points="{" ".join(means)}" class="mean"/>'])


def _y(percent: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - percent / 100)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladders", nargs="+", type=Path, help="ladder.json of each seed")
    parser.add_argument("--metrics", nargs="+", required=True, help="one panel each: METRIC or METRIC=TITLE")
    parser.add_argument("--out", type=Path, required=True, help="the SVG to write")
    options = parser.parse_args()
    try:
        picture = draw([json.loads(path.read_text(encoding="utf-8")) for path in options.ladders], options.metrics)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_text(options.out, picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
