"""Find settings in `train:` that contradict each other, have no effect, or need a package that is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from alignment.recipe.problems import Mistake
from alignment.recipe.schema import DpoStage, GrpoStage, KtoStage, PretrainStage, SftStage, TrainingStage

# Beginnings of optimizer names -> the package that transformers 5.23 imports for them.
_OPTIMIZER_PACKAGES: Mapping[str, str] = {
    "paged_": "bitsandbytes", "adamw_bnb": "bitsandbytes", "adamw_8bit": "bitsandbytes", "lion_8bit": "bitsandbytes",
    "lion_32bit": "bitsandbytes", "ademamix": "bitsandbytes", "rmsprop_bnb": "bitsandbytes", "galore_": "galore_torch",
    "apollo_": "apollo_torch", "lomo": "lomo_optim", "adalomo": "lomo_optim", "grokadamw": "grokadamw",
    "schedule_free": "schedulefree", "adamw_torch_xla": "torch_xla", "adamw_torch_npu": "torch_npu",
    "adamw_apex": "apex", "adamw_anyprecision": "torchdistx", "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao", "stable_adamw": "optimi",
}  # fmt: skip
_WITHOUT_ARGUMENTS = ("adamw_torch", "adamw_torch_fused", "adafactor", "adagrad")
"""Optimizers for which transformers ignores `optim_args`."""
# Keys of generation_kwargs that contradict GRPO, or a setting of its own.
_GENERATION = {
    **dict.fromkeys(("max_new_tokens", "max_length", "max_tokens"), "set `max_completion_length`"),
    **dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "repetition_penalty"), "set it in `train:` itself"),
    **dict.fromkeys(("num_return_sequences", "n"), "set `num_generations`"),
    **dict.fromkeys(
        ("num_beams", "num_beam_groups", "penalty_alpha", "best_of"), "GRPO samples its answers, without a search"
    ),
    **dict.fromkeys(("eos_token_id", "pad_token_id", "stop_token_ids"), "the stage sets the tokens that end an answer"),
}
# Settings of sampling -> the values that do not change the distribution.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "top_p": (1, None), "top_k": (0, -1, None), "min_p": (0, None), "repetition_penalty": (1, None),
}  # fmt: skip


def check_pairs(stage: TrainingStage) -> Iterator[Mistake]:
    """Yield contradictions between settings in a stage's `train:`, each with the keys that lead to the setting from the
    stage.
    """
    train = stage.train
    for name, check in _SETTINGS.items():
        if train.get(name) is not None:
            for message in check(train[name], train):
                yield ("train", name), message
    if isinstance(stage, PretrainStage | SftStage):
        yield from _check_rows(stage)
    if isinstance(stage, DpoStage):
        yield from _check_dpo(stage)
    if isinstance(stage, KtoStage):
        yield from _check_kto(stage)
    if isinstance(stage, GrpoStage):
        yield from _check_grpo(stage)


def _schedule(value: Any, train: Mapping[str, Any]) -> Iterator[str]:
    if value == "reduce_lr_on_plateau":
        yield "needs a metric after every step, and the trainer gets no evaluation rows: choose another schedule"
    if value == "cosine_with_min_lr" and not {"min_lr", "min_lr_rate"} & set(train.get("lr_scheduler_kwargs") or {}):
        yield "needs `lr_scheduler_kwargs` with `min_lr` or `min_lr_rate`"


def _schedule_arguments(value: Any, train: Mapping[str, Any]) -> Iterator[str]:
    for name, number in value.items() if isinstance(value, dict) else ():
        if isinstance(number, int | float) and number < 0:
            yield f"{name} must be at least 0, not {number}"


def _reference(value: Any, train: Mapping[str, Any]) -> Iterator[str]:
    if train.get("ref_model_mixup_alpha", 0.6) > 1 or train.get("ref_model_sync_steps", 512) < 1:
        yield "needs a ref_model_mixup_alpha of at most 1 and ref_model_sync_steps of at least 1"


def _optimizer(value: Any, train: Mapping[str, Any]) -> Iterator[str]:
    for start, package in _OPTIMIZER_PACKAGES.items():
        if str(value).startswith(start) and importlib.util.find_spec(package) is None:
            yield f"{value} needs the package {package!r}, which is not installed"


def _optimizer_arguments(value: Any, train: Mapping[str, Any]) -> Iterator[str]:
    if train.get("optim", "adamw_torch") in _WITHOUT_ARGUMENTS:
        yield f"{train.get('optim', 'adamw_torch')} takes no optim_args: use adam_beta1, adam_beta2 and adam_epsilon, or remove it"


def _accelerator(value: Any, train: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(value, dict):
        return
    for name in ("split_batches", "even_batches", "use_seedable_sampler", "non_blocking", "use_configured_state"):
        if name in value and not isinstance(value[name], bool):
            yield f"{name} must be true or false, not {value[name]!r}"
    if value.get("gradient_accumulation_kwargs"):
        yield "gradient_accumulation_kwargs: use `gradient_accumulation_steps`"


def _workers(value: Any, train: Mapping[str, Any]) -> Iterator[str]:
    if value and not train.get("dataloader_num_workers"):
        yield "needs `dataloader_num_workers` above 0"


def _package(package: str) -> Callable[[Any, Mapping[str, Any]], Iterator[str]]:
    def check(value: Any, train: Mapping[str, Any]) -> Iterator[str]:
        if value and importlib.util.find_spec(package) is None:
            yield f"needs the package {package!r}, which is not installed"

    return check


_SETTINGS: Mapping[str, Callable[[Any, Mapping[str, Any]], Iterator[str]]] = {
    "lr_scheduler_type": _schedule,
    "lr_scheduler_kwargs": _schedule_arguments,
    "sync_ref_model": _reference,
    "optim": _optimizer,
    "optim_args": _optimizer_arguments,
    "accelerator_config": _accelerator,
    "dataloader_persistent_workers": _workers,
    "dataloader_prefetch_factor": _workers,
    "use_liger_kernel": _package("liger_kernel"),
}
"""Checks of settings together with the settings or packages that they need, keyed by the name of the setting."""


def _check_rows(stage: PretrainStage | SftStage) -> Iterator[Mistake]:
    """Yield the mistakes in settings of packing, lengths and fill-in-the-middle, for pretraining and SFT."""
    train = stage.train
    packing = train.get("packing", isinstance(stage, PretrainStage))
    if "max_length" in train and train["max_length"] is None:
        yield ("train", "max_length"), "must be a whole number: rows are packed, split or left out by it"
    if not packing and "packing_strategy" in train:
        yield ("train", "packing_strategy"), "has no effect without `packing: true`: remove it"
    if not packing and train.get("padding_free"):
        yield ("train", "padding_free"), "needs `packing: true`: unpacked rows are padded"
    if stage.fim.spm_rate and not stage.fim.rate:
        yield ("fim", "spm_rate"), "is a share of the documents that `rate` chooses, and `rate` is 0: remove it"


def _check_dpo(stage: DpoStage) -> Iterator[Mistake]:
    train = stage.train
    if train.get("beta") == 0:
        yield ("train", "beta"), "must be above 0: with 0 the loss has no gradient"
    weights = train.get("loss_weights")
    if isinstance(weights, list) and not any(weights):
        yield ("train", "loss_weights"), "all weights are 0, so nothing is learned: give a loss another weight"
    losses = train.get("loss_type", ["sigmoid"])
    count = len(losses) if isinstance(losses, list) else 1
    if isinstance(weights, list) and len(weights) != count:
        yield ("train", "loss_weights"), f"has {len(weights)} weights for {count} losses of `loss_type`"
    yield from _check_reference(stage)


def _check_reference(stage: DpoStage | KtoStage) -> Iterator[Mistake]:
    """Settings of the reference model that exclude each other."""
    train = stage.train
    if train.get("sync_ref_model"):
        if train.get("precompute_ref_log_probs"):
            yield (
                ("train", "sync_ref_model"),
                "excludes `precompute_ref_log_probs`, which keeps the first reference: set one of them",
            )
        if stage.peft is not None:
            yield (
                ("train", "sync_ref_model"),
                "needs full weights: with `peft` the reference is the model without its adapter",
            )


def _check_kto(stage: KtoStage) -> Iterator[Mistake]:
    train = stage.train
    if train.get("beta") == 0:
        yield ("train", "beta"), "must be above 0: with 0 the loss has no gradient"
    if not any(train.get(name, 1) for name in ("desirable_weight", "undesirable_weight")):
        yield ("train", "desirable_weight"), "and undesirable_weight are 0, so nothing is learned: raise one of them"
    if train.get("loss_type", "kto") != "apo_zero_unpaired":
        if train.get("per_device_train_batch_size") == 1:
            yield (
                ("train", "per_device_train_batch_size"),
                "must be at least 2: KTO estimates its reference point from other answers of the batch",
            )
        if train.get("train_sampling_strategy", "sequential") != "sequential":
            yield ("train", "train_sampling_strategy"), "must be sequential: the stage shuffles the rows itself"
    yield from _check_reference(stage)


def _check_grpo(stage: GrpoStage) -> Iterator[Mistake]:
    """Yield the mistakes in settings of sampling, clipping and rewards, for GRPO."""
    train = stage.train
    low, high = train.get("epsilon", 0.2), train.get("epsilon_high")
    if isinstance(high, int | float) and isinstance(low, int | float) and high < low:
        yield (
            ("train", "epsilon_high"),
            f"is below `epsilon` ({low}): the upper bound of the ratio is at least the lower one",
        )
    if "generation_batch_size" in train and "steps_per_generation" in train:
        yield ("train", "generation_batch_size"), "excludes `steps_per_generation`: give one of them"
    if train.get("sync_ref_model") and not train.get("beta"):
        yield ("train", "sync_ref_model"), "needs a `beta` above 0: without it there is no reference model"
    if stage.resample and train.get("multi_objective_aggregation", "sum_then_normalize") != "sum_then_normalize":
        yield ("train", "multi_objective_aggregation"), "`resample` needs sum_then_normalize"
    yield from _check_sampling(train)
    completion = train.get("max_completion_length", 256)
    for index, reward in enumerate(stage.rewards):
        if reward.name in ("tests_passed", "tests_fraction", "hidden_fraction") and reward.weight < 0:
            yield ("rewards", index, "weight"), "is negative: answers that fail the tests would be rewarded"
        if reward.soft is not None and isinstance(completion, int) and reward.soft >= completion:
            yield (
                ("rewards", index, "soft"),
                f"is not below max_completion_length ({completion}): there would never be a penalty",
            )


def _check_sampling(train: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield the generation settings that contradict GRPO.

    With vLLM, also yield settings that change the distribution of the samples.

    TRL 1.16 computes the trained model's log-probabilities without these settings. They would then belong to a
    different distribution than vLLM's log-probabilities, and TRL's correction of the difference would be wrong.
    """
    kwargs = train.get("generation_kwargs")
    for name, value in kwargs.items() if isinstance(kwargs, dict) else ():
        if name in _GENERATION:
            yield ("train", "generation_kwargs", name), f"generation_kwargs can't set {name}: {_GENERATION[name]}"
        elif name == "do_sample" and not value:
            yield (
                ("train", "generation_kwargs", name),
                "generation_kwargs can't turn sampling off: all answers would be the same",
            )
    for name, neutral in _NEUTRAL.items():
        if train.get("use_vllm") and train.get(name) not in neutral:
            yield (
                ("train", name),
                f"{name}: {train[name]} changes what vLLM samples from, and training computes log-probabilities without it: "
                "leave it out, or set use_vllm: false",
            )
