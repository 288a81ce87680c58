"""Reads the curves of training stages from `metrics.jsonl`, while a stage runs or later."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.logs import format_duration
from alignment.report.growing_file import GrowingFile

METRICS = "metrics.jsonl"
TITLES: Mapping[str, Mapping[str, str]] = {
    "pretrain": {"loss": "loss", "mean_token_accuracy": "token accuracy"},
    "sft": {"loss": "loss", "mean_token_accuracy": "token accuracy"},
    "kto": {"loss": "loss", "rewards/margins": "reward of accepted minus rejected answers"},
    "dpo": {"loss": "loss", "rewards/accuracies": "pairs ranked correctly", "rewards/margins": "reward margin"},
    "grpo": {
        "reward": "reward",
        "frac_reward_zero_std": "groups with equal rewards",
        "completions/mean_length": "tokens of a completion",
        "kl": "KL divergence from the reference model",
        "loss": "loss",
    },
}
"""Kind of stage -> its curves: TRL's name of a metric in metrics.jsonl -> title of the curve."""
ANY_KIND = {"loss": "loss", "reward": "reward"}
SHARED = {"eval_loss": "loss on held-out rows", "learning_rate": "learning rate", "grad_norm": "gradient norm"}
"""Curves that come after those of the kind."""
SPEED = "tokens per second"
_SPEED_LINES = 5  # lines of metrics.jsonl over which the speed is measured

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One metric over the steps of a stage."""

    key: str
    title: str
    points: Points

    @property
    def noisy(self) -> bool:
        """Whether a smoothed line helps. The learning rate is exact."""
        return self.key != "learning_rate"


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training stage is."""

    step: int
    steps: int
    figures: str
    """Loss, reward, speed and time left, as text."""

    @property
    def share(self) -> float:
        """Share of the steps that are done, from 0 to 1."""
        return self.step / self.steps if self.steps else 0.0


class MetricsFile:
    """The `metrics.jsonl` of one stage."""

    def __init__(self, folder: Path) -> None:
        self.file = GrowingFile(folder / METRICS, _parse)

    def curves(self, kind: str) -> list[Curve]:
        """Return the curves that have at least two points, in the order in which they are shown."""
        logs = self.file.refresh()
        curves = []
        for key, title in {**TITLES.get(kind, ANY_KIND), **SHARED}.items():
            points = [(log["step"], log[key]) for log in logs if _is_number(log.get(key))]
            if len(points) > 1:
                curves.append(Curve(key, title, points))
        speeds = speed_points(logs)
        if len(speeds) > 1:
            curves.append(Curve("speed", SPEED, speeds))
        return curves

    def progress(self) -> TrainingProgress | None:
        """Return the last step and its figures, or None if no step has been logged."""
        logs = [log for log in self.file.refresh() if "max_steps" in log]
        if not logs:
            return None
        last = next((log for log in reversed(logs) if "loss" in log), logs[-1])
        parts = [f"{name} {last[name]:.4g}" for name in ("loss", "reward") if _is_number(last.get(name))]
        if speeds := speed_points(logs[-2 * _SPEED_LINES :]):
            parts.append(f"{speeds[-1][1]:,.0f} tokens/s")
        if (left := _seconds_left(logs)) is not None:
            parts.append(f"{format_duration(left)} left")
        return TrainingProgress(int(last["step"]), int(last["max_steps"]), ", ".join(parts))


def _parse(offset: int, line: bytes) -> dict[str, Any] | None:
    try:
        log = json.loads(line)
    except ValueError:
        return None
    return log if isinstance(log, dict) and _is_number(log.get("step")) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def speed_points(logs: Sequence[Mapping[str, Any]]) -> Points:
    """Return (step, tokens per second), measured over a few lines. A resumed process starts its clock anew, so lines of
    two processes are not compared.
    """
    timed = [log for log in logs if _is_number(log.get("seconds")) and _is_number(log.get("num_tokens"))]
    points = []
    for earlier, later in zip(timed, timed[_SPEED_LINES:], strict=False):
        seconds, tokens = later["seconds"] - earlier["seconds"], later["num_tokens"] - earlier["num_tokens"]
        if seconds > 0 and tokens > 0:
            points.append((float(later["step"]), tokens / seconds))
    return points


def _seconds_left(logs: Sequence[Mapping[str, Any]]) -> float | None:
    """Estimate the time to the last step from the newest lines that one process wrote."""
    last = logs[-1]
    recent = [log for log in logs[-50:] if _is_number(log.get("seconds")) and log["seconds"] < last.get("seconds", 0)]
    if not recent or last["step"] >= last["max_steps"]:
        return None
    first = recent[0]
    if last["step"] <= first["step"]:
        return None
    pace = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    return float(pace * (last["max_steps"] - last["step"]))
