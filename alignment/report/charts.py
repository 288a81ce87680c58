"""Draws SVG charts: scores by stage (a ladder) of one seed or of several seeds, and curves over training steps.

`bars` and `curve` return fragments for the HTML report, whose style sheet defines their CSS classes. `ladder_picture`
returns the content of a separate file, which includes its styles. Values are percentages, except in `curve`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from alignment.chain.ladder import Rung

_PICTURE_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 } .title { font-weight: 600; font-size: 13px }
.tick { fill: #888; font-size: 10px; text-anchor: end } .stage { text-anchor: end } .value { text-anchor: middle; font-weight: 600; font-size: 11px }
.grid { stroke: #e5e5e5 } .mean { fill: none; stroke: #1f6feb; stroke-width: 2.5 } .seed { fill: #1f6feb; fill-opacity: .35 }
.interval { stroke: #1f6feb; stroke-opacity: .35; stroke-width: 2 }
"""


@dataclass(frozen=True)
class Plot:
    """A plot area in pixels, with a linear value axis from `low` to `high`."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    low: float = 0.0
    high: float = 100.0

    @property
    def inner_width(self) -> int:
        """Width between the left and right margins, in pixels."""
        return self.width - self.left - self.right

    def y(self, value: float) -> float:
        """Return the vertical position of a value."""
        return self.top + (self.height - self.top - self.bottom) * (1 - (value - self.low) / (self.high - self.low))

    def grid(self) -> str:
        """Return five horizontal lines from `low` to `high`, with their values."""
        lines = []
        for part in range(5):
            value = self.low + (self.high - self.low) * part / 4
            lines.append(
                f'<line x1="{self.left}" x2="{self.width - self.right}" y1="{self.y(value):.1f}" y2="{self.y(value):.1f}" class="grid"/>'
                f'<text x="{self.left - 5}" y="{self.y(value) + 3:.1f}" class="tick">{value:.3g}</text>'
            )
        return "".join(lines)

    def interval(self, x: float, low: float, high: float) -> str:
        """Return a vertical line from `low` to `high`."""
        return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{self.y(low):.1f}" y2="{self.y(high):.1f}" class="interval"/>'

    def label_above(self, x: float, high: float, text: str) -> str:
        """Return a label just above a value. The label is moved down if it would be outside of the picture."""
        return f'<text x="{x:.1f}" y="{max(self.y(high) - 5, 10):.1f}" class="value">{text}</text>'

    def fragment(self, parts: Sequence[str]) -> Markup:
        """Return the parts as an `<svg>` element for an HTML page."""
        return Markup(f'<svg viewBox="0 0 {self.width} {self.height}" role="img">{"".join(parts)}</svg>')


def bars(rungs: Sequence[Rung]) -> Markup:
    """Return a chart with one bar per stage and its 95% interval. The axis ends above the highest interval."""
    highest = max(rung["high"] for rung in rungs)
    top = next((float(top) for top in (10, 20, 40, 60, 80) if top >= highest), 100.0)
    plot = Plot(560, 220, left=44, right=12, top=14, bottom=34, high=top)
    column = plot.inner_width / len(rungs)
    parts = [plot.grid()]
    for index, rung in enumerate(rungs):
        x = plot.left + column * index
        y = plot.y(rung["value"])
        parts.append(
            f'<rect x="{x + column * 0.2:.1f}" y="{y:.1f}" width="{column * 0.6:.1f}" '
            f'height="{plot.height - plot.bottom - y:.1f}" class="bar"/>'
            + plot.interval(x + column / 2, rung["low"], rung["high"])
            + plot.label_above(x + column / 2, rung["high"], f"{rung['value']:.1f}")
            + f'<text x="{x + column / 2:.1f}" y="{plot.height - 16}" class="label">{escape(rung["stage"])}</text>'
        )
    return plot.fragment(parts)


def curve(points: Sequence[tuple[float, float]]) -> Markup:
    """Return a chart with a line through (step, value) points. Both axes range from the lowest to the highest point."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    plot = Plot(560, 220, left=44, right=12, top=14, bottom=34, low=low, high=high)
    span = max(steps) - min(steps) or 1
    path = " ".join(
        f"{plot.left + plot.inner_width * (step - min(steps)) / span:.1f},{plot.y(value):.1f}" for step, value in points
    )
    labels = (
        f'<text x="{plot.left}" y="{plot.height - 16}" class="label">step {min(steps):g}</text>'
        f'<text x="{plot.width - plot.right}" y="{plot.height - 16}" class="end">{max(steps):g}</text>'
    )
    return plot.fragment([plot.grid(), f'<polyline points="{path}" class="curve"/>', labels])


def ladder_picture(ladders: Sequence[Sequence[Rung]], metrics: Sequence[str]) -> str:
    """Return the content of an SVG file with one panel per metric.

    A panel shows a dot with its 95% interval for each seed, and a line through the means of the seeds.

    Args:
        ladders: the entries of each seed's `ladder.json`. All ladders must have the same stages.
        metrics: names of metrics, for example `fim.pass@1`. `fim.pass@1=Fill in the middle` gives the panel a title.

    Raises:
        ValueError: a ladder lacks a metric, or the ladders have different stages.
    """
    panels = []
    plot = Plot(270, 270, left=34, right=10, top=34, bottom=62)
    for number, item in enumerate(metrics):
        metric, _, title = item.partition("=")
        series = [[rung for rung in ladder if rung["metric"] == metric] for ladder in ladders]
        if not all(series):
            known = sorted({rung["metric"] for ladder in ladders for rung in ladder})
            raise ValueError(f"a ladder has no metric `{metric}`; known metrics: {', '.join(known)}")
        stages = [rung["stage"] for rung in series[0]]
        if any([rung["stage"] for rung in rungs] != stages for rungs in series):
            raise ValueError(
                f"the ladders differ in their stages: one of them has {metric} after {', '.join(stages)}, another after "
                "other stages"
            )
        panels.append(
            f'<g transform="translate({plot.width * number},0)">{_panel(plot, title or metric, stages, series)}</g>'
        )
    width = plot.width * len(metrics)
    if len(ladders) == 1:
        note = "a dot with its 95% interval; the line and the numbers are its value"
    else:
        note = f"{len(ladders)} dots, one per seed, with 95% intervals; the line and the numbers are their mean"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {plot.height}" role="img"><style>{_PICTURE_STYLE}</style>'
        f'<rect width="{width}" height="{plot.height}" fill="#fff"/>{"".join(panels)}'
        f'<text x="{width - plot.right}" y="{plot.height - 4}" class="tick">{note}</text></svg>\n'
    )


def _panel(plot: Plot, title: str, stages: Sequence[str], series: Sequence[Sequence[Rung]]) -> str:
    """Return the panel of one metric. `series` contains the ladder entries of each seed, in the order of `stages`."""
    column = plot.inner_width / len(stages)
    tasks = series[0][0]["n"]
    parts = [f'<text x="{plot.left}" y="18" class="title">{escape(title)}, % of {tasks}</text>', plot.grid()]
    means = []
    for place, stage in enumerate(stages):
        x = plot.left + column * (place + 0.5)
        for number, rungs in enumerate(series):
            dot = x + 5 * (number - (len(series) - 1) / 2)  # side by side, so that no interval hides another
            rung = rungs[place]
            parts.append(
                plot.interval(dot, rung["low"], rung["high"])
                + f'<circle cx="{dot:.1f}" cy="{plot.y(rung["value"]):.1f}" r="2.5" class="seed"/>'
            )
        mean = sum(rungs[place]["value"] for rungs in series) / len(series)
        means.append(f"{x:.1f},{plot.y(mean):.1f}")
        label = plot.height - plot.bottom + 14
        parts.append(
            plot.label_above(x, max(rungs[place]["high"] for rungs in series), f"{mean:.0f}")
            + f'<text x="{x + 4:.1f}" y="{label}" class="stage" transform="rotate(-40 {x + 4:.1f} {label})">{escape(stage)}</text>'
        )
    return "".join([*parts, f'<polyline points="{" ".join(means)}" class="mean"/>'])
