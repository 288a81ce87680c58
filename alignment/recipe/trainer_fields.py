"""The settings that TRL's and PEFT's own dataclasses take, read from their source without importing them.

`train:` and `peft:` of a recipe pass straight through to `SFTConfig`, `DPOConfig`, `GRPOConfig` and `LoraConfig` of
the versions that are installed. Importing TRL costs about eight seconds, reading its syntax tree a tenth of one, so
`align check` and the chain's own start stay quick. What only the dataclass itself can judge (settings that exclude
each other) is checked by `alignment.stages.configs`, which builds it for real.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union

from pydantic import ConfigDict, TypeAdapter, ValidationError

from alignment.wording import did_you_mean, shown

# dataclass -> the files that hold it and its bases, nearest first (relative to the installed packages)
SOURCES: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "SFTConfig": (("trl", "trainer/sft_config.py", "SFTConfig"),),
    "DPOConfig": (("trl", "trainer/dpo_config.py", "DPOConfig"),),
    "GRPOConfig": (("trl", "trainer/grpo_config.py", "GRPOConfig"),),
    "LoraConfig": (("peft", "tuners/lora/config.py", "LoraConfig"),),
}
_BASES = {
    "_BaseConfig": ("trl", "trainer/base_config.py"),
    "TrainingArguments": ("transformers", "training_args.py"),
    "PeftConfig": ("peft", "config.py"),
    "PeftConfigMixin": ("peft", "config.py"),
}

# Settings that the chain itself decides, and what to use instead.
OWNED = {
    "output_dir": "the chain chooses the folder: see `output` of the recipe",
    "overwrite_output_dir": "the chain never overwrites an artifact",
    "resume_from_checkpoint": "the chain resumes by itself",
    "seed": "use `seed` of the stage or of the recipe",
    "data_seed": "use `seed` of the stage or of the recipe",
    "report_to": "use `tracking` of the recipe",
    "run_name": "the chain names its runs: see `tracking` of the recipe",
    "project": "use `tracking.project` of the recipe",
    "trackio_space_id": "use `tracking` of the recipe",
    "push_to_hub": "a model leaves the machine only through an export stage",
    "hub_model_id": "a model leaves the machine only through an export stage",
    "hub_strategy": "a model leaves the machine only through an export stage",
    "hub_token": "a model leaves the machine only through an export stage",
    "hub_private_repo": "a model leaves the machine only through an export stage",
    "hub_always_push": "a model leaves the machine only through an export stage",
    "hub_revision": "a model leaves the machine only through an export stage",
    "deepspeed": "use `launch` of the recipe: an Accelerate file with DeepSpeed settings",
    "fsdp": "use `launch` of the recipe: an Accelerate file with FSDP settings",
    "fsdp_config": "use `launch` of the recipe: an Accelerate file with FSDP settings",
    "local_rank": "set by the launcher",
    "do_train": "every training stage trains",
    "do_eval": "use `evaluate` of the recipe",
    "do_predict": "use `evaluate` of the recipe",
    "chat_template_path": "conversations are trained in Qwen2.5-Coder's ChatML",
    "load_best_model_at_end": "use `gate` of the stage: a stage ends with its last step",
    "task_type": "always CAUSAL_LM",
    "inference_mode": "adapters are made to be trained",
    "base_model_name_or_path": "use `model` of the stage",
    "peft_type": "always LORA",
}


# Choices that the dataclasses declare as plain strings and check only once training starts, or never (TRL 1.16).
CHOICES: Mapping[str, tuple[str, ...]] = {
    "packing_strategy": ("fill", "bfd", "bfd_split", "wrapped"),
    "truncation_mode": ("keep_start", "keep_end"),
    "vllm_mode": ("colocate", "server"),
}
# The same, where transformers has an enumeration of the choices.
_ENUMERATIONS: Mapping[str, tuple[str, str]] = {
    "lr_scheduler_type": ("trainer_utils.py", "SchedulerType"),
    "optim": ("training_args.py", "OptimizerNames"),
}
# Least values, for settings whose dataclass takes any number and fails or misbehaves later. What is not listed is at
# least 0: of all these settings only max_steps has a meaning below (-1: by epochs).
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
}
# Settings that 0 makes senseless: nothing would be trained, or a division by it.
ABOVE_ZERO = (
    "learning_rate",
    "num_train_epochs",
    "temperature",
    "save_steps",
    "logging_steps",
    "eval_steps",
    "repetition_penalty",
)
# Greatest values: shares and probabilities.
MOST: Mapping[str, float] = {
    "lora_dropout": 1,
    "top_p": 1,
    "min_p": 1,
    "adam_beta1": 1,
    "adam_beta2": 1,
    "label_smoothing": 0.5,
    "label_smoothing_factor": 1,
    "vllm_gpu_memory_utilization": 1,
    "top_entropy_quantile": 1,
}


@dataclass(frozen=True)
class Field:
    """One setting: its name, the annotation as written, and a validator of its values."""

    name: str
    annotation: str
    adapter: TypeAdapter[Any]


@functools.cache
def fields(config: str) -> dict[str, Field]:
    """All settings of one dataclass of `SOURCES`, inherited ones included."""
    found: dict[str, Field] = {}
    for package, file, name in SOURCES[config]:
        _collect(package, file, name, found)
    return found


def check(config: str, values: Mapping[str, Any]) -> Iterable[tuple[tuple[str, ...], str]]:
    """Yield (key path, message) for every value that `config` would not take."""
    known = fields(config)
    for name, value in values.items():
        if name in OWNED:
            yield (name,), f"not to be set here: {OWNED[name]}"
        elif name not in known:
            yield (name,), f"{config} has no such setting.{did_you_mean(name, set(known) - set(OWNED))}"
        else:
            choices = _choices(name)
            if choices and value is not None and value not in choices:
                hint = did_you_mean(str(value), choices)
                yield (name,), f"{name} is one of {', '.join(choices)}, not {shown(value)}.{hint}".rstrip(".")
                continue
            try:
                known[name].adapter.validate_python(value, strict=True)
            except ValidationError:
                expected = readable(known[name].annotation)
                hint = " Take the quotes away." if isinstance(value, str) and _is_number(value) else ""
                yield (name,), f"{config}.{name} takes {expected}, not {shown(value)}.{hint}".rstrip(".")
                continue
            if isinstance(value, int | float) and not isinstance(value, bool) and (limit := _limit(name, value)):
                yield (name,), f"{name} is {limit}, not {value!r}"


@functools.cache
def _choices(name: str) -> tuple[str, ...]:
    """The words that a setting may be, as far as they are known without importing anything."""
    if name not in _ENUMERATIONS:
        return CHOICES.get(name, ())
    file, enumeration = _ENUMERATIONS[name]
    found = [node for node in _tree("transformers", file).body if isinstance(node, ast.ClassDef)]
    body = next((node.body for node in found if node.name == enumeration), [])
    values = [item.value for item in body if isinstance(item, ast.Assign)]
    return tuple(str(value.value) for value in values if isinstance(value, ast.Constant))


def _limit(name: str, value: float) -> str:
    """The limit that a number breaks, in words; empty where it breaks none."""
    if name in ABOVE_ZERO and value <= 0:
        return "above 0"
    if value < LEAST.get(name, 0):
        return f"at least {LEAST.get(name, 0)}"
    return f"at most {MOST[name]}" if value > MOST.get(name, value) else ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def readable(annotation: str) -> str:
    """`float | None` as a person would say it."""
    return annotation.replace("Optional[", "").replace("]", "") if annotation.startswith("Optional[") else annotation


def _tree(package: str, file: str) -> ast.Module:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the package {package!r} is not installed: run `make setup`")
    return ast.parse((Path(next(iter(spec.submodule_search_locations))) / file).read_text(encoding="utf-8"))


def _collect(package: str, file: str, name: str, found: dict[str, Field]) -> None:
    for node in _tree(package, file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    annotation = ast.unparse(item.annotation)
                    if not annotation.startswith("ClassVar") and not item.target.id.startswith("_"):
                        field = Field(item.target.id, annotation, _adapter(item.annotation))
                        found.setdefault(item.target.id, field)
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in _BASES:
                    _collect(*_BASES[base.id], base.id, found)
            return
    raise ValueError(f"{package} has no {name} in {file}: this toolkit does not know the installed version")


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
    # A number given for an enum (SchedulerType, IntervalStrategy...) or a live object is for the dataclass to judge.
    return TypeAdapter(_type(annotation), config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))


def _type(node: ast.expr) -> Any:
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
