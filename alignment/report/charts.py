"""Draws SVG charts: scores by stage (a ladder) of one seed or of several seeds, and curves over training steps.

`bars`, `curve` and `shares` return elements for the static report and the live page, whose style sheet
`assets/components.css` defines their CSS classes. `ladder_picture` returns the content of a separate file, which includes
its styles. Scores are percentages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignment.chain.ladder import Rung
from alignment.report.elements import Element, element, svg

_PICTURE_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 } .title { font-weight: 600; font-size: 13px }
.tick { fill: #888; font-size: 10px; text-anchor: end } .stage { text-anchor: end } .value { text-anchor: middle; font-weight: 600; font-size: 11px }
.grid { stroke: #e5e5e5 } .mean { fill: none; stroke: #1f6feb; stroke-width: 2.5 } .seed { fill: #1f6feb; fill-opacity: .35 }
.interval { stroke: #1f6feb; stroke-opacity: .35; stroke-width: 2 }
"""
WIDTH, HEIGHT = 400, 200
"""Size of the charts on the pages, in units of their `viewBox`. A phone shows the texts of this size at 9 px."""
_CHARACTER_WIDTH = 6.2  # of the labels' font
_LONGEST_LABEL = 16
_WIDEST_BAR = 44
MOST_POINTS = 240
"""Number of points to which a curve is reduced before it is drawn."""
SMOOTHED_FROM = 100
"""Number of points from which a curve also gets a smoothed line."""


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

    def grid(self) -> list[Element]:
        """Return five horizontal lines from `low` to `high`, with their values."""
        return self.lines_at([self.low + (self.high - self.low) * part / 4 for part in range(5)])

    def lines_at(self, values: Sequence[float]) -> list[Element]:
        """Return horizontal lines at the given values, with the values."""
        lines = []
        for value in values:
            y = f"{self.y(value):.1f}"
            lines.append(element("line", x1=self.left, x2=self.width - self.right, y1=y, y2=y, class_="grid"))
            lines.append(
                element("text", short(value), x=self.left - 5, y=f"{self.y(value) + 3:.1f}", class_="tick")
            )  # fmt: skip
        return lines

    def interval(self, x: float, low: float, high: float) -> Element:
        """Return a vertical line from `low` to `high`."""
        place = f"{x:.1f}"
        return element("line", x1=place, x2=place, y1=f"{self.y(low):.1f}", y2=f"{self.y(high):.1f}", class_="interval")

    def label_above(self, x: float, high: float, text: str) -> Element:
        """Return a label just above a value. The label is moved down if it would be outside of the picture."""
        return element("text", text, x=f"{x:.1f}", y=f"{max(self.y(high) - 5, 10):.1f}", class_="value")


def short(value: float) -> str:
    """Format a number with three digits, and thousands and millions as `12k` and `3.4M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return "0" if abs(value) < 1e-12 else f"{value:.3g}"


def bars(rungs: Sequence[Rung]) -> Element:
    """Return a chart with one bar per stage and its 95% interval. The axis ends above the highest interval."""
    highest = max(rung["high"] for rung in rungs)
    top = next((float(top) for top in (10, 20, 40, 60, 80) if top >= highest), 100.0)
    labels = [_shortened(rung["stage"]) for rung in rungs]
    longest = max(len(label) for label in labels) * _CHARACTER_WIDTH
    upright = longest <= (WIDTH - 52) / len(rungs) - 4
    plot = Plot(
        WIDTH, HEIGHT, left=40, right=12, top=16, bottom=26 if upright else 24 + int(longest * 0.6), high=top
    )  # fmt: skip
    column = plot.inner_width / len(rungs)
    parts = plot.grid()
    for index, (rung, label) in enumerate(zip(rungs, labels, strict=True)):
        x = plot.left + column * index
        y, middle, wide = plot.y(rung["value"]), x + column / 2, min(column * 0.6, _WIDEST_BAR)
        text = f"{rung['stage']}: {rung['value']:.1f} [{rung['low']:.1f}, {rung['high']:.1f}]"
        parts.append(
            element(
                "g",
                element("title", text),
                element(
                    "rect", x=f"{middle - wide / 2:.1f}", y=f"{y:.1f}", width=f"{wide:.1f}",
                    height=f"{plot.height - plot.bottom - y:.1f}", class_="bar",
                ),
                plot.interval(middle, rung["low"], rung["high"]),
                plot.label_above(middle, rung["high"], f"{rung['value']:.1f}"),
                _stage_label(plot, middle, label, upright),
            )
        )  # fmt: skip
    spoken = ", ".join(f"{rung['stage']} {rung['value']:.1f}" for rung in rungs)
    return svg(plot.width, plot.height, f"{rungs[0]['metric']} in percent by stage: {spoken}", *parts)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…"


def _stage_label(plot: Plot, x: float, text: str, upright: bool) -> Element:
    y = plot.height - plot.bottom + (16 if upright else 12)
    if upright:
        return element("text", text, x=f"{x:.1f}", y=y, class_="label")
    return element("text", text, x=f"{x:.1f}", y=y, class_="end", transform=f"rotate(-38 {x + 3:.1f} {y})")


def curve(points: Sequence[tuple[float, float]], label: str = "curve", *, smooth: bool = True) -> Element:
    """Return a chart with a line through (step, value) points, and with `smooth` a smoothed line if there are many points.

    The attributes `data-*` of the picture give the ranges of both axes, from which the page computes the values that it
    shows under the pointer.
    """
    shown = reduced(points)
    values = [value for _, value in shown]
    ticks = nice_ticks(min(values), max(values))
    plot = Plot(
        WIDTH, HEIGHT, left=46, right=12, top=12, bottom=24,
        low=min(ticks[0], *values), high=max(ticks[-1], *values),
    )  # fmt: skip
    first, last = shown[0][0], shown[-1][0]
    span = last - first or 1

    def path(series: Sequence[tuple[float, float]]) -> str:
        return " ".join(
            f"{plot.left + plot.inner_width * (step - first) / span:.1f},{plot.y(value):.1f}" for step, value in series
        )

    many = smooth and len(points) >= SMOOTHED_FROM
    parts = [
        *plot.lines_at(ticks),
        element("polyline", points=path(shown), class_="curve faint" if many else "curve"),
        element("polyline", points=path(reduced(smoothed(points))), class_="curve") if many else None,
        element("text", f"step {first:g}", x=plot.left, y=plot.height - 6, class_="start"),
        element("text", f"{last:g}", x=plot.width - plot.right, y=plot.height - 6, class_="end"),
    ]
    spoken = f"{label}: {short(values[0])} at step {first:g}, {short(points[-1][1])} at step {last:g}"
    drawn = svg(plot.width, plot.height, spoken, *parts)
    drawn.attributes.update(
        {
            "class": "hover",
            "data-steps": f"{first:g} {last:g}",
            "data-values": f"{plot.low!r} {plot.high!r}",
            "data-plot": f"{plot.left} {plot.width - plot.right} {plot.top} {plot.height - plot.bottom}",
        }
    )
    return drawn


def nice_ticks(low: float, high: float) -> list[float]:
    """Return three to six round values that enclose or nearly enclose the range from `low` to `high`."""
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = (low - 0.5, high + 0.5) if high else (-0.5, 0.5)
    rough = (high - low) / 4
    size = 10 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def reduced(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Reduce a curve to at most `most` points. Each group of points keeps its lowest and its highest point, so that
    no peak is lost.
    """
    if len(points) <= most:
        return list(points)
    groups = (most - 2) // 2
    kept = [points[0]]
    for group in range(groups):
        part = points[1 + (len(points) - 2) * group // groups : 1 + (len(points) - 2) * (group + 1) // groups]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return [*kept, points[-1]]


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the exponential moving average of a curve, over about a twentieth of its points."""
    weight = min(1.0, 2 / (1 + max(5, len(points) / 20)))
    total = scale = 0.0
    means = []
    for step, value in points:
        total = total * (1 - weight) + value * weight
        scale = scale * (1 - weight) + weight
        means.append((step, total / scale))
    return means


def shares(counts: Mapping[str, float], label: str) -> Element:
    """Return a list of counts with one horizontal bar each, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    most = max((count for _, count in ordered), default=0) or 1
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            element("td", f"{count:,.0f}", class_="number"),
            element(
                "td",
                element(
                    "svg",
                    element("rect", x=0, y=0, width=f"{max(100 * count / most, 0.5):.1f}", height=8, class_="bar"),
                    viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true",
                ),
                class_="share",
            ),
        )
        for name, count in ordered
    ]  # fmt: skip
    return element("table", element("tbody", *rows), class_="shares", aria_label=label)


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
        parts = _panel(plot, title or metric, stages, series)
        panels.append(element("g", *parts, transform=f"translate({plot.width * number},0)"))
    width = plot.width * len(metrics)
    if len(ladders) == 1:
        note = "a dot with its 95% interval; the line and the numbers are its value"
    else:
        note = f"{len(ladders)} dots, one per seed, with 95% intervals; the line and the numbers are their mean"
    picture = element(
        "svg",
        element("style", _PICTURE_STYLE),
        element("rect", width=width, height=plot.height, fill="#fff"),
        *panels,
        element("text", note, x=width - plot.right, y=plot.height - 4, class_="tick"),
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {plot.height}", role="img",
    )  # fmt: skip
    return f"{picture}\n"


def _panel(plot: Plot, title: str, stages: Sequence[str], series: Sequence[Sequence[Rung]]) -> list[Element]:
    """Return the panel of one metric. `series` contains the ladder entries of each seed, in the order of `stages`."""
    column = plot.inner_width / len(stages)
    tasks = series[0][0]["n"]
    parts = [element("text", f"{title}, % of {tasks}", x=plot.left, y=18, class_="title"), *plot.grid()]
    means = []
    for place, stage in enumerate(stages):
        x = plot.left + column * (place + 0.5)
        for number, rungs in enumerate(series):
            dot = x + 5 * (number - (len(series) - 1) / 2)  # side by side, so that no interval hides another
            rung = rungs[place]
            y = f"{plot.y(rung['value']):.1f}"
            parts += [
                plot.interval(dot, rung["low"], rung["high"]),
                element("circle", cx=f"{dot:.1f}", cy=y, r="2.5", class_="seed"),
            ]
        mean = sum(rungs[place]["value"] for rungs in series) / len(series)
        means.append(f"{x:.1f},{plot.y(mean):.1f}")
        label = plot.height - plot.bottom + 14
        turned = f"rotate(-40 {x + 4:.1f} {label})"
        parts += [
            plot.label_above(x, max(rungs[place]["high"] for rungs in series), f"{mean:.0f}"),
            element("text", stage, x=f"{x + 4:.1f}", y=label, class_="stage", transform=turned),
        ]
    return [*parts, element("polyline", points=" ".join(means), class_="mean")]
