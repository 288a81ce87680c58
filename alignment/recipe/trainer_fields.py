"""Check `train:` and `peft:` of a recipe against the config classes of TRL and PEFT, without importing TRL or PEFT.

These settings become arguments of `SFTConfig`, `DPOConfig`, `KTOConfig`, `GRPOConfig` and `LoraConfig` of the installed
versions. Importing TRL takes about eight seconds; parsing the source of its config classes takes a tenth of a second.
Some errors, such as settings that exclude each other, are found only when the config objects are created;
`alignment.stages.config_trial` does that.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union

from pydantic import ConfigDict, TypeAdapter, ValidationError

from alignment.recipe.problems import Mistake
from alignment.wording import did_you_mean, shown

# config class -> (package, file in the package)
SOURCES: Mapping[str, tuple[str, str]] = {
    "SFTConfig": ("trl", "trainer/sft_config.py"),
    "DPOConfig": ("trl", "trainer/dpo_config.py"),
    "KTOConfig": ("trl", "trainer/kto_config.py"),
    "GRPOConfig": ("trl", "trainer/grpo_config.py"),
    "LoraConfig": ("peft", "tuners/lora/config.py"),
}
# The same for the base classes of the config classes.
_BASES: Mapping[str, tuple[str, str]] = {
    "_BaseConfig": ("trl", "trainer/base_config.py"),
    "TrainingArguments": ("transformers", "training_args.py"),
    "PeftConfig": ("peft", "config.py"),
    "PeftConfigMixin": ("peft", "config.py"),
}

# Settings that `train:` and `peft:` must not contain -> what to use instead.
OWNED = {
    "output_dir": "use `output` of the recipe",
    "overwrite_output_dir": "artifacts are never overwritten",
    "resume_from_checkpoint": "an interrupted stage resumes automatically",
    "seed": "use `seed` of the stage or of the recipe",
    "data_seed": "use `seed` of the stage or of the recipe",
    "report_to": "use `tracking` of the recipe",
    "run_name": "runs are named RECIPE/STAGE; see `tracking` of the recipe",
    "project": "use `tracking.project` of the recipe",
    "trackio_space_id": "use `tracking` of the recipe",
    "push_to_hub": "use `push` of an export stage",
    "hub_model_id": "use `push` of an export stage",
    "hub_strategy": "use `push` of an export stage",
    "hub_token": "use `push` of an export stage",
    "hub_private_repo": "use `push` of an export stage",
    "hub_always_push": "use `push` of an export stage",
    "hub_revision": "use `push` of an export stage",
    "deepspeed": "use `launch` of the recipe: an Accelerate file with DeepSpeed settings",
    "fsdp": "use `launch` of the recipe: an Accelerate file with FSDP settings",
    "fsdp_config": "use `launch` of the recipe: an Accelerate file with FSDP settings",
    "local_rank": "the launcher sets it",
    "do_train": "training stages always train",
    "do_eval": "use `evaluate` of the recipe",
    "do_predict": "use `evaluate` of the recipe",
    "chat_template_path": "conversations use the chat template of the model's family",
    "load_best_model_at_end": "a stage keeps its last step; use `gate` to stop the chain after a bad one",
    **dict.fromkeys(
        (
            "eval_strategy",
            "eval_steps",
            "eval_delay",
            "eval_on_start",
            "metric_for_best_model",
            "greater_is_better",
            "eval_packing",
            "batch_eval_metrics",
            "prediction_loss_only",
        ),
        "the trainer gets no evaluation rows; use `evaluate` of the recipe",
    ),
    **dict.fromkeys(
        ("ignore_data_skip", "save_only_model"), "an interrupted stage could not resume to the same weights"
    ),
    **dict.fromkeys(
        ("completion_only_loss", "assistant_only_loss", "dataset_text_field", "shuffle_dataset"),
        "the stage prepares and shuffles the rows itself, and would ignore it",
    ),
    "eos_token": "answers end with <|im_end|>, documents with <|endoftext|>",
    "pad_token": "rows are padded with <|endoftext|>",
    "model_init_kwargs": "use `model` of the recipe: the stage loads the model itself",
    "ref_model_init_kwargs": "the reference is the model that the stage starts from",
    "reward_weights": "use `weight` of each item of `rewards`",
    "task_type": "it is always CAUSAL_LM",
    "inference_mode": "adapters are always trained",
    "base_model_name_or_path": "use `model` of the stage",
    "peft_type": "it is always LORA",
    "auto_mapping": "PEFT writes it for models that it does not know",
    "peft_version": "PEFT writes it",
    "revision": "use `revision` of the recipe's `model`",
}


# Allowed values of settings that the classes declare as plain strings and check late or never (TRL 1.16). `fill` is
# this toolkit's packing (`alignment.tokenization.packing`).
CHOICES: Mapping[str, tuple[str | bool, ...]] = {
    "packing_strategy": ("fill", "bfd", "bfd_split", "wrapped"),
    "logging_strategy": ("no", "steps", "epoch"),
    "save_strategy": ("no", "steps", "epoch"),
    "ddp_backend": ("nccl", "gloo", "mpi", "ccl", "hccl", "cncl", "mccl"),
    "include_num_input_tokens_seen": ("all", "non_padding", "no", True, False),
    "scale_rewards": ("group", "batch", "none", True, False),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "importance_sampling_level": ("token", "sequence"),
    "truncation_mode": ("keep_start", "keep_end"),
    "vllm_mode": ("colocate", "server"),
}
# Settings whose allowed values are an enumeration in an installed package: setting -> (package, file, class).
_ENUMERATIONS: Mapping[str, tuple[str, str, str]] = {
    "lr_scheduler_type": ("transformers", "trainer_utils.py", "SchedulerType"),
    "optim": ("transformers", "training_args.py", "OptimizerNames"),
    "torch_compile_backend": ("accelerate", "utils/dataclasses.py", "DynamoBackend"),
}
# Losses by class (`_dpo_loss` and `_compute_loss` of TRL 1.16's trainers, which refuse others at the first step).
LOSSES: Mapping[str, tuple[str, ...]] = {
    "SFTConfig": ("nll", "dft", "chunked_nll"),
    "DPOConfig": (
        "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
        "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
    ),
    "KTOConfig": ("kto", "apo_zero_unpaired"),
    "GRPOConfig": ("grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"),
}  # fmt: skip
# Smallest values of settings for which the class accepts any number, but training fails or misbehaves later. All other
# settings must be at least 0. Only max_steps may be negative (-1 means train by epochs).
LEAST: Mapping[str, float] = {
    "max_steps": -1,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_length": 1,
    "num_generations": 2,
    "max_completion_length": 1,
    "save_total_limit": 1,
    "dataset_num_proc": 1,
    "r": 1,
    "lora_alpha": 1,
    "generation_batch_size": 1,
    "steps_per_generation": 1,
    "num_iterations": 1,
    "repetition_penalty": 0,
    "torch_empty_cache_steps": 1,
    "ref_model_sync_steps": 1,
}
# Settings that must be above 0: otherwise nothing would be trained, or there would be a division by 0.
ABOVE_ZERO = (
    "learning_rate",
    "num_train_epochs",
    "temperature",
    "save_steps",
    "logging_steps",
    "repetition_penalty",
    "top_entropy_quantile",
)
# Largest values of settings that are shares or probabilities.
MOST: Mapping[str, float] = {
    "top_p": 1,
    "label_smoothing": 0.5,
    "label_smoothing_factor": 1,
    "vllm_gpu_memory_utilization": 1,
    "top_entropy_quantile": 1,
    "ref_model_mixup_alpha": 1,
    "learning_rate": 1,  # a slip of the exponent, such as 5 for 5e-5
    "temperature": 10,
    "per_device_train_batch_size": 65_536,
    "gradient_accumulation_steps": 1_000_000,
    "num_train_epochs": 10_000,
    "max_steps": 100_000_000,
    "dataloader_num_workers": 1024,
    "warmup_steps": 100_000_000,
    "r": 8192,
    "num_generations": 65_536,
    "max_completion_length": 10_000_000,
}
# Values that these must stay below: at 1 nothing is learned, or only the most probable token is sampled.
BELOW: Mapping[str, float] = {"lora_dropout": 1, "min_p": 1, "adam_beta1": 1, "adam_beta2": 1}
# Settings that are a share of all steps below 1, and a whole number of steps from there on.
_STEPS = ("save_steps", "logging_steps", "warmup_steps")


@dataclass(frozen=True)
class ConfigField:
    """One setting of a config class."""

    name: str
    annotation: str
    """The field's type, as it is written in the source code."""
    adapter: TypeAdapter[Any]
    """Validator for values of the field's type."""


@functools.cache
def fields(config: str) -> dict[str, ConfigField]:
    """Return all settings of a class in `SOURCES` by name, including inherited settings."""
    collected: dict[str, ConfigField] = {}
    _collect(*SOURCES[config], config, collected)
    return collected


def check(config: str, values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield (place, message) for every setting that is unknown or reserved, or has a wrong value.

    Args:
        config: name of a class in `SOURCES`.
        values: the settings.
    """
    known = fields(config)
    for name, value in values.items():
        if name in OWNED:
            message = f"can't be set here: {OWNED[name]}"
        elif name not in known:
            message = f"{config} has no such setting.{did_you_mean(name, set(known) - set(OWNED))}"
        else:
            message = _wrong_value(config, known[name], value)
        if message:
            yield (name,), message


def _wrong_value(config: str, field: ConfigField, value: Any) -> str:
    """Return a message if a value is wrong, else ""."""
    if field.name == "loss_type" and config in LOSSES:
        return _wrong_loss(config, value)
    if field.name == "init_lora_weights" and re.fullmatch(r"pissa_niter_[1-9][0-9]*", str(value)):
        return ""
    choices = _choices(field.name)
    if choices and value is not None and value not in choices:
        words = [str(choice).lower() if isinstance(choice, bool) else choice for choice in choices]
        hint = did_you_mean(str(value), words)
        return f"{field.name} must be one of {', '.join(words)}, not {shown(value)}.{hint}".rstrip(".")
    try:
        field.adapter.validate_python(value, strict=True)
    except ValidationError:
        hint = " Remove the quotes." if isinstance(value, str) and _is_number(value) else ""
        return f"{config}.{field.name} must be {_readable(field.annotation)}, not {shown(value)}.{hint}".rstrip(".")
    if isinstance(value, int | float) and not isinstance(value, bool) and (limit := _limit(field.name, value)):
        return f"{field.name} must be {limit}, not {value!r}"
    return ""


def _wrong_loss(config: str, value: Any) -> str:
    """Return a message if a `loss_type` is wrong, else "". DPO takes one loss or a list of losses, which are added."""
    losses = value if isinstance(value, list) and config == "DPOConfig" else [value]
    for loss in losses:
        if loss not in LOSSES[config]:
            hint = did_you_mean(str(loss), LOSSES[config])
            return f"loss_type must be one of {', '.join(LOSSES[config])}, not {shown(loss)}.{hint}".rstrip(".")
    return "" if losses else "loss_type names no loss"


@functools.cache
def _choices(name: str) -> tuple[str | bool, ...]:
    """Return the allowed values of a setting. The tuple is empty if they are unknown."""
    if name not in _ENUMERATIONS:
        return CHOICES.get(name, ())
    package, file, enumeration = _ENUMERATIONS[name]
    classes = [node for node in _tree(package, file).body if isinstance(node, ast.ClassDef)]
    body = next((node.body for node in classes if node.name == enumeration), [])
    values = [item.value for item in body if isinstance(item, ast.Assign)]
    return tuple(str(value.value).lower() for value in values if isinstance(value, ast.Constant))


def _limit(name: str, value: float) -> str:
    """Return the bound that a number violates, for example `at least 1`, or "" if the number is within its bounds."""
    if name in ABOVE_ZERO and value <= 0:
        return "above 0"
    if value < LEAST.get(name, 0):
        return f"at least {LEAST.get(name, 0)}"
    if name in BELOW and value >= BELOW[name]:
        return f"below {BELOW[name]}"
    if name in _STEPS and value > 1 and value != int(value):
        return "a whole number of steps, or a share of all steps below 1"
    return f"at most {MOST[name]}" if value > MOST.get(name, value) else ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


_WORDS = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text", "dict": "a mapping"}


def _readable(annotation: str) -> str:
    """Return a type in words, for example `a whole number or text`.

    None is omitted from the words, since an empty value is reported by a separate error.
    """
    text = annotation.removeprefix("Optional[").removesuffix("]") if annotation.startswith("Optional[") else annotation
    parts = [part for part in text.split(" | ") if part != "None"]
    return " | ".join(parts) if "[" in text else " or ".join(_WORDS.get(part, part) for part in parts)


def _tree(package: str, file: str) -> ast.Module:
    """Return the syntax tree of a file in an installed package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the package {package!r} is not installed: run `make setup`")
    return ast.parse((Path(next(iter(spec.submodule_search_locations))) / file).read_text(encoding="utf-8"))


def _collect(package: str, file: str, name: str, collected: dict[str, ConfigField]) -> None:
    """Add the fields of a class and of its base classes. A field of the class replaces a field of a base class."""
    for node in _tree(package, file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    annotation = ast.unparse(item.annotation)
                    if not annotation.startswith("ClassVar") and not item.target.id.startswith("_"):
                        field = ConfigField(item.target.id, annotation, _adapter(item.annotation))
                        collected.setdefault(item.target.id, field)
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in _BASES:
                    _collect(*_BASES[base.id], base.id, collected)
            return
    raise ValueError(
        f"{package} has no class {name} in {file}: the installed version is not supported, see constraints.txt"
    )


_NAMES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "dict": dict,
    "list": list,
    "tuple": list,
    "set": list,
    "Any": Any,
    "None": None,
    "Literal": Literal,
    "Optional": Union,
    "Union": Union,
}


def _adapter(annotation: ast.expr) -> TypeAdapter[Any]:
    # Enumerations and classes become `str` or `Any` here; the config class checks their values later.
    return TypeAdapter(_type(annotation), config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))


def _type(node: ast.expr) -> Any:
    """Return the type that an annotation stands for. Names that are not in `_NAMES` become `str`."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _type(ast.parse(node.value, mode="eval").body)
        return None
    if isinstance(node, ast.Name):
        return _NAMES.get(node.id, str)
    if isinstance(node, ast.BinOp):
        return Union[_type(node.left), _type(node.right)]  # noqa: UP007 - built at run time
    if isinstance(node, ast.Subscript):
        name = node.value.id if isinstance(node.value, ast.Name) else ""
        if name == "Literal":
            return Literal[ast.literal_eval(node.slice)]
        if name == "Optional":
            return Union[_type(node.slice), None]  # noqa: UP007
        if name == "Union":
            elements = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return Union[tuple(_type(element) for element in elements)]  # noqa: UP007
        return _NAMES.get(name, str)
    return Any
