"""Try the settings of training stages on the config classes of TRL, transformers and PEFT, before the first stage runs.

`python -m alignment.stages.config_trial < request.json` builds the config objects of all stages, to find settings that
are refused. The process imports only what the config classes need: see `_skip_model_code`.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignment import logs
from alignment.files import write_text
from alignment.processes import ProcessRequest
from alignment.stages.configs import TrainerSettings, launch_refusals, lora_config, missing_packages, training_config

if TYPE_CHECKING:
    from alignment.recipe import TrainingStage

LORA_WITHOUT_CONFLICTS = frozenset(("r", "lora_alpha", "lora_dropout", "target_modules", "bias", "use_rslora"))
"""Settings of LoraConfig that exclude no other setting (`LoraConfig.__post_init__` of PEFT).

`alignment.recipe.trainer_fields` checks their values. A stage that sets no other settings needs no LoraConfig here, which
saves the import of PEFT."""


class ConfigsRequest(ProcessRequest):
    """Training stages to check, and the launch that they will run under."""

    stages: list[TrainerSettings]
    fsdp: bool = False
    """Whether Accelerate was launched with FSDP."""
    processes: int = 1
    """Number of processes on this machine."""
    out: Path | None = None
    """JSON file to which the refused settings are written. If None, all problems are printed, also of the launch."""


class Refusal(NamedTuple):
    """A setting of a stage that a class of TRL, transformers or PEFT refuses."""

    stage: str
    place: tuple[str, ...]
    """The keys that lead to the setting, from the stage down."""
    message: str


def refusals(stages: Sequence[TrainingStage | TrainerSettings]) -> list[Refusal]:
    """Build the config objects, optimizers and schedules of all stages. Return the refused settings."""
    refused = []
    with tempfile.TemporaryDirectory() as folder:
        for stage in stages:
            try:
                args = training_config(stage, 0, Path(folder), wandb=False, run_name=stage.name)
            except ValueError as error:
                text = str(error)
                if "generation_batch_size" in text:
                    text += " (generation_batch_size is per_device_train_batch_size x processes x steps_per_generation)"
                refused.append(Refusal(stage.name, _place("train", stage.train, text), text))
            else:
                refused += [Refusal(stage.name, ("train", key), text) for key, text in _schedule_refusals(stage, args)]
            if set(stage.peft or {}) <= LORA_WITHOUT_CONFLICTS:
                continue
            _show_peft()
            try:
                lora_config(stage)
            except ValueError as error:
                refused.append(Refusal(stage.name, _place("peft", stage.peft or {}, str(error)), str(error)))
    return refused


def _place(section: str, settings: Mapping[str, Any], message: str) -> tuple[str, ...]:
    """Return the place of the setting that an error message names, or of the section if the message names no setting."""
    named = [key for key in settings if re.search(rf"(?<![\w]){re.escape(key)}(?![\w])", message)]
    return (section, max(named, key=len)) if named else (section,)


_NEEDS_MODEL = ("galore", "apollo", "lomo", "adalomo")
"""Beginnings of the names of optimizers that can only be made for a whole model."""


def _optimizer(args: Any) -> Any:
    """Make a stage's optimizer for one parameter, as transformers' Trainer would make it.

    For AdamW, check the settings and return an optimizer that only holds the learning rate: making a real optimizer of
    torch imports `torch._dynamo`, and Trainer imports the code of models. Both take seconds.
    """
    import torch

    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    if args.optim in ("adamw_torch", "adamw_torch_fused") and not args.optim_args:
        # `alignment.recipe.trainer_fields` has checked all other bounds of AdamW's settings.
        if args.adam_beta2 >= 1:
            raise ValueError(f"adam_beta2 must be below 1, not {args.adam_beta2}")

        class RateHolder(torch.optim.Optimizer):
            def add_param_group(self, param_group: dict[str, Any]) -> None:
                self.param_groups.append({**self.defaults, **param_group})

        return RateHolder([parameter], {"lr": args.learning_rate})
    from transformers import Trainer

    optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(args)
    return optimizer_class([parameter], **settings)


def _schedule_refusals(stage: TrainingStage | TrainerSettings, args: Any) -> Iterator[tuple[str, str]]:
    """Make the stage's optimizer and schedule. Yield (setting, message) for settings that are refused or senseless."""
    from transformers.optimization import get_scheduler

    if str(stage.train.get("optim", "")).startswith(_NEEDS_MODEL):
        return
    try:
        optimizer = _optimizer(args)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        setting = _place("train", stage.train, str(error).replace("beta parameter at index 1", "adam_beta2"))[-1]
        yield setting if setting != "train" else "optim", f"the optimizer can't be made: {error}"
        return
    steps = args.max_steps if args.max_steps > 0 else 1000
    warmup = args.get_warmup_steps(steps)
    if warmup >= steps and args.max_steps > 0:
        yield "warmup_steps", f"the warmup takes {warmup} steps, and the stage has {steps}"
        return
    key = "lr_scheduler_kwargs" if stage.train.get("lr_scheduler_kwargs") else "lr_scheduler_type"
    try:
        schedule = get_scheduler(args.lr_scheduler_type, optimizer, warmup, steps, args.lr_scheduler_kwargs or {})
        rates = [
            factor(step) for factor in getattr(schedule, "lr_lambdas", []) for step in (0, steps // 2, steps - 1, steps)
        ]
    except (ValueError, TypeError, ArithmeticError, KeyError) as error:
        yield (
            key,
            f"can't make the schedule {args.lr_scheduler_type.value} of {stage.train.get('lr_scheduler_kwargs')}: {error}",
        )
        return
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
        settings_text = stage.train.get("lr_scheduler_kwargs")
        yield key, f"{settings_text} gives a learning rate below 0, or none at all, at some step"


def _skip_model_code() -> None:
    """Shorten the imports: keep transformers from importing the code of models, and read package metadata once.

    `transformers.trainer_utils` imports PEFT, to recognize models with adapters: PEFT is hidden until `_show_peft` is
    called. A new `TrainingArguments` imports all reporters, to find out whether Kubeflow starts the process: stages never
    use this reporter.
    """
    if "peft" not in sys.modules:
        sys.modules["peft"] = None  # type: ignore[assignment]
    # transformers and TRL both read the metadata of every installed package, which takes 0.2 seconds each.
    importlib.metadata.packages_distributions = functools.cache(importlib.metadata.packages_distributions)
    import transformers.integrations

    setattr(transformers.integrations, "is_kubeflow_available", lambda: False)  # noqa: B010 - mypy knows no such name


def _show_peft() -> None:
    """Make PEFT importable again."""
    if "peft" in sys.modules and sys.modules["peft"] is None:
        del sys.modules["peft"]


def main() -> int:
    """Check the stages of the request on stdin. Return the exit code: 1 if problems were printed, else 0."""
    logs.configure()
    _skip_model_code()
    import trl.trainer.base_config  # noqa: F401 - imported while the parent still prepares the request

    request = ConfigsRequest.from_json(sys.stdin.read())
    refused = refusals(request.stages)
    if request.out is not None:
        write_text(request.out, json.dumps(refused))
        return 0
    messages = launch_refusals(request.fsdp, request.processes) + missing_packages(request.stages)
    messages += [f"stage {refusal.stage!r}: {refusal.message}" for refusal in refused]
    for message in messages:
        print(message, file=sys.stderr)
    return 1 if messages else 0


if __name__ == "__main__":
    raise SystemExit(main())
