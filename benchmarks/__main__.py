"""Run one measurement of the toolkit: `python -m benchmarks MEASUREMENT [options]`, from the root of a checkout."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence

MEASUREMENTS = {
    "sandbox-speed": ("sandbox_speed", "graded programs per second, beside human-eval's method without a sandbox"),
    "verdict-agreement": ("verdict_agreement", "verdicts beside published ones, on the same programs"),
    "builder-speed": ("builder_speed", "megabytes of source per CPU second for each step of the builders"),
    "chain-overhead": ("chain_overhead", "SFT speed beside plain TRL, and the seconds a stage takes besides training"),
    "training-speed": ("training_speed", "tokens per second beside TRL, LLaMA-Factory and a plain PyTorch loop"),
    "memory-prediction": ("memory_prediction", "peak memory of real stages on the CPU beside the figures of `align plan`"),
    "gpu-check": ("gpu_check", "speed, MFU and memory of each kind of training on one GPU, in one command"),
}  # fmt: skip
"""Name on the command line: module of this package, and one line of help. A module has `main(arguments) -> int`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the measurement's name and pass the other arguments to its module; returns its exit code."""
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
    # Imported here: `gpu-check` has to start before the packages that the others import are installed.
    return int(importlib.import_module(f"benchmarks.{module}").main(parsed.options))


if __name__ == "__main__":
    raise SystemExit(main())
