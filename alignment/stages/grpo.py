"""GRPO on TRL's GRPOTrainer, rewarded by executing what the model wrote.

Execution rewards are this toolkit's own choice: Qwen2.5-Coder's report stops at offline DPO, and Qwen2.5's GRPO uses a
reward model.

All rewards of a batch run at once, in the sandboxes' own processes. TRL 1.16's GRPOTrainer generates, rewards and trains in
turn, on the weights of the step; only its experimental AsyncGRPOTrainer rewards while the next rollouts are generated, from
weights that are some steps old and from a vLLM server alone, and is not used here.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from pathlib import Path
from typing import Any

from alignment.grading import open_grader
from alignment.logs import get_logger
from alignment.models import formats
from alignment.recipe.stage_request import Request
from alignment.rewards import build_rewards
from alignment.rows.kinds import Row, kind_of
from alignment.stages.rollouts import RolloutWatch, check_vllm
from alignment.stages.training import tokenizer_of, train
from alignment.tokenization.prepare import leave_probes, once
from alignment.tokenization.screen import Screen

logger = get_logger(__name__)


def run(request: Request) -> dict[str, Any]:
    """Train on the stage's tasks; see `alignment.recipe.GrpoStage`."""
    stage = request.stage
    check_vllm(stage.train)
    watch = RolloutWatch()
    tokenizer = tokenizer_of(request)
    tokenizer.chat_template = formats.CHAT_TEMPLATE
    folder, counts = once(request, lambda folder: _prepare(request, tokenizer, folder))

    with open_grader(request.sandbox) as grader:

        def make_trainer(model: Any, args: Any, lora: Any) -> Any:
            from datasets import load_from_disk
            from trl import GRPOTrainer

            from alignment.stages.callbacks import OrderOfEpoch

            ends = formats.stop_token_ids(tokenizer, formats.CHAT_STOP_TOKENS)
            align_saves(args)
            if args.use_vllm:
                # vLLM stops where the generation config of the model's folder says, which may be a base model's.
                args.generation_kwargs = {"stop_token_ids": ends, **(args.generation_kwargs or {})}
            kind: Any = GRPOTrainer
            if stage.resample:
                from alignment.stages.resample import ResamplingTrainer

                kind = functools.partial(ResamplingTrainer, resample=stage.resample)
            return kind(
                model=model,
                args=args,
                reward_funcs=build_rewards(stage.rewards, grader, ends),
                train_dataset=load_from_disk(str(folder / "train")),
                processing_class=tokenizer,
                peft_config=lora,
                callbacks=[OrderOfEpoch(), watch],
            )

        result = train(request, tokenizer, make_trainer, chat=True, counts=counts)
    result["metrics"] |= watch.metrics()
    return result


def align_saves(args: Any) -> None:
    """Save only where completions are about to be generated anew: those in between are in no checkpoint.

    A run that resumed elsewhere would train on other completions than the one that was never interrupted.
    """
    batches = args.steps_per_generation * args.num_iterations
    unit = math.lcm(batches, args.gradient_accumulation_steps) // args.gradient_accumulation_steps
    if args.save_strategy == "steps" and args.save_steps % unit:
        if args.save_steps < 1:
            raise ValueError("save_steps must be a whole number of steps for GRPO, not a share of them")
        aligned = math.ceil(args.save_steps / unit) * unit
        logger.info(f"      save_steps {args.save_steps} -> {aligned}: every {unit} steps share their completions")
        args.save_steps = aligned


def _prepare(request: Request, tokenizer: Any, folder: Path) -> dict[str, Any]:
    """Tasks as conversational prompts; overlong prompts are dropped and counted, since TRL never truncates them."""
    from datasets import Dataset

    stage = request.stage
    counted: Counter[str] = Counter()
    tasks: list[dict[str, Any]] = []
    screen = Screen.of(request.decontaminate, folder)
    for source in stage.data:
        for number, row in screen.rows(source, counted):
            where = f"{source.data}, row {number}"
            if kind_of(row, where) != "task":
                raise ValueError(f"{where}: GRPO needs tasks, with `prompt` and `tests`")
            counted["rows"] += 1
            _check_task(row, where)
            prompt = [{"role": "user", "content": formats.escape_special_text(row["prompt"])}]
            length = len(tokenizer.encode(formats.chat(prompt, add_generation_prompt=True), add_special_tokens=False))
            if stage.max_prompt_length is not None and length > stage.max_prompt_length:
                counted["dropped_overlong"] += 1
                continue
            columns = ("id", "language", "kind", "tests", "entry_point", "source")
            tasks.append({"prompt": prompt, **{key: row.get(key) for key in columns}})
    if not tasks:
        raise ValueError(f"no task is left to train on: {dict(counted)}")
    counted["tasks"] = len(tasks)
    leave_probes([formats.chat(task["prompt"], add_generation_prompt=True) for task in tasks[:4]], folder)
    Dataset.from_list(tasks).shuffle(seed=request.seed).save_to_disk(folder / "train")
    return {**counted, **screen.counts()}


def _check_task(row: Row, where: str) -> None:
    """A task that can't be graded would be rewarded with nothing, step after step: say so before the first one."""
    from alignment.grading import read_task

    if not isinstance(row["prompt"], str):
        raise ValueError(f"{where}: `prompt` must be text, not {type(row['prompt']).__name__}")
    if not isinstance(row["tests"], str):
        raise ValueError(f"{where}: `tests` must be a JSON string, so that rows of all kinds share one schema")
    try:
        kind, _, _ = read_task(row)
    except KeyError as error:
        raise ValueError(f"{where}: a task needs {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: can't be graded: {error}") from None
    if kind == "calls" and not isinstance(row.get("entry_point"), str):
        raise ValueError(f"{where}: a task of kind calls needs `entry_point`, the name of the function")
