"""GRPO rewarded by executing the model's code, with TRL's GRPOTrainer.

Execution rewards are this toolkit's choice: Qwen2.5-Coder's report stops at offline DPO, and Qwen2.5's GRPO uses a
reward model. The artifact gets `model/` (and `adapter/` with LoRA), `metrics.jsonl`, `rollouts/` (every completion with
its reward), `probes.json` (prompts for the check that answers end), and `contamination.jsonl` if rows were removed.

All rewards of a batch are computed at the same time, in the processes of the sandboxes. TRL 1.16's GRPOTrainer
generates completions with the current weights, then rewards them, then trains on them. TRL's experimental
AsyncGRPOTrainer overlaps rewarding with the next generation, but it needs a vLLM server and generates with weights that
are some steps old. It is not used here.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.environments.environment_registry import REPOSITORY, VISIBLE_TESTS, build_environment
from alignment.environments.rollout_environment import TASK_COLUMN, tool_schemas
from alignment.environments.visible_tests import split_tests
from alignment.evaluation.answer_forms import (
    ANSWER,
    TEXT_FORMS,
    AnswerForm,
    form_of,
    prompt_text,
    reference_answer,
    stop_texts,
    stop_tokens,
)
from alignment.grading import open_grader, read_task
from alignment.grading.task import check_task, tier_of
from alignment.logs import get_logger
from alignment.models import formats
from alignment.models.model_family import ModelFamily, family_of
from alignment.recipe import GrpoStage
from alignment.recipe.stage_request import StageRequest
from alignment.rewards import build_rewards
from alignment.rewards.combination import TIER_COLUMN
from alignment.rewards.registry import GRADING
from alignment.rows.kinds import Row, kind_of
from alignment.stages.callbacks import OrderOfEpoch, save_unit
from alignment.stages.rollout_rows import RolloutRows
from alignment.stages.training import load_stage_tokenizer, train
from alignment.stages.vllm_check import check_vllm
from alignment.tokenization.prepare import prepare_once, write_probes
from alignment.tokenization.screen import ContaminationScreen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = get_logger(__name__)

# The columns of a task row that the rewards read.
_REWARD_COLUMNS = ("id", "language", "kind", "tests", "entry_point", "source")
REFERENCE_SHARE = 0.95
"""Share of the tasks whose reference is not longer than the length from which `reference_length_factor` counts."""
_FORGEABLE_ADVICE = (
    ". The tests of `dropped_forgeable` tasks run in the program's process, so a program can forge the verdict: build "
    "tasks of functions that exchange plain data, or accept the risk with `forgeable: allow` in this stage"
)
# Columns that only environments read.
_ENVIRONMENT_COLUMNS = ("visible_tests", TASK_COLUMN)


def run(request: StageRequest) -> dict[str, Any]:
    """Train on the stage's tasks; see `alignment.recipe.GrpoStage` for the settings."""
    from alignment.stages.rollouts import GraderCheck, RolloutWatch

    stage = request.stage
    assert isinstance(stage, GrpoStage)
    check_vllm(stage.train)
    watch = RolloutWatch()
    tokenizer = load_stage_tokenizer(request)
    tokenizer.chat_template = formats.training_template(tokenizer)
    with open_grader(request.sandbox) as grader:
        grader.check()
        environment = None if stage.environment is None else build_environment(stage.environment, grader)
        tools = [] if environment is None else tool_schemas(environment)
        folder, counts = prepare_once(request, lambda folder: prepare_tasks(request, tokenizer, folder, tools))

        def make_trainer(model: Any, args: Any, lora: Any) -> Any:
            from datasets import load_from_disk

            tasks = load_from_disk(str(folder / "train"))
            form: AnswerForm = tasks[0][ANSWER]
            end_ids = formats.stop_token_ids(tokenizer, stop_tokens(form))
            align_saves(args)
            limit_completions(args, stage, counts)
            if args.use_vllm:
                # Without this, vLLM uses the stop tokens of the generation config in the model's folder. For a base
                # model those do not include <|im_end|>.
                args.generation_kwargs = {"stop_token_ids": end_ids, **(args.generation_kwargs or {})}
            if stage.environment is not None:
                args.max_tool_calling_iterations = stage.environment.turns
            rows = RolloutRows(request.out, request.rank)
            with stopping_at(model, end_ids if form in TEXT_FORMS else []):
                return _trainer_class(stage)(
                    model=model,
                    args=args,
                    reward_funcs=[rows.recording(reward) for reward in build_rewards(stage.rewards, grader, end_ids)],
                    environment_factory=environment,
                    train_dataset=tasks,
                    processing_class=tokenizer,
                    peft_config=lora,
                    callbacks=[OrderOfEpoch(), GraderCheck(grader), watch],
                    stop_texts=tuple(dict.fromkeys(text for row in tasks for text in stop_texts(row))),
                )

        result = train(request, tokenizer, make_trainer, chat=True, counts=counts)
    result["metrics"] |= watch.metrics()
    return result


def _trainer_class(stage: GrpoStage) -> Any:
    """Return `RolloutTrainer`, or `ResamplingTrainer` if the stage sets `resample`."""
    if not stage.resample:
        from alignment.stages.rollout_trainer import RolloutTrainer

        return functools.partial(RolloutTrainer, rollout_engine=stage.rollout_engine)
    from alignment.stages.resample import ResamplingTrainer

    return functools.partial(ResamplingTrainer, resample=stage.resample, rollout_engine=stage.rollout_engine)


@contextlib.contextmanager
def stopping_at(model: Any, end_ids: Sequence[int]) -> Iterator[None]:
    """Make these tokens end completions of a trainer that is made in the `with` block. Without tokens, change nothing.

    TRL 1.16 reads the end tokens from the model's generation config once. The config is restored, because it is saved
    with the model.
    """
    config = model.generation_config
    before = config.eos_token_id
    if end_ids:
        config.eos_token_id = list(end_ids)
    try:
        yield
    finally:
        config.eos_token_id = before


def limit_completions(args: Any, stage: GrpoStage, counts: Mapping[str, Any]) -> None:
    """Lower `max_completion_length` to the multiple of the references' length that the stage names.

    Args:
        args: the GRPOConfig; it is changed in place.
        stage: the stage.
        counts: the counts of `prepare_tasks`.

    Raises:
        ValueError: `reference_length_factor` is set, and no task has a reference.
    """
    if stage.reference_length_factor is None:
        return
    if not counts.get("reference_tokens"):
        raise ValueError(
            "`reference_length_factor` needs tasks with a column `reference`: remove it, or add the column"
        )
    limit = math.ceil(stage.reference_length_factor * counts["reference_tokens"])
    if limit < args.max_completion_length:
        logger.info("      completions have at most %d tokens, not %d", limit, args.max_completion_length)
        args.max_completion_length = limit


def align_saves(args: Any) -> None:
    """Round `save_steps` up to a multiple of the steps that share one generation of completions.

    A checkpoint does not contain the completions. A run that resumes between two generations would train on different
    completions than an uninterrupted run. Checkpoints are therefore written only right before a new generation.

    Args:
        args: the GRPOConfig; it is changed in place.

    Raises:
        ValueError: `save_steps` is a fraction of all steps instead of a number of steps.
    """
    unit = save_unit(args)
    if args.save_strategy == "steps" and args.save_steps % unit:
        if args.save_steps < 1:
            raise ValueError(
                f"`save_steps` is {args.save_steps}, a fraction of all steps: for GRPO give a whole number of steps"
            )
        aligned = math.ceil(args.save_steps / unit) * unit
        logger.info("      save_steps %s -> %d: every %d steps share their completions", args.save_steps, aligned, unit)
        args.save_steps = aligned


def prepare_tasks(
    request: StageRequest, tokenizer: PreTrainedTokenizerBase, folder: Path, tools: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Write the tasks with their prompts to `folder/train`, and return the counts.

    The order is random and seeded. With `train: {shuffle_dataset: false}` it is the order of the rows. Overlong prompts
    are dropped and counted, since TRL does not truncate prompts.

    Args:
        request: the stage.
        tokenizer: the model's tokenizer.
        folder: folder that gets the tasks.
        tools: descriptions of the environment's tools, which are part of each prompt.
    """
    from datasets import Dataset

    stage = request.stage
    assert isinstance(stage, GrpoStage)
    counted: Counter[str] = Counter()
    tasks: list[dict[str, Any]] = []
    lengths: list[int] = []
    screen = ContaminationScreen.for_targets(request.decontaminate, folder)
    for source in stage.data:
        for number, row in screen.clean_rows(source, counted):
            where = f"{source.data}, row {number}"
            if kind_of(row, where) != "task":
                raise ValueError(f"{where}: GRPO needs tasks: rows with `prompt` and `tests`")
            counted["rows"] += 1
            task = _task(stage, row, where)
            if task[TIER_COLUMN] == "B" and stage.forgeable == "refuse":
                counted["dropped_forgeable"] += 1
                continue
            prompt, text = _prompt(task, row, tools, family_of(tokenizer))
            length = len(tokenizer.encode(text, add_special_tokens=False))
            if stage.max_prompt_length is not None and length > stage.max_prompt_length:
                counted["dropped_overlong"] += 1
                continue
            tasks.append({"prompt": prompt, **task})
            if reference := reference_answer(row):
                lengths.append(len(tokenizer.encode(reference, add_special_tokens=False)))
    if dropped := counted["dropped_forgeable"]:
        logger.warning(
            "      %d of %d tasks are dropped: a program can forge the verdict on them (`forgeable: allow` keeps them)",
            dropped, counted["rows"],
        )  # fmt: skip
    if not tasks:
        raise ValueError(f"no task is left to train on: {dict(counted)}{_FORGEABLE_ADVICE if dropped else ''}")
    if len({isinstance(task["prompt"], str) for task in tasks}) > 1:
        raise ValueError(
            f"tasks with `answer: {' or '.join(TEXT_FORMS)}` and other tasks can't be in one stage: split it"
        )
    counted["tasks"] = len(tasks)
    if not isinstance(tasks[0]["prompt"], str):
        family = family_of(tokenizer)
        texts = [formats.chat(task["prompt"], True, tools=tools, family=family) for task in tasks[:4]]
        write_probes(texts, folder)
    rows = Dataset.from_list(tasks)
    if stage.train.get("shuffle_dataset", True):
        rows = rows.shuffle(seed=request.seed)
    rows.save_to_disk(folder / "train")
    longest = sorted(lengths)[math.ceil(REFERENCE_SHARE * len(lengths)) - 1] if lengths else 0
    return {**counted, **({"reference_tokens": longest} if longest else {}), **screen.counts()}


def _prompt(
    task: dict[str, Any], row: Row, tools: Sequence[dict[str, Any]], family: ModelFamily
) -> tuple[list[dict[str, str]] | str, str]:
    """Return the prompt of a task for TRL, and the text that a model of this family gets."""
    if task[ANSWER] in TEXT_FORMS:
        text = prompt_text(row)
        return text, text
    prompt = [{"role": "user", "content": formats.escape_special_text(row["prompt"], family)}]
    return prompt, formats.chat(prompt, add_generation_prompt=True, tools=tools, family=family)


def _task(stage: GrpoStage, row: Row, where: str) -> dict[str, Any]:
    """Return the columns of a task that rewards and the environment read.

    Raises ValueError if the task can't be used.
    """
    graded = any(reward.name in GRADING for reward in stage.rewards)
    if graded or row.get("tests") is not None:
        check_task(row, where)
    elif not isinstance(row["prompt"], str):
        raise ValueError(f"{where}: `prompt` must be text, not {type(row['prompt']).__name__}")
    task = {key: row.get(key) for key in _REWARD_COLUMNS} | {ANSWER: form_of(row, where)}
    if task[ANSWER] in TEXT_FORMS:
        if stage.environment is not None or any(reward.name == "fenced" for reward in stage.rewards):
            raise ValueError(
                f"{where}: `answer: {task[ANSWER]}` has no chat: remove `environment` and the reward `fenced`, or build the "
                "tasks with `answer: body`"
            )
        task |= {key: row.get(key) for key in ("prefix", "suffix")}
    task[TIER_COLUMN] = tier_of(row) if row.get("tests") is not None else "A"
    if stage.environment is None:
        return task
    task |= {key: row.get(key) for key in _ENVIRONMENT_COLUMNS}
    if task[TASK_COLUMN] is not None and not isinstance(task[TASK_COLUMN], str):
        task[TASK_COLUMN] = json.dumps(task[TASK_COLUMN], ensure_ascii=False)
    if stage.environment.name == REPOSITORY and row.get("kind") != "repository":
        raise ValueError(
            f"{where}: the environment `repository` needs tasks of kind 'repository', not {row.get('kind')!r}: the builder "
            "`commit_tasks` makes them"
        )
    if stage.environment.name in (VISIBLE_TESTS, REPOSITORY):
        try:
            task["visible_tests"], task["tests"] = split_tests(row, stage.environment.visible)
            read_task({**task, "tests": task["visible_tests"]})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{where}: {error}") from None
    return task
