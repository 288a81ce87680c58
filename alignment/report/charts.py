"""Two kinds of pictures as plain SVG: rungs with their intervals, and curves over steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 560, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 14, 34


def rungs(entries: Sequence[dict[str, Any]]) -> Markup:
    """One bar a stage with its 95% interval; `value`, `low` and `high` in percent."""
    highest = max(entry["high"] for entry in entries)
    top = next((float(top) for top in (10, 20, 40, 60, 80) if top >= highest), 100.0)  # four even steps
    width = (_WIDTH - _LEFT - _RIGHT) / len(entries)
    parts = [_axis(0.0, top)]
    for index, entry in enumerate(entries):
        x = _LEFT + width * index
        middle = x + width / 2
        y = _y(entry["value"], 0.0, top)
        parts.append(
            f'<rect x="{x + width * 0.2:.1f}" y="{y:.1f}" width="{width * 0.6:.1f}" '
            f'height="{_HEIGHT - _BOTTOM - y:.1f}" class="bar"/>'
            f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{_y(entry["low"], 0.0, top):.1f}" '
            f'y2="{_y(entry["high"], 0.0, top):.1f}" class="interval"/>'
            f'<text x="{middle:.1f}" y="{max(_y(entry["high"], 0.0, top) - 4, 10):.1f}" class="value">'
            f"{entry['value']:.1f}</text>"
            f'<text x="{middle:.1f}" y="{_HEIGHT - 16}" class="label">{escape(entry["stage"])}</text>'
        )
    return _svg(parts)


def curve(points: Sequence[tuple[float, float]]) -> Markup:
    """A line over steps."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    span = max(steps) - min(steps) or 1
    plot = _WIDTH - _LEFT - _RIGHT
    path = " ".join(
        f"{_LEFT + plot * (step - min(steps)) / span:.1f},{_y(value, low, high):.1f}" for step, value in points
    )
    labels = (
        f'<text x="{_LEFT}" y="{_HEIGHT - 16}" class="label">step {min(steps):g}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 16}" class="end">{max(steps):g}</text>'
    )
    return _svg([_axis(low, high), f'<polyline points="{path}" class="curve"/>', labels])


def _axis(low: float, high: float) -> str:
    lines = []
    for part in range(5):
        value = low + (high - low) * part / 4
        y = _y(value, low, high)
        lines.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="tick">{value:.3g}</text>'
        )
    return "".join(lines)


def _y(value: float, low: float, high: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (value - low) / (high - low))


def _svg(parts: Sequence[str]) -> Markup:
    return Markup(f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>')
