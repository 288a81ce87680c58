"""Training callback that sends metrics to the trackers of a recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.tracking.background_tracker import BackgroundTracker


class TrackerCallback(TrainerCallback):
    """Send each log of the trainer to trackers, and end their runs with training. Only rank 0 has trackers."""

    def __init__(self, trackers: Sequence[BackgroundTracker]) -> None:
        self.trackers = trackers

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        metrics = {key: float(value) for key, value in (logs or {}).items() if isinstance(value, int | float)}
        metrics = {key: value for key, value in metrics.items() if math.isfinite(value)}
        for tracker in self.trackers if metrics else ():
            tracker.log(metrics, state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for tracker in self.trackers:
            tracker.finish()
