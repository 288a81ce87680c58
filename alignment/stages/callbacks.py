"""Training callbacks: mark complete checkpoints, log metrics and progress, seed GRPO's row order.

Training waits while a checkpoint is written. transformers 5.23 and accelerate 1.15 can't write in the background.
DeepSpeed 0.19's decoupled writer can, but it finishes a checkpoint at a later step. By then, transformers has already
counted the checkpoint as complete and deleted an older checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.logs import IN_BLOCK, format_duration, get_logger
from alignment.planning.disk import check_checkpoint_space
from alignment.progress import LiveView
from alignment.stages.checkpoints import write_manifest
from alignment.stages.stopping import SWITCH

logger = get_logger(__name__)

_SECONDS_BETWEEN_MESSAGES = 5


def save_unit(args: Any) -> int:
    """Return the number of steps after which a checkpoint can be written, since no generation of completions is still
    in use.

    In GRPO, several steps may train on one generation of completions, and a checkpoint does not contain the
    completions. A run that resumes between two generations would train on different completions than an uninterrupted
    run.
    """
    per_generation = getattr(args, "steps_per_generation", None)
    if per_generation is None:
        return 1
    return (
        math.lcm(per_generation * args.num_iterations, args.gradient_accumulation_steps)
        // args.gradient_accumulation_steps
    )


class AlreadyTrained(Exception):
    """Raised if training resumes from the checkpoint of its last step: the weights have been loaded, and there is no
    further step.
    """


class Recorder(TrainerCallback):
    """Mark complete checkpoints, write metrics.jsonl, and log the progress every few seconds."""

    def __init__(self, out: Path, rank: int, world_size: int):
        self.out, self.rank, self.world_size = out, rank, world_size
        self.file = out / "metrics.jsonl"
        self.last_message = time.monotonic()
        self.reference: tuple[float, int, float | None] | None = None
        """Time, step and number of trained tokens at the first progress message, from which the speed is computed."""
        self.begun = time.monotonic()
        self.first_step: float | None = None
        """Seconds from the start of training to the end of the first step."""
        self.after_first_step = 0.0
        """Seconds from the end of the first step to the end of the last step. Start-up and compilation are not
        included."""
        self.view = LiveView("", 0, "steps")
        """The block on the terminal. It is shown by rank 0 only."""
        self.figures: dict[str, Any] = {}
        """The figures that were logged last."""
        self.speed = ""
        """Tokens per second and time left when they were logged last, with a leading comma."""
        self.from_start = 0.0
        """Seconds from the start of this process (imports, data, model) to the end of the first step."""

    def timings(self) -> dict[str, float]:
        """Return the measured times for the artifact. The dict is empty if no step was trained."""
        if self.first_step is None:
            return {}
        return {
            "seconds_to_first_step": round(self.first_step, 2),
            "seconds_after_first_step": round(self.after_first_step, 3),
            "seconds_from_start": round(self.from_start, 1),
        }

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.begun = time.monotonic()
        if self.rank == 0 and self.file.exists():
            # A resumed run writes the steps after its checkpoint again.
            kept = [line for line in self.file.read_text().splitlines() if _step_of(line) <= state.global_step]
            self.file.write_text("".join(f"{line}\n" for line in kept))

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # transformers checks for the end only after a step: after resuming from the last step's checkpoint, it would
        # train one step too many.
        if state.global_step >= state.max_steps:
            raise AlreadyTrained

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % save_unit(args) == 0 and self._stop_requested(args):
            logger.info("      a stop signal: saving step %d, from which the next run resumes", state.global_step)
            control.should_save = control.should_training_stop = True
        if control.should_save and self.rank == 0:
            check_checkpoint_space(Path(str(args.output_dir)), state.global_step)
        elapsed = time.monotonic() - self.begun
        if self.first_step is None:
            self.first_step = elapsed
            self.from_start = time.time() - psutil.Process().create_time()
        self.after_first_step = elapsed - self.first_step
        self._show(state)

    def _show(self, state: TrainerState) -> None:
        """Update the block on the terminal if the last update is old enough."""
        now = time.monotonic()
        if self.rank == 0 and self.view.due(now):
            self.view.total = state.max_steps
            self.view.show(state.global_step, self._details(state), now)

    def _details(self, state: TrainerState) -> str:
        """Return the figures that were logged last, the speed, and the time left."""
        known = {"loss": "{:.4f}", "reward": "{:.3f}"}
        parts = [f"{name} {form.format(self.figures[name])}" for name, form in known.items() if name in self.figures]
        return ", ".join(parts) + self.speed

    def _stop_requested(self, args: TrainingArguments) -> bool:
        """Whether any rank has received a stop signal.

        This is a collective operation: all ranks must call it after the same step.
        """
        if self.world_size > 1 and distributed.is_initialized():
            requested = torch.tensor(int(SWITCH.requested), device=args.device)
            distributed.all_reduce(requested, op=distributed.ReduceOp.MAX)
            SWITCH.requested = bool(requested.item())
        return SWITCH.requested

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if self.rank != 0 or not logs:
            return
        figures = {key: value for key, value in logs.items() if isinstance(value, int | float)}
        seconds = round(time.monotonic() - self.begun, 2)
        line = {"step": state.global_step, "max_steps": state.max_steps, "seconds": seconds, **figures}
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.figures |= figures
        if self.view.active:
            self.speed = self._speed(state, figures.get("num_tokens"))
            self._show(state)
        if time.monotonic() - self.last_message > _SECONDS_BETWEEN_MESSAGES and "loss" in figures:
            self.last_message = time.monotonic()
            reward = f", reward {figures['reward']:.3f}" if "reward" in figures else ""
            speed = self._speed(state, figures.get("num_tokens"))
            message = "      step %d/%d  loss %.4f%s%s"
            logger.info(message, state.global_step, state.max_steps, figures["loss"], reward, speed, extra=IN_BLOCK)

    def _speed(self, state: TrainerState, tokens: float | None) -> str:
        """Return tokens per second and the time left, from the steps after the first message of this process."""
        now = time.monotonic()
        if self.reference is None:
            self.reference = (now, state.global_step, tokens)
            return ""
        since, first_step, first_tokens = self.reference
        elapsed, steps = now - since, state.global_step - first_step
        parts = []
        if tokens is not None and first_tokens is not None and tokens > first_tokens:
            parts.append(f"{(tokens - first_tokens) / elapsed:,.0f} tokens/s")
        if steps > 0 and state.global_step < state.max_steps:
            parts.append(f"{format_duration(elapsed / steps * (state.max_steps - state.global_step))} left")
        return "".join(f", {part}" for part in parts)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.view.close()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()  # until every rank has written its files
        if folder.is_dir():
            write_manifest(folder, self.rank, self.world_size)
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()  # the first rank that ends may make the launcher end the others


class OrderOfEpoch(TrainerCallback):
    """Seed the order of prompts with the index of the epoch, so that a resumed GRPO run sees the same prompts.

    TRL's sampler draws the orders of all epochs from one generator. A resumed process starts this generator anew and
    would repeat the order of the first epoch.
    """

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        sampler = train_dataloader.batch_sampler
        while hasattr(sampler, "batch_sampler"):
            sampler = sampler.batch_sampler
        generator = getattr(sampler.sampler, "generator", None)
        if generator is not None:
            generator.manual_seed(args.seed + int(state.epoch or 0))


def _step_of(line: str) -> int:
    """Return the step of a line of metrics.jsonl.

    A truncated line gets a huge step, so that the caller drops the line.
    """
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62
