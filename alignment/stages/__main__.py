"""Main program of a stage's process: read a StageRequest from stdin, run the stage, and write result.json.

`alignment.chain` starts this process. To debug a stage, start the process by hand:
`python -m alignment.stages < request.json`.
"""

from __future__ import annotations

import importlib
import resource
import sys
import traceback

from alignment import logs
from alignment.files import write_json
from alignment.processes import die_with_parent
from alignment.recipe import TrainingStage
from alignment.recipe.stage_request import StageRequest
from alignment.sandbox import SandboxUnavailable
from alignment.stages.stopping import SWITCH


def main() -> int:
    """Run the stage. Return the exit code: 0 for success, 1 for an error that was explained on stderr.

    A stop signal ends the process with `REQUEUE_CODE`.
    """
    die_with_parent()
    SWITCH.install()
    logs.configure()
    request = StageRequest.from_json(sys.stdin.read())
    request.out.mkdir(parents=True, exist_ok=True)
    stage = importlib.import_module(f"alignment.stages.{request.stage.kind}")
    try:
        result = stage.run(request)
    except (ValueError, SandboxUnavailable) as error:  # the user can correct the cause: no traceback
        print(f"error: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if (advice := out_of_memory(error, request)) is None:
            raise
        traceback.print_exc()
        print(f"error: {advice}", file=sys.stderr)
        return 1
    if request.rank == 0:
        write_json(request.out / "result.json", {**result, "peak_memory_mb": _peak_memory_mb()})
    return 0


def out_of_memory(error: RuntimeError, request: StageRequest) -> str | None:
    """Return a message that says what to do if `error` is an out-of-memory error of the device, else None."""
    import torch

    if not isinstance(error, torch.OutOfMemoryError):
        return None
    train = request.stage.train if isinstance(request.stage, TrainingStage) else {}
    batch = train.get("per_device_train_batch_size", 8)
    advice = [
        f"set stages.{request.name}.train.per_device_train_batch_size below {batch} and raise gradient_accumulation_steps"
    ]
    if not train.get("gradient_checkpointing", True):
        advice.append("leave gradient_checkpointing on")
    if train.get("use_vllm") and train.get("vllm_mode", "colocate") == "colocate":
        advice.append("lower vllm_gpu_memory_utilization")
    advice += ["shard more (`launch:` with zero3.yaml)", "train an adapter (`peft:`)"]
    return (
        f"the device ran out of memory: {str(error).splitlines()[0]}\n"
        f"  `align plan` shows what each part needs. To need less: {'; '.join(advice)}."
    )


def _peak_memory_mb() -> int:
    """Return the peak memory in MB of this process, or of the child process that used most memory if that is larger.

    Linux reports the peak in KiB.
    """
    processes = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(process).ru_maxrss for process in processes) * 1024 // 1_000_000


if __name__ == "__main__":
    raise SystemExit(main())
