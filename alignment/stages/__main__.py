"""A stage's process: reads a request from stdin, runs the stage, leaves result.json.

The chain starts it as `python -m alignment.stages`; nobody else needs to.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import traceback
from typing import Any

from alignment import logs
from alignment.processes import die_with_parent


def main() -> int:
    die_with_parent()
    logs.configure()
    value = json.load(sys.stdin)
    from alignment.files import write_json
    from alignment.recipe.stage_request import Request

    request = Request.of(value)
    request.out.mkdir(parents=True, exist_ok=True)
    stage = importlib.import_module(f"alignment.stages.{request.stage.kind}")
    try:
        result = stage.run(request)
    except ValueError as error:  # the user's mistake: said in words, without a traceback
        print(f"error: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if (told := out_of_memory(error, request)) is None:
            raise
        traceback.print_exc()
        print(f"error: {told}", file=sys.stderr)
        return 1
    if request.rank == 0:
        write_json(request.out / "result.json", {**result, "peak_memory_mb": _peak_memory_mb()})
    return 0


def out_of_memory(error: RuntimeError, request: Any) -> str | None:
    """What to do about a device without memory left; None for any other error."""
    import torch

    if not isinstance(error, torch.OutOfMemoryError):
        return None
    train = getattr(request.stage, "train", {})
    batch = train.get("per_device_train_batch_size", 8)
    ways = [
        f"set stages.{request.name}.train.per_device_train_batch_size below {batch} and raise gradient_accumulation_steps"
    ]
    if not train.get("gradient_checkpointing", True):
        ways.append("leave gradient_checkpointing on")
    if train.get("use_vllm") and train.get("vllm_mode", "colocate") == "colocate":
        ways.append("lower vllm_gpu_memory_utilization")
    ways += ["shard more (`launch:` with zero3.yaml)", "train an adapter (`peft:`)"]
    return (
        f"the device ran out of memory: {str(error).splitlines()[0]}\n  `align plan` shows what each part takes. "
        + "Ways out: "
        + "; ".join(ways)
        + "."
    )


def _peak_memory_mb() -> int:
    """The most that this process, or the largest it started and waited for, had in memory (Linux counts in KiB)."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(which).ru_maxrss for which in who) * 1024 // 1_000_000


if __name__ == "__main__":
    raise SystemExit(main())
