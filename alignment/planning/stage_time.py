"""Predict how long the steps of a recipe take, and what they cost on rented hardware.

A training stage takes (steps) x (seconds of a step). The number of steps is known from `max_steps`, or from the rows if
they exist already. An evaluation takes the time of its generation, with an assumed number of tokens per answer. Builders,
grading of evaluations, exports and custom stages are not predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from alignment.models.shapes import Shape
from alignment.planning.memory import MicroBatch
from alignment.planning.resources import micro_batch_of
from alignment.planning.speeds import Speed, sequences_per_batch
from alignment.recipe import BenchmarkSettings, EvaluateStage, GrpoStage, Recipe, TrainingStage, stage_graph
from alignment.recipe.launch_file import Layout
from alignment.recipe.stage_parts import DataSource

START_SECONDS = 30.0
"""Imports, preparation of rows, loading and saving of a stage. Large models take longer."""
CHARACTERS_PER_TOKEN = 3.3
"""Bytes of source code in a token of Qwen2.5's tokenizer, about."""
ANSWER_TOKENS, PROMPT_TOKENS = 200, 200
"""Assumed tokens of an answer (at most the benchmark's limit) and of a prompt. Qwen2.5-Coder-0.5B-Instruct answers
HumanEval in 214 tokens on average."""
DEFAULT_EPOCHS = 3.0
"""`num_train_epochs` of TRL's SFTConfig and DPOConfig."""
TASKS = {
    "humaneval": 164, "humaneval+": 164, "mbpp": 399, "mbpp+": 399, "multipl-e": 160, "cruxeval": 800, "bigcodebench": 1140,
    "bigcodebench-hard": 148, "gsm8k": 1319, "humaneval-infilling-single-line": 1033,
    "humaneval-infilling-multi-line": 5815, "humaneval-infilling-random-span": 1640,
}  # fmt: skip
"""Benchmark, or the beginning of its name -> number of tasks."""


class StageTime(TypedDict):
    """Predicted time of one step, as `align plan --json` prints it."""

    stage: str
    kind: str
    seconds: float | None
    """Time of the whole step, or None if it is unknown."""
    steps: int | None
    """Number of optimizer steps, or None."""
    step_seconds: float | None
    """Seconds of one optimizer step."""
    tokens_per_second: float | None
    """Tokens that all devices together train on per second."""
    device_hours: float | None
    """`seconds` in hours, times the number of devices."""
    cost: float | None
    """`device_hours` times the price, or None without a price."""
    note: str
    """What the prediction assumes, or why there is none."""


def recipe_time(
    recipe: Recipe, shape: Shape, layout: Layout, speed: Speed, price: float | None = None
) -> list[StageTime]:
    """Return the predicted times of all steps that train or evaluate, in the order in which they run.

    Args:
        recipe: the recipe.
        shape: shape of the base model.
        layout: devices and sharding.
        speed: speed of one device.
        price: price of a device for one hour.
    """
    times: list[StageTime] = []
    for node in stage_graph.resolve(recipe).nodes:
        if isinstance(node.stage, TrainingStage):
            times.append(_training(recipe, node.stage, shape, layout, speed))
        elif isinstance(node.stage, EvaluateStage):
            times.append(_evaluation(node.name, recipe, node.stage.benchmarks, shape, layout, speed))
    for entry in times:
        if entry["seconds"] is not None:
            hours = entry["seconds"] / 3600 * layout.devices
            entry["device_hours"], entry["cost"] = hours, None if price is None else hours * price
    return times


def _entry(
    name: str,
    kind: str,
    seconds: float | None,
    note: str,
    *,
    steps: int | None = None,
    step: float | None = None,
    rate: float | None = None,
) -> StageTime:
    return {
        "stage": name,
        "kind": kind,
        "seconds": seconds,
        "steps": steps,
        "step_seconds": step,
        "tokens_per_second": rate,
        "device_hours": None,
        "cost": None,
        "note": note,
    }


def _training(recipe: Recipe, stage: TrainingStage, shape: Shape, layout: Layout, speed: Speed) -> StageTime:
    micro = micro_batch_of(stage, recipe.model, layout)
    step = step_seconds(stage, shape, micro, speed)
    if step is None:
        return _entry(stage.name, micro.kind, None, "not measured on this machine yet")
    batches = micro.accumulate * layout.replicas
    steps, note = _steps(recipe, stage, micro, micro.rows * batches)
    seconds = None if steps is None else steps * step + START_SECONDS
    tokens = sequences_per_batch(micro) * batches * micro.length
    return _entry(stage.name, micro.kind, seconds, note, steps=steps, step=step, rate=tokens / step)


def step_seconds(stage: TrainingStage, shape: Shape, micro: MicroBatch, speed: Speed) -> float | None:
    """Return the predicted seconds of one optimizer step with rows of full length. None if it was not measured."""
    once = speed.micro_batch(shape, micro)
    if once is None:
        return None
    total = micro.accumulate * once + speed.optimizer_step(shape, micro)
    if isinstance(stage, GrpoStage):
        prompt = micro.length - micro.completion
        generation = speed.generation(shape, micro.rows * micro.accumulate, prompt, micro.completion)
        if generation is None:
            return None
        total += generation
    return total


def _steps(recipe: Recipe, stage: TrainingStage, micro: MicroBatch, rows_per_step: int) -> tuple[int | None, str]:
    """Return the number of optimizer steps, and what it is based on."""
    limit = stage.train.get("max_steps")
    if isinstance(limit, int) and limit > 0:
        return limit, ""
    sources: Sequence[DataSource] = getattr(stage, "data", [])
    sizes = [_size(recipe, source) for source in sources]
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes):
        return None, "the number of steps is unknown until the rows are built: set max_steps, or plan again then"
    epochs = float(stage.train.get("num_train_epochs", DEFAULT_EPOCHS))
    kind = micro.kind
    packed = bool(stage.train.get("packing", kind == "pretrain"))
    if packed and kind in ("pretrain", "sft"):
        per_epoch = sum(size[1] for size in known) / CHARACTERS_PER_TOKEN / (rows_per_step * micro.length)
        note = f"about {CHARACTERS_PER_TOKEN} characters per token"
    else:
        per_epoch = sum(size[0] for size in known) / rows_per_step
        if isinstance(stage, GrpoStage):
            per_epoch *= int(stage.train.get("num_generations", 8))
        note = "every row counted with its full length"
    return math.ceil(per_epoch * epochs), note


def _size(recipe: Recipe, source: DataSource) -> tuple[int, int] | None:
    """Return the number of rows and of characters of a data source, or None if its files do not exist yet."""
    for folder in (recipe.folder / str(source.data), source.data.path()):
        files = [folder] if folder.is_file() else sorted(folder.rglob("*")) if folder.is_dir() else []
        parts = [_file_size(file) for file in files if file.suffix in (".jsonl", ".parquet")]
        if parts:
            rows = sum(part[0] for part in parts)
            characters = sum(part[1] for part in parts)
            share = min(1.0, source.rows / rows) if source.rows and rows else 1.0
            return round(rows * share), round(characters * share)
    return None


def _file_size(file: Path) -> tuple[int, int]:
    """Return the number of rows and the uncompressed bytes of a JSONL or Parquet file."""
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        metadata = pq.ParquetFile(file).metadata
        return metadata.num_rows, sum(
            metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)
        )
    with file.open("rb") as lines:
        return sum(1 for _ in lines), file.stat().st_size


def _evaluation(
    name: str, recipe: Recipe, benchmarks: Sequence[BenchmarkSettings], shape: Shape, layout: Layout, speed: Speed
) -> StageTime:
    total = START_SECONDS
    unknown: list[str] = []
    seen: set[tuple[str, str | None]] = set()
    for benchmark in benchmarks:
        prompts = (benchmark.benchmark.removesuffix("+"), benchmark.mode)
        if benchmark.benchmark in TASKS and prompts in seen:  # HumanEval+ grades the answers of HumanEval
            continue
        seen.add(prompts)
        count = _tasks(recipe, benchmark)
        new = min(benchmark.max_new_tokens or ANSWER_TOKENS, ANSWER_TOKENS)
        seconds = None if count is None else speed.generation(shape, count * benchmark.n, PROMPT_TOKENS, new)
        if seconds is None:
            unknown.append(benchmark.name)
        else:
            total += seconds / layout.devices
    note = f"answers of {ANSWER_TOKENS} tokens at most; grading not counted"
    if len(unknown) == len(benchmarks):
        return _entry(name, "evaluate", None, "the number of tasks is unknown, or generation is not measured yet")
    if unknown:
        note += f"; without {', '.join(unknown)}"
    return _entry(name, "evaluate", total, note)


def _tasks(recipe: Recipe, benchmark: BenchmarkSettings) -> int | None:
    """Return the number of tasks of a benchmark, or None if it is unknown."""
    names = [name for name in TASKS if benchmark.benchmark.startswith(name)]
    count = TASKS[max(names, key=len)] if names else None
    if count is None and benchmark.data is not None:
        size = _size(recipe, DataSource(data=benchmark.data))
        count = None if size is None else size[0]
    if count is None:
        return benchmark.limit
    return min(count, benchmark.limit) if benchmark.limit else count
