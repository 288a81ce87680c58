"""The recipe as typed settings: one class for each kind of stage, and `Recipe`.

The docstring under a field is its help text, its description in the JSON schema, and its entry in the reference pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from alignment.export.export_settings import Calibration, Comparison, Push, Quantize
from alignment.extensions import ExtensionReference, NameOrExtension
from alignment.grading.sandbox_settings import SandboxSettings
from alignment.models.source import Context
from alignment.recipe.stage_parts import (
    BaseModelSettings,
    BenchmarkSettings,
    Contract,
    DataSource,
    Fim,
    Gate,
    Reward,
    Tracking,
)
from alignment.settings import Name, Positive, Ref, Reference, Seed, Settings


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class Stage(Settings):
    """What all stages have."""

    name: Name
    """Name of the stage, unique in the recipe. Later stages and the folder of its artifact use it."""
    seed: Seed | None = None
    """Seed of everything random in the stage. Default: the recipe's seed."""
    gate: Annotated[list[Gate], BeforeValidator(_as_list, json_schema_input_type=Gate | list[Gate])] = Field(
        default_factory=list
    )
    """One gate or a list of gates. On a training stage they judge its model by the recipe's `evaluate:`, on an evaluate
    stage by its own benchmarks. Default: no gate."""

    @property
    def gates(self) -> list[Gate]:
        """The gates of the stage."""
        return self.gate


class BuildStage(Stage):
    """Make a dataset with a builder."""

    kind: Literal["build"]
    builder: NameOrExtension
    """A built-in builder (`align build --list` lists them), or one of your own: `path/to/file.py:name`, relative to the
    recipe, or `package.module:name`. `data_builders.builder` describes how it is called."""
    model: str | None = None
    """For builders that sample from a model: `base` or an earlier stage. Default: the last stage before this one that
    makes a model, or `base`; a builder of your own gets a model only if this names one."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The builder's settings. `align build BUILDER --settings` lists them."""


class TrainingStage(Stage):
    """What all stages that train a model have."""

    model: str | None = None
    """The model to start from: `base` or an earlier stage. Default: the last stage before this one that makes a model,
    or `base`."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Settings of TRL's config class for this kind of stage (SFTConfig, DPOConfig or GRPOConfig) of the installed version,
    by their names there: learning_rate, max_length, num_train_epochs and so on. Defaults are TRL's."""
    peft: dict[str, Any] | None = None
    """Train a LoRA adapter with these settings of PEFT's LoraConfig (`r`, `lora_alpha` and so on; `target_modules` is
    `all-linear` by default). It is merged into the weights at the end. Default: all weights are trained."""
    quantization: Literal["4bit"] | None = None
    """QLoRA: keep the frozen weights in 4 bits (NF4). Needs `peft`, a GPU, and bitsandbytes (the extra [qlora])."""
    context: Context | None = None
    """Long-context settings, applied before the stage trains and kept in the model from then on."""
    evaluate: bool = True
    """Measure the model on the recipe's `evaluate:` after the stage."""


class PretrainStage(TrainingStage):
    """Continued pretraining on documents. Documents longer than `max_length` are split, and packed into full rows."""

    kind: Literal["pretrain"]
    data: list[DataSource] = Field(min_length=1)
    """Documents (a column `text`, or `files` of a repository). Conversations may be mixed in."""
    fim: Fim = Fim()
    """Fill-in-the-middle. To train without it, set `fim: {rate: 0}`."""


class SftStage(TrainingStage):
    """Supervised fine-tuning on conversations. Documents may be mixed in."""

    kind: Literal["sft"]
    data: list[DataSource] = Field(min_length=1)
    """Conversations (a column `messages`), of which only the assistant's turns are learned, and documents."""
    fim: Fim = Fim()
    """Fill-in-the-middle of the documents among the rows."""
    overlong: Literal["drop", "error", "split"] = "drop"
    """What to do with a row longer than `max_length`: drop it and count it, stop, or split it into several rows."""


class DpoStage(TrainingStage):
    """Direct preference optimization (DPO) on pairs of answers."""

    kind: Literal["dpo"]
    data: list[DataSource] = Field(min_length=1)
    """Preferences: columns `prompt`, `chosen` and `rejected`, as text or as messages."""
    overlong: Literal["drop", "error"] = "drop"
    """What to do with a pair of which one side is longer than `max_length`: drop it and count it, or stop."""


class GrpoStage(TrainingStage):
    """GRPO with rewards that are computed by executing code. Qwen2.5-Coder's report has no such stage; it ends with DPO."""

    kind: Literal["grpo"]
    data: list[DataSource] = Field(min_length=1)
    """Tasks: columns `prompt` and `tests`."""
    rewards: list[Reward] = Field(default=[Reward(name="tests_passed")], min_length=1)
    """The rewards of a completion, which are summed with their weights."""
    max_prompt_length: Positive | None = None
    """Drop and count tasks whose prompt has more tokens than this. TRL itself never truncates prompts. Default: no
    limit; set it so that prompt and completion fit into the model's positions."""
    resample: Annotated[int, Field(ge=0, le=16)] = 0
    """Rounds of replacing groups whose completions all have the same reward, and thus no gradient, by groups of other
    prompts (DAPO's dynamic sampling). Each round costs a generation. Without it, such groups are only counted."""


class EvaluateStage(Stage):
    """Measure a model on benchmarks. The recipe's `evaluate:` inserts one after every training stage."""

    kind: Literal["evaluate"]
    model: str | None = None
    """The model to measure: `base` or an earlier stage. Default: the last stage before this one that makes a model, or
    `base`."""
    benchmarks: list[BenchmarkSettings] = Field(min_length=1)
    """The benchmarks."""


class ExportStage(Stage):
    """Convert and quantize a model, and compare each result with the original. The stage fails if one differs too much."""

    kind: Literal["export"]
    model: str | None = None
    """The model to export: `base` or an earlier stage. Default: the last stage before this one that makes a model, or
    `base`."""
    formats: list[str] = Field(min_length=1)
    """What to make: GGUF levels (`f16`, `q8_0`, `q4_K_M` and others), `gptq-int4`, `gptq-int8`, `awq-int4`, folders with a
    GGUF file and what a runtime needs (`ollama:LEVEL`, `llama.cpp:LEVEL`), a folder for transformers and vLLM
    (`huggingface` or `vllm`), and `adapter` for the LoRA adapter alone."""
    data: Ref | None = None
    """Held-out rows to compare on, like those the model is used for. Default: code of Python's standard library."""
    compare: Comparison = Comparison()
    """How exports are compared with the original, and how much they may differ."""
    max_perplexity_change: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Allowed increase of perplexity by format, in percent. Short for
    `compare.thresholds.FORMAT.max_perplexity_increase`."""
    benchmark: BenchmarkSettings | None = None
    """Also measure pass@1 of the original and of every export on this benchmark."""
    calibration: Calibration | None = None
    """Rows for GPTQ, AWQ and importance matrices. Required for those."""
    imatrix: bool = False
    """Weight the quantization of GGUF levels by an importance matrix that is computed over `calibration`. Improves levels
    below 6 bits most."""
    imatrix_file: Ref | None = None
    """An importance matrix in llama.cpp's GGUF format, instead of computing one."""
    quantize: Quantize | None = None
    """Settings of GPTQ and AWQ. The defaults fit most models."""
    split_bytes: Annotated[int, Field(ge=1_000_000)] | None = None
    """Split GGUF files into parts of about this many bytes. Default: one file."""
    license: Annotated[str, Field(min_length=1)] | None = None
    """Licence identifier for metadata and model card, for example `apache-2.0`."""
    base_model: Annotated[str, Field(min_length=1)] | None = None
    """The model that this one was fine-tuned from, for metadata and model card: `owner/name`."""
    push: Push | None = None
    """Upload the exports to the Hugging Face hub. Default: nothing leaves the machine."""


class CustomStage(Stage):
    """Your own code as a stage. It runs in one process, on the machine of rank 0, and leaves files in its artifact."""

    kind: Literal["custom"]
    run: ExtensionReference
    """The function to call: `path/to/file.py:name`, relative to the recipe, or `package.module:name`. It is called as
    `function(request)` with a `StageRequest` (`alignment.recipe.stage_request`), writes files into `request.out`, and
    returns a mapping of JSON values, which becomes `result` of `artifact.json`. `examples/stage.py` is a complete one."""
    model: str | None = None
    """The model that the function reads: `base` or an earlier stage. Default: none."""
    makes_model: bool = False
    """The function leaves a checkpoint in the folder `model` of its artifact, and later stages may start from it."""
    inputs: dict[str, Ref] = Field(default_factory=dict)
    """Files and folders that the function reads, under names of your choice: `stage/file` of an earlier stage, or a path
    relative to the recipe. The function finds them as absolute paths in `request.stage.inputs`. The stage runs again when
    their content changes."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the function, passed unchanged as `request.stage.settings`. Use `inputs` for paths."""


AnyStage = Annotated[
    BuildStage | PretrainStage | SftStage | DpoStage | GrpoStage | EvaluateStage | ExportStage | CustomStage,
    Field(discriminator="kind"),
]
STAGES: dict[str, type[Stage]] = {
    get_args(stage.model_fields["kind"].annotation)[0]: stage for stage in get_args(get_args(AnyStage)[0])
}
"""The class of each kind of stage."""
CONFIGS = {"pretrain": "SFTConfig", "sft": "SFTConfig", "dpo": "DPOConfig", "grpo": "GRPOConfig"}
"""TRL's config class for each kind of stage that trains."""
MODEL_KINDS = tuple(CONFIGS)
"""Kinds of stages that train a model."""


def makes_model(stage: AnyStage) -> bool:
    """Whether later stages may start from the model of a stage."""
    return stage.kind in MODEL_KINDS or (isinstance(stage, CustomStage) and stage.makes_model)


def _as_sandbox(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


class Recipe(Settings):
    """A base model, and the stages that run on it one after the other."""

    name: Name
    """Name of the recipe, in the folder of its artifacts, in reports, and in Weights & Biases."""
    seed: Seed = 0
    """Seed of every stage that has none of its own."""
    output: Ref = Reference("runs")
    """Folder of results: artifacts, ladder.json and the report go to `OUTPUT/NAME`. Default: `runs` beside the recipe."""
    launch: Ref | None = None
    """The Accelerate config file that `align run` starts the recipe with, for example one of `accelerate_configs/`. Not
    needed when you start the recipe by `accelerate launch` yourself."""
    model: BaseModelSettings
    """The base model."""
    sources: list[str | dict[str, Any]] = Field(default_factory=list)
    """Repositories for all build stages whose builder reads repositories and whose settings name none."""
    stages: list[AnyStage] = Field(min_length=1)
    """The stages, in the order in which they run."""
    evaluate: list[BenchmarkSettings] = Field(default_factory=list)
    """Benchmarks to measure the base model on, and the model of every training stage. The figures make up the ladder."""
    decontaminate: list[Ref] = Field(default_factory=list)
    """Files and folders whose texts must not be in training data, in addition to the recipe's benchmarks. Training rows
    that share a 10-gram of words with one of them, or hold a shorter one exactly, are removed and counted."""
    sandbox: Annotated[SandboxSettings, BeforeValidator(_as_sandbox, json_schema_input_type=SandboxSettings | str)] = (
        SandboxSettings()
    )
    """How programs that a model or a repository wrote are run. An address alone, `sandbox: http://host:8711`, names a
    grading service (`align sandbox serve`)."""
    tracking: Tracking = Tracking()
    """Weights & Biases. Default: runs are kept on this machine."""
    contract: Contract = Contract()
    """What every trained model must fulfil."""

    @property
    def folder(self) -> Path:
        """The folder of the recipe's results."""
        return self.output.path() / self.name

    def stage(self, name: str) -> AnyStage:
        """Return the stage of this name. Raises StopIteration if there is none."""
        return next(stage for stage in self.stages if stage.name == name)
