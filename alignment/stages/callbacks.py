"""Training callbacks: mark complete checkpoints, log metrics and progress, seed GRPO's row order.

Training waits while a checkpoint is written. transformers 5.23 and accelerate 1.15 can't write in the background.
DeepSpeed 0.19's decoupled writer finishes a checkpoint at a later step, when transformers has already counted it as
complete and deleted an older one.
"""

from __future__ import annotations

import json
import re
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import psutil
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.logs import get_logger
from alignment.planning.disk import check_checkpoint_space

logger = get_logger(__name__)

_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")
_SECONDS_BETWEEN_MESSAGES = 5


def last_whole_checkpoint(folder: Path, world_size: int, rank: int = 0) -> Path | None:
    """Return the newest checkpoint that every rank finished and whose files are complete. Return None if there is none.

    Rank 0 removes checkpoints that not every rank finished.

    Args:
        folder: the folder of the checkpoints.
        world_size: the number of processes of this run.
        rank: this process's rank.

    Raises:
        ValueError: a checkpoint was written by another number of processes. Optimizer shards and random states can't be
            redistributed to a different number of processes.
    """
    whole: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        if not (match := _CHECKPOINT.match(path.name)):
            continue
        sizes = _marked_world_sizes(path)
        if other := set(sizes) - {world_size}:
            raise ValueError(
                f"{path} was written by {max(other)} processes and this run has {world_size}. Launch with "
                f"{max(other)} again to resume, or delete {folder} to start the stage anew."
            )
        if len(sizes) < world_size:
            if rank == 0:
                shutil.rmtree(path)
        elif (truncated := _truncated_file(path)) is None:
            whole[int(match.group(1))] = path
        elif rank == 0:  # the checkpoint is kept: the user may want to look at it
            logger.warning("%s is not used: %s is truncated", path.name, truncated.relative_to(path))
    return whole[max(whole)] if whole else None


def _truncated_file(checkpoint: Path) -> Path | None:
    """Return a weight or state file that is cut short, as after a power failure.

    Return None if all files are complete.
    """
    for file in sorted(checkpoint.rglob("*")):
        if file.suffix == ".safetensors":
            with file.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                try:
                    header: dict[str, Any] = json.loads(stream.read(size if size < 100_000_000 else 0))
                    end = max((entry["data_offsets"][1] for key, entry in header.items() if key[:2] != "__"), default=0)
                except (ValueError, AttributeError, TypeError, KeyError):
                    return file
            if file.stat().st_size != 8 + size + end:
                return file
        elif file.suffix in (".pt", ".pth") and not zipfile.is_zipfile(file):
            return file
    return None


def _marked_world_sizes(checkpoint: Path) -> list[int]:
    """Read a checkpoint's `whole-<rank>.json` files and return the number of processes that each of them names.

    Each rank writes its file when it has finished the checkpoint. Unreadable files are skipped. The list is empty if
    rank 0 removes the folder in the meantime.
    """
    sizes = []
    for mark in checkpoint.glob("whole-*.json"):
        try:
            sizes.append(int(json.loads(mark.read_text())["world_size"]))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return sizes


class AlreadyTrained(Exception):
    """Training resumed from the checkpoint of its last step: the weights are loaded, and no step is left."""


class Recorder(TrainerCallback):
    """Mark complete checkpoints, write metrics.jsonl, and log the progress every few seconds."""

    def __init__(self, out: Path, rank: int, world_size: int):
        self.out, self.rank, self.world_size = out, rank, world_size
        self.file = out / "metrics.jsonl"
        self.last_message = time.monotonic()
        self.begun = time.monotonic()
        self.first_step: float | None = None
        """Seconds from the start of training to the end of the first step."""
        self.after_first_step = 0.0
        """Seconds from the end of the first step to the end of the last step: without start-up and compilation."""
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
        if control.should_save and self.rank == 0:
            check_checkpoint_space(Path(str(args.output_dir)), state.global_step)
        elapsed = time.monotonic() - self.begun
        if self.first_step is None:
            self.first_step = elapsed
            self.from_start = time.time() - psutil.Process().create_time()
        self.after_first_step = elapsed - self.first_step

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
        with self.file.open("a") as file:
            file.write(json.dumps({"step": state.global_step, **figures}) + "\n")
        if time.monotonic() - self.last_message > _SECONDS_BETWEEN_MESSAGES and "loss" in figures:
            self.last_message = time.monotonic()
            reward = f", reward {figures['reward']:.3f}" if "reward" in figures else ""
            logger.info("      step %d/%d  loss %.4f%s", state.global_step, state.max_steps, figures["loss"], reward)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if folder.is_dir():
            (folder / f"whole-{self.rank}.json").write_text(json.dumps({"world_size": self.world_size}))


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
