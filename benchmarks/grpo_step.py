"""Measure the seconds of each part of a GRPO step on the CPU, with this toolkit's and with TRL's rollouts and
log-probabilities.

    python -m benchmarks grpo-step --model PATH

The two sides (this toolkit and TRL) train the same LoRA adapter on the same prompts, in bfloat16 if the CPU multiplies
bfloat16 in hardware (`dtype: auto`). No completion ends before the limit, so that both sides generate and train on the
same number of tokens. Each side runs in a separate process. Wall-clock seconds depend on the load of the machine, so
CPU seconds and the load average are printed too.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("trl", "ours")
PARTS = ("generation", "grading", "training")


def prompts_of(tokenizer: Any, tokens: int, count: int) -> list[str]:
    """Return prompts of about `tokens` tokens each.

    A prompt has code of the standard library, followed by a request to write a function.
    """
    import heapq
    import statistics
    import textwrap

    prompts = []
    for number in range(count):
        source = inspect.getsource((statistics, textwrap, heapq)[number % 3])
        ids = tokenizer.encode(source)[number * 50 :][: tokens - 60]
        question = "Write a Python function `solve(values)` that returns the sum of the even values in a list."
        prompts.append(f"{tokenizer.decode(ids)}\n\n{question}")
    return prompts


def dataset_of(tokenizer: Any, tokens: int, steps: int) -> Any:
    """Return one task for each step, in the columns of a GRPO stage."""
    from datasets import Dataset

    tests = json.dumps({"cases": [{"args": [[1, 2, 4]], "expected": 6}], "tolerance": None})
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": text}],
                "id": f"t{number}", "language": "python", "kind": "calls", "entry_point": "solve", "source": "t",
                "tests": tests,
            }
            for number, text in enumerate(prompts_of(tokenizer, tokens, steps))
        ]
    )  # fmt: skip


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its child processes that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measured_trainer(side: str) -> Any:
    """Return the trainer class of a side, extended so that its attribute `cpu` holds the CPU seconds of each part of a
    step.
    """
    from alignment.stages.rollout_trainer import RolloutTrainer

    class MeasuredTrainer(RolloutTrainer):
        def __init__(self, **settings: Any) -> None:
            super().__init__(rollout_engine="transformers" if side == "trl" else "auto", **settings)
            self.shares_prompts = self.shares_prompts and side != "trl"
            self.cpu = dict.fromkeys(PARTS, 0.0)

        def _timed(self, part: str, call: Callable[[], Any]) -> Any:
            begun = cpu_seconds()
            result = call()
            self.cpu[part] += cpu_seconds() - begun
            return result

        def _generate_single_turn(self, *arguments: Any, **more: Any) -> Any:
            generate = super()._generate_single_turn
            return self._timed("generation", lambda: generate(*arguments, **more))

        def _calculate_rewards(self, *arguments: Any, **more: Any) -> Any:
            grade = super()._calculate_rewards
            return self._timed("grading", lambda: grade(*arguments, **more))

    return MeasuredTrainer


def measure(side: str, options: argparse.Namespace) -> None:
    """Train one side in this process and print its steps as the last line of stdout."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig

    from alignment.grading import open_grader
    from alignment.grading.sandbox_settings import SandboxSettings
    from alignment.models import formats
    from alignment.models.precision import resolve_dtype
    from alignment.recipe.stage_parts import Reward
    from alignment.rewards import build_rewards

    torch.set_num_threads(options.threads)
    tokenizer: Any = AutoTokenizer.from_pretrained(options.model)
    tokenizer.chat_template = formats.CHAT_TEMPLATE
    precision = resolve_dtype("auto", "cpu")
    model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, precision.dtype))
    model.config.use_cache = False
    args = GRPOConfig(
        str(options.out), use_cpu=True, bf16=False, report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True,
        max_steps=options.steps, num_generations=options.completions, per_device_train_batch_size=options.completions,
        max_completion_length=options.tokens, gradient_checkpointing=options.checkpointing, learning_rate=1e-5,
    )  # fmt: skip
    with open_grader(SandboxSettings(allow_weaker=True, workers=1)) as grader:
        trainer = measured_trainer(side)(
            model=model,
            args=args,
            reward_funcs=build_rewards([Reward(name="tests_passed"), Reward(name="parses")], grader),
            train_dataset=dataset_of(tokenizer, options.prompt, options.steps),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        unused = model.get_input_embeddings().weight.shape[0] - 1  # the last rows of the embedding belong to no token
        trainer.eos_token_ids = [unused]
        trainer.generation_config.eos_token_id = [unused]
        steps = run_steps(trainer)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"steps": steps, "peak": peak, "dtype": str(precision)}))


def run_steps(trainer: Any) -> list[dict[str, float]]:
    """Train, and return the figures of each step: seconds and CPU seconds of each part, tokens, differences."""
    from transformers import TrainerCallback

    cpu_of_steps: list[dict[str, float]] = []

    class CpuOfSteps(TrainerCallback):
        begun = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            trainer.cpu = dict.fromkeys(PARTS, 0.0)
            self.begun = cpu_seconds()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            spent = cpu_seconds() - self.begun
            trainer.cpu["training"] = spent - trainer.cpu["generation"] - trainer.cpu["grading"]
            cpu_of_steps.append(trainer.cpu)

    trainer.add_callback(CpuOfSteps())
    trainer.train()
    logged = [log for log in trainer.state.log_history if "time/generation" in log]
    return [
        {
            **{f"{part} seconds": log[f"time/{part}"] for part in PARTS},
            **{f"{part} cpu": cpu[part] for part in PARTS},
            "tokens": log["completions/mean_length"] * trainer.num_generations,
            "difference": log.get("sampling/sampling_logp_difference/mean", 0.0),
            "load": os.getloadavg()[0],
        }
        for log, cpu in zip(logged, cpu_of_steps, strict=True)
    ]


def run_side(side: str, arguments: Sequence[str], threads: int) -> dict[str, Any]:
    """Run one side in a separate process, and return the measurements that the process printed.

    Raises:
        ValueError: the process failed; the message has the end of its output.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks", "grpo-step", *arguments, "--side", side]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=ROOT)
    if done.returncode:
        raise ValueError(f"{side}: {(done.stdout + done.stderr)[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def report(side: str, result: dict[str, Any]) -> None:
    """Print one line for each step of a side."""
    for number, step in enumerate(result["steps"], 1):
        parts = "  ".join(f"{part} {step[f'{part} seconds']:6.1f} s ({step[f'{part} cpu']:6.1f})" for part in PARTS)
        total = sum(step[f"{part} seconds"] for part in PARTS)
        cpu = sum(step[f"{part} cpu"] for part in PARTS)
        rate = step["tokens"] / step["generation seconds"]
        print(
            f"{side:5} step {number}: {total:6.1f} s ({cpu:6.1f} CPU)  {parts}  {rate:5.1f} rollout tokens/s  "
            f"peak {result['peak']:.1f} GB  logp difference {step['difference']:.4f}  load {step['load']:.1f}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks grpo-step",
        description="Seconds of a GRPO step by part, in wall-clock and (CPU) time.",
    )
    parser.add_argument("--model", required=True, help="folder of a Qwen2 checkpoint")
    parser.add_argument("--completions", type=int, default=8, help="completions of a step (default: 8)")
    parser.add_argument("--tokens", type=int, default=200, help="tokens of a completion (default: 200)")
    parser.add_argument("--prompt", type=int, default=750, help="tokens of a prompt, about (default: 750)")
    parser.add_argument(
        "--steps", type=int, default=2, help="steps of a side (default: 2; the first packs the weights)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads (default: all cores)")
    parser.add_argument(
        "--checkpointing", action=argparse.BooleanOptionalAction, default=True,
        help="gradient checkpointing, as TRL does by default (default: on)",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=SIDES, default=SIDES, help="sides (default: both)")
    parser.add_argument(
        "--out", default="runs/grpo-step", help="folder for the trainer's files (default: runs/grpo-step)"
    )
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # a child process
    given = list(sys.argv[2:] if arguments is None else arguments)
    options = parser.parse_args(given)
    if options.side:
        measure(options.side, options)
        return 0
    for side in options.only:
        report(side, run_side(side, given, options.threads))
    return 0
