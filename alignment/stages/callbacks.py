"""What every training stage hangs into TRL's trainers: whole checkpoints, a local log, a line for the person.

Checkpoints are written while training waits: transformers 5.23 and accelerate 1.15 know no other way, and DeepSpeed 0.19's
decoupled writer commits at a later step, after transformers has taken the checkpoint for whole and deleted an older one.
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
from transformers import TrainerCallback

from alignment.logs import get_logger
from alignment.planning.disk import check_checkpoint

logger = get_logger(__name__)

_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")


def last_whole_checkpoint(folder: Path, world_size: int, rank: int = 0) -> Path | None:
    """The newest checkpoint that every rank finished and whose files are whole; on rank 0, half-written ones are removed.

    Raises ValueError where the checkpoints come from another number of processes: optimizer shards and random
    states of one world can't be dealt out to another.
    """
    found: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        if not (match := _CHECKPOINT.match(path.name)):
            continue
        sizes = _marks(path)
        if other := set(sizes) - {world_size}:
            raise ValueError(
                f"{path} was written by {max(other)} processes and this run has {world_size}. Launch with "
                f"{max(other)} again to go on, or delete {folder} to start the stage anew."
            )
        if len(sizes) < world_size:
            if rank == 0:
                shutil.rmtree(path)
        elif (torn := _torn(path)) is None:
            found[int(match.group(1))] = path
        elif rank == 0:  # kept: somebody may want to look at it
            logger.info(f"      {path.name} can't be used: {torn.relative_to(path)} is cut short")
    return found[max(found)] if found else None


def _torn(checkpoint: Path) -> Path | None:
    """A file of weights or states that ends before it should: what a machine that lost its power may leave."""
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


def _marks(checkpoint: Path) -> list[int]:
    """The number of processes that each mark of a checkpoint names. A torn one is none; a folder that rank 0 removes
    meanwhile has none."""
    sizes = []
    for mark in checkpoint.glob("whole-*.json"):
        try:
            sizes.append(int(json.loads(mark.read_text())["world_size"]))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return sizes


class AlreadyTrained(Exception):
    """The checkpoint is the last one: its weights are loaded, and no step is left."""


class Recorder(TrainerCallback):
    """Marks whole checkpoints, writes metrics.jsonl, says how it goes every few seconds."""

    def __init__(self, out: Path, rank: int, world_size: int):
        self.out, self.rank, self.world_size = out, rank, world_size
        self.file = out / "metrics.jsonl"
        self.said = time.monotonic()
        self.first_step: float | None = None
        self.after_first_step = 0.0
        self.from_start = 0.0
        self.begun = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begun = time.monotonic()
        if self.rank == 0 and self.file.exists():
            # A resumed run writes the steps after its checkpoint again.
            kept = [line for line in self.file.read_text().splitlines() if _step(line) <= state.global_step]
            self.file.write_text("".join(f"{line}\n" for line in kept))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Resumed from the last checkpoint in the middle of an epoch, transformers looks for the end only after a step.
        if state.global_step >= state.max_steps:
            raise AlreadyTrained

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if control.should_save and self.rank == 0:
            check_checkpoint(Path(args.output_dir), state.global_step)
        elapsed = time.monotonic() - self.begun
        if self.first_step is None:
            self.first_step = elapsed
            # From the start of this process: imports, data, model and the first step.
            self.from_start = time.time() - psutil.Process().create_time()
        self.after_first_step = elapsed - self.first_step  # without what starts up and compiles

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self.rank != 0 or not logs:
            return
        figures = {key: value for key, value in logs.items() if isinstance(value, int | float)}
        with self.file.open("a") as file:
            file.write(json.dumps({"step": state.global_step, **figures}) + "\n")
        if time.monotonic() - self.said > 5 and "loss" in figures:
            self.said = time.monotonic()
            reward = f", reward {figures['reward']:.3f}" if "reward" in figures else ""
            logger.info(f"      step {state.global_step}/{state.max_steps}  loss {figures['loss']:.4f}{reward}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if folder.is_dir():
            (folder / f"whole-{self.rank}.json").write_text(json.dumps({"world_size": self.world_size}))


class OrderOfEpoch(TrainerCallback):
    """Seeds the order of each epoch by its number, so that a resumed GRPO run sees the prompts it would have seen.

    TRL's sampler draws every epoch from one generator, which a new process starts from its beginning.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        sampler = train_dataloader.batch_sampler
        while hasattr(sampler, "batch_sampler"):
            sampler = sampler.batch_sampler
        generator = getattr(sampler.sampler, "generator", None)
        if generator is not None:
            generator.manual_seed(args.seed + int(state.epoch or 0))


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62  # a torn last line goes
