"""How fast a machine trains and generates: measured by a probe, or derived from the data sheet of a card.

`alignment.stages.speed_probe` makes the measurements. They are kept in the cache folder, one file for each machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypedDict

from alignment.cache import cache_root
from alignment.files import write_json
from alignment.models.shapes import Shape
from alignment.planning import work
from alignment.planning.cards import Card
from alignment.planning.memory import MicroBatch, adapter_parameters

PROBE_VERSION = 1
"""Increase this number when the probe measures something else. Older measurements are then not used."""
TRAINING_UTILISATION = 0.4
"""Share of a card's peak rate that training reaches. The Llama 3 report (arXiv 2407.21783, section 3.3.2) has 38 to 43% on
H100. Small models and short rows reach less."""
DECODE_UTILISATION = 0.5
"""Share of a card's peak memory bandwidth that decoding reaches."""
DECODE_ROWS = 64
"""Number of sequences that are decoded at the same time."""
DECODE_WASTE = 1.2
"""Factor for rows that have ended and stay in the batch until they make up a quarter of it, and for the search for stop
strings. Measured with 64 prompts of HumanEval: without it, the time of generation is predicted 27% too short."""


class TrainingTimes(TypedDict):
    """Measured seconds of one micro-batch with one row, of one layer and of the rest."""

    layer: float
    """Forward and backward pass of one decoder layer."""
    head: float
    """Output layer and loss, with their backward pass."""
    optimizer: float
    """Update of the trained weights of one layer."""
    trained: int
    """Number of trained weights in one layer."""


class DecodeTimes(TypedDict):
    """Measured seconds of generation with `DECODE_ROWS` sequences."""

    layer: float
    """One decoder layer, one new token of every sequence."""
    head: float
    """Output layer and choice of the token, one new token of every sequence."""
    prefill_layer: float
    """One decoder layer, one token of a prompt."""


class Speed(Protocol):
    """The speed of a machine. Times are in seconds."""

    @property
    def source(self) -> str:
        """Where the speed comes from, for the user."""
        ...

    def micro_batch(self, shape: Shape, micro: MicroBatch) -> float | None:
        """Return the time of one forward and backward pass on one device. None if it was not measured."""
        ...

    def optimizer_step(self, shape: Shape, micro: MicroBatch) -> float:
        """Return the time of one update of the weights."""
        ...

    def generation(self, shape: Shape, count: int, prompt: int, new: int) -> float | None:
        """Return the time in which one device generates `count` completions of `new` tokens behind prompts."""
        ...


@dataclass(frozen=True)
class CardSpeed:
    """The speed of a card, from its data sheet and the stated utilisation."""

    card: Card
    source: str

    def micro_batch(self, shape: Shape, micro: MicroBatch) -> float:
        """See `Speed.micro_batch`. Quantized weights are converted to 16 bits for every product, which is not counted."""
        tokens = sequences_per_batch(micro) * micro.length
        operations = tokens * work.training_operations(shape, micro)
        return operations / (self.card.teraflops * 1e12 * TRAINING_UTILISATION)

    def optimizer_step(self, shape: Shape, micro: MicroBatch) -> float:
        """See `Speed.optimizer_step`: AdamW reads and writes 16 bytes of each trained weight twice."""
        trained = adapter_parameters(shape, micro.lora) if micro.lora else shape.parameters
        return trained * 32 / (self.card.bandwidth_gb * 1e9 * DECODE_UTILISATION)

    def generation(self, shape: Shape, count: int, prompt: int, new: int) -> float:
        """See `Speed.generation`. Every step reads all weights and the keys and values of the running sequences."""
        rows = min(count, 4 * DECODE_ROWS)
        cache = rows * (prompt + new / 2) * 2 * shape.num_hidden_layers * shape.key_value_size * 2
        step = (2 * shape.parameters + cache) / (self.card.bandwidth_gb * 1e9 * DECODE_UTILISATION)
        rate = self.card.teraflops * 1e12 * TRAINING_UTILISATION
        step = max(step, rows * work.forward_operations(shape, prompt + new) / rate)
        prefill = count * prompt * work.forward_operations(shape, prompt) / rate
        return prefill + step * new * count / rows


@dataclass(frozen=True)
class MeasuredSpeed:
    """The speed of this machine, from a probe."""

    training: Mapping[str, TrainingTimes]
    """Measured times, keyed by the result of `training_key`."""
    decoding: Mapping[str, DecodeTimes]
    """Measured times, keyed by the result of `decode_key`."""
    source: str

    def micro_batch(self, shape: Shape, micro: MicroBatch) -> float | None:
        """See `Speed.micro_batch`."""
        times = self.training.get(training_key(shape, micro))
        if times is None:
            return None
        total = sequences_per_batch(micro) * (times["layer"] * shape.num_hidden_layers + times["head"])
        if micro.kind in work.WITH_REFERENCE or micro.reference:
            total *= 1 + _share_of_forward(shape, micro)
        return total

    def optimizer_step(self, shape: Shape, micro: MicroBatch) -> float:
        """See `Speed.optimizer_step`."""
        times = self.training.get(training_key(shape, micro))
        if times is None:
            return 0.0
        trained = adapter_parameters(shape, micro.lora) if micro.lora else shape.parameters
        return times["optimizer"] * trained / max(times["trained"], 1)

    def generation(self, shape: Shape, count: int, prompt: int, new: int) -> float | None:
        """See `Speed.generation`. A step with fewer sequences than measured takes as long as a full step."""
        times = self.decoding.get(decode_key(shape))
        if times is None:
            return None
        layers = shape.num_hidden_layers
        step = times["layer"] * layers + times["head"]
        batches = max(1.0, count / DECODE_ROWS)
        return DECODE_WASTE * batches * new * step + count * prompt * times["prefill_layer"] * layers


def sequences_per_batch(micro: MicroBatch) -> int:
    """Return the number of sequences in a micro-batch.

    A row of DPO has two, chosen and rejected. KTO adds another completion to each row, for its estimate of the divergence.
    """
    return micro.rows * (2 if micro.kind in work.WITH_REFERENCE else 1)


def _share_of_forward(shape: Shape, micro: MicroBatch) -> float:
    """Return the operations of a forward pass as a share of those of forward and backward pass."""
    plain = replace(micro, kind="sft", reference=False)
    return work.forward_operations(shape, micro.length) / work.training_operations(shape, plain)


def training_key(shape: Shape, micro: MicroBatch) -> str:
    """Return a key of everything that changes the time of a micro-batch, without the number of rows and layers."""
    return _key(
        replace(shape, num_hidden_layers=1), micro.length, micro.dtype, micro.autocast, micro.checkpointing,
        micro.attention, micro.masked, micro.own_loss, asdict(micro.lora) if micro.lora else None, micro.quantized,
    )  # fmt: skip


def decode_key(shape: Shape) -> str:
    """Return a key of everything that changes the time of generation, without the number of layers."""
    return _key(replace(shape, num_hidden_layers=1))


def _key(shape: Shape, *values: Any) -> str:
    text = json.dumps([asdict(shape), *values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def machine_name() -> str:
    """Return the processor and the number of cores of this machine."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


def cache_file(device: str) -> Path:
    """Return the file with the measurements of this machine. `device` is `cpu` or `cuda`."""
    digest = hashlib.sha256(f"{PROBE_VERSION} {device} {machine_name()}".encode()).hexdigest()[:12]
    return cache_root() / "speed" / f"{device}-{digest}.json"


def read_measured(device: str) -> MeasuredSpeed:
    """Read the measurements of this machine. They are empty before the first probe."""
    try:
        stored = json.loads(cache_file(device).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stored = {}
    source = f"measured on this machine ({stored.get('machine', machine_name())})"
    return MeasuredSpeed(stored.get("training", {}), stored.get("decoding", {}), source)


def add_measured(device: str, training: Mapping[str, TrainingTimes], decoding: Mapping[str, DecodeTimes]) -> None:
    """Add measurements to those of this machine."""
    known = read_measured(device)
    file = cache_file(device)
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": machine_name(),
        "training": {**known.training, **training},
        "decoding": {**known.decoding, **decoding},
    }
    write_json(file, document)


def unmeasured(speed: MeasuredSpeed, shape: Shape, batches: Iterable[MicroBatch]) -> list[MicroBatch]:
    """Return the micro-batches that have not been measured, each kind once."""
    missing = {training_key(shape, micro): micro for micro in batches}
    return [micro for key, micro in missing.items() if key not in speed.training]
