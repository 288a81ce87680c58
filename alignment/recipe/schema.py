"""The typed settings of a recipe: `Recipe`, and one class for each kind of stage.

The docstring under a field is the field's help text, its description in the JSON schema, and its entry in the reference
pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, get_args

from pydantic import BeforeValidator, Field

from alignment.export.export_settings import Calibration, Comparison, Push, Quantize
from alignment.extensions import Extension, ExtensionReference, NameOrExtension
from alignment.grading.sandbox_settings import SandboxSettings
from alignment.models.source import Context
from alignment.models.trainer_classes import CONFIGS
from alignment.recipe.merge_stage import MergeStage
from alignment.recipe.stage_base import Stage
from alignment.recipe.stage_parts import (
    BaseModelSettings,
    BenchmarkSettings,
    Contract,
    DataSource,
    Fim,
    GrpoEnvironment,
    Reward,
    Tracking,
)
from alignment.settings import Name, Positive, Ref, Reference, Seed, Settings


def _as_environment(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return {"path" if Extension.is_reference(value) else "name": value}


class BuildStage(Stage):
    """Make a dataset with a builder."""

    kind: Literal["build"]
    builder: NameOrExtension
    """A built-in builder (`align build --list` lists them), or your own builder: `path/to/file.py:name`, relative to
    the recipe, or `package.module:name`. `data_builders.builder` describes how a builder is called."""
    model: str | None = None
    """The model for builders that sample from a model: `base` or an earlier stage. Default: the last earlier stage that
    makes a model, or `base`. Your own builder gets a model only if this setting names one."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The builder's settings. `align build BUILDER --settings` lists them."""


class TrainingStage(Stage):
    """Settings that all stages that train a model have."""

    model: str | None = None
    """The model to start from: `base` or an earlier stage. Default: the last earlier stage that makes a model, or
    `base`."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Settings of TRL's config class for this kind of stage (SFTConfig, DPOConfig, KTOConfig or GRPOConfig of the
    installed version), such as learning_rate, max_length and num_train_epochs. Defaults are TRL's."""
    peft: dict[str, Any] | None = None
    """Train a LoRA adapter with these settings of PEFT's LoraConfig (`r`, `lora_alpha` and so on; `target_modules` is
    `all-linear` by default). The adapter is merged into the weights at the end. Default: all weights are trained."""
    quantization: Literal["4bit"] | None = None
    """QLoRA: keep the frozen weights in 4 bits (NF4). Needs `peft`, a GPU, and bitsandbytes (the extra [qlora])."""
    context: Context | None = None
    """Long-context settings. They are applied before the stage trains, and stay in the model for later stages."""
    evaluate: bool = True
    """Whether to measure the model on the recipe's `evaluate:` after the stage."""


class PretrainStage(TrainingStage):
    """Continued pretraining on documents.

    Text of documents longer than `max_length` is split, and packed into rows. Fill-in-the-middle samples are not split
    (`fim.level`).
    """

    kind: Literal["pretrain"]
    data: list[DataSource] = Field(min_length=1)
    """Documents (a column `text`, or `files` of a repository). Conversations may be mixed with them."""
    fim: Fim = Fim()
    """Fill-in-the-middle. To train without it, set `fim: {rate: 0}`."""


class SftStage(TrainingStage):
    """Supervised fine-tuning on conversations. Documents may be mixed with them."""

    kind: Literal["sft"]
    data: list[DataSource] = Field(min_length=1)
    """Conversations (a column `messages`), of which only the assistant's turns are learned, and documents."""
    fim: Fim = Fim()
    """Fill-in-the-middle settings for rows that are documents."""
    overlong: Literal["drop", "error", "split"] = "drop"
    """What to do with a row longer than `max_length`: drop and count the row, stop with an error, or split the row."""


class DpoStage(TrainingStage):
    """Direct preference optimization (DPO) on pairs of answers."""

    kind: Literal["dpo"]
    data: list[DataSource] = Field(min_length=1)
    """Preferences: columns `prompt`, `chosen` and `rejected`, as text or as messages."""
    overlong: Literal["drop", "error"] = "drop"
    """What to do with a pair if one side is longer than `max_length`: drop and count it, or stop with an error."""


class KtoStage(TrainingStage):
    """Kahneman-Tversky optimization (KTO, arXiv 2402.01306): learn from answers that were accepted or rejected one by
    one.
    """

    kind: Literal["kto"]
    data: list[DataSource] = Field(min_length=1)
    """Feedback: columns `completion` and `label` (true for accepted), and `prompt` for answers in a conversation or
    `prefix` and `suffix` for completions in an editor. The builder `feedback` makes such rows from editor logs."""
    overlong: Literal["drop", "error"] = "drop"
    """What to do with a row longer than `max_length`: drop and count it, or stop with an error."""


class GrpoStage(TrainingStage):
    """GRPO with rewards that are computed by executing code.

    Qwen2.5-Coder's report has no such stage; it ends with DPO.
    """

    kind: Literal["grpo"]
    data: list[DataSource] = Field(min_length=1)
    """Tasks: columns `prompt` and `tests`. Data for your own environment goes into the column `environment`."""
    rewards: list[Reward] = Field(default=[Reward(name="tests_passed")], min_length=1)
    """The rewards of a completion, which are summed with their weights."""
    forgeable: Literal["refuse", "allow"] = "refuse"
    """Whether to train on tasks whose tests run in the process of the graded program (tier B): a program can forge the
    verdict on these tasks, so that training rewards forging. `refuse` drops and counts the tasks. `allow` keeps them;
    compare the metrics `reward_by_tier/A` and `reward_by_tier/B`."""
    environment: Annotated[
        GrpoEnvironment | None, BeforeValidator(_as_environment, json_schema_input_type=GrpoEnvironment | str | None)
    ] = None
    """Tools that the model may call before it answers. A name or path alone is short for `{name: ...}` or
    `{path: ...}`. `train.max_completion_length` limits the tokens of all turns and results together. Default: the model
    answers at once."""
    max_prompt_length: Positive | None = None
    """Tasks whose prompt has more tokens than this are dropped and counted. TRL does not truncate prompts. Default: no
    limit. Set a limit so that prompt and completion fit into the model's positions."""
    reference_length_factor: Annotated[float, Field(ge=1)] | None = None
    """Limit of the tokens of a completion, as a multiple of the tokens of the tasks' references (the length that 95% of
    the references do not exceed). The smaller one of this limit and `train.max_completion_length` holds. Default: only
    `train.max_completion_length`."""
    resample: Annotated[int, Field(ge=0, le=16)] = 0
    """Number of rounds in which groups whose completions all have the same reward, and thus no gradient, are replaced
    by groups of other prompts (DAPO's dynamic sampling). Each round costs a generation. With 0, these groups are only
    counted."""
    rollout_engine: Literal["auto", "transformers", "cpu"] = "auto"
    """The engine that generates the completions, unless `train: {use_vllm: true}` is set. `cpu` is a decoder for Qwen2
    models on CPUs that computes the prompt of a group once. `auto` chooses `cpu` for stages that compute in bfloat16
    on a CPU, and `transformers` for all others."""


class EvaluateStage(Stage):
    """Measure a model on benchmarks. The recipe's `evaluate:` inserts such a stage after every training stage."""

    kind: Literal["evaluate"]
    model: str | None = None
    """The model to measure: `base` or an earlier stage. Default: the last earlier stage that makes a model, or
    `base`."""
    benchmarks: list[BenchmarkSettings] = Field(min_length=1)
    """The benchmarks."""
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """The engine that generates the completions. `auto` is vLLM if it is installed and there is a GPU, else transformers."""


class ExportStage(Stage):
    """Convert and quantize a model, and compare each export with the original.

    The stage fails if an export differs too much.
    """

    kind: Literal["export"]
    model: str | None = None
    """The model to export: `base` or an earlier stage. Default: the last earlier stage that makes a model, or
    `base`."""
    formats: list[str] = Field(min_length=1)
    """Formats to make: GGUF levels (`f16`, `q8_0`, `q4_K_M` and others), `gptq-int4`, `gptq-int8`, `awq-int4`, folders
    with a GGUF file and the files that a runtime needs (`ollama:LEVEL`, `llama.cpp:LEVEL`), a folder for transformers
    and vLLM (`huggingface` or `vllm`), and `adapter` for the LoRA adapter alone."""
    data: Ref | None = None
    """Held-out rows on which exports are compared with the original. They should resemble the model's later inputs.
    Default: code of Python's standard library."""
    compare: Comparison = Comparison()
    """Settings of the comparison of exports with the original, with the largest allowed differences."""
    max_perplexity_change: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Allowed increase of perplexity for each format, in percent. Short for
    `compare.thresholds.FORMAT.max_perplexity_increase`."""
    benchmark: BenchmarkSettings | None = None
    """Benchmark on which pass@1 of the original and of every export is measured. Default: pass@1 is not measured."""
    calibration: Calibration | None = None
    """Calibration rows. Required by GPTQ, AWQ and importance matrices."""
    imatrix: bool = False
    """Whether to weight the quantization of GGUF levels by an importance matrix that is computed from `calibration`.
    This improves levels below 6 bits most."""
    imatrix_file: Ref | None = None
    """An existing importance matrix in llama.cpp's GGUF format, in place of `imatrix: true`."""
    quantize: Quantize | None = None
    """Settings of GPTQ and AWQ. The defaults suit most models."""
    split_bytes: Annotated[int, Field(ge=1_000_000)] | None = None
    """Approximate size of the parts into which GGUF files are split, in bytes. Default: one file."""
    license: Annotated[str, Field(min_length=1)] | None = None
    """Licence identifier for metadata and model card, for example `apache-2.0`."""
    base_model: Annotated[str, Field(min_length=1)] | None = None
    """The base model that was fine-tuned, as `owner/name`, for metadata and model card."""
    push: Push | None = None
    """Upload the exports to the Hugging Face hub. Default: nothing leaves the machine."""


class CustomStage(Stage):
    """Run your own code as a stage.

    It runs in one process, on the machine of rank 0, and writes files to its artifact.
    """

    kind: Literal["custom"]
    run: ExtensionReference
    """The function to call: `path/to/file.py:name`, relative to the recipe, or `package.module:name`. It is called as
    `function(request)` with a `StageRequest` (`alignment.recipe.stage_request`), writes files into `request.out`, and
    returns a mapping of JSON values, which becomes `result` of `artifact.json`. `examples/stage.py` is a complete
    example."""
    model: str | None = None
    """The model that the function reads: `base` or an earlier stage. Default: none."""
    makes_model: bool = False
    """Whether the function writes a checkpoint to the folder `model` of its artifact. Later stages may then start from
    this checkpoint."""
    inputs: dict[str, Ref] = Field(default_factory=dict)
    """Files and folders that the function reads, under names that you choose: `stage/file` of an earlier stage, or a
    path relative to the recipe. `request.stage.inputs` contains their absolute paths. The stage runs again when the
    content of these files changes."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the function, which are passed unchanged as `request.stage.settings`. Use `inputs` for paths."""


AnyStage = Annotated[
    BuildStage
    | PretrainStage
    | SftStage
    | DpoStage
    | KtoStage
    | GrpoStage
    | EvaluateStage
    | MergeStage
    | ExportStage
    | CustomStage,
    Field(discriminator="kind"),
]
STAGES: dict[str, type[Stage]] = {
    get_args(stage.model_fields["kind"].annotation)[0]: stage for stage in get_args(get_args(AnyStage)[0])
}
"""The class of each kind of stage."""
MODEL_KINDS = tuple(CONFIGS)
"""Kinds of stages that train a model."""


def makes_model(stage: AnyStage) -> bool:
    """Whether a stage makes a model from which later stages may start."""
    return is_measured_kind(stage) or (isinstance(stage, CustomStage) and stage.makes_model)


def is_measured_kind(stage: AnyStage) -> TypeGuard[TrainingStage | MergeStage]:
    """Whether the recipe's `evaluate:` measures the model of the stage, unless the stage sets `evaluate: false`."""
    return isinstance(stage, TrainingStage | MergeStage)


def _as_sandbox(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


class Recipe(Settings):
    """A base model, and the stages that run one after the other."""

    name: Name
    """Name of the recipe in reports, in Weights & Biases, and in the path of its artifacts."""
    seed: Seed = 0
    """Seed of all stages that do not set `seed`."""
    output: Ref = Reference("runs")
    """Folder for results: artifacts, ladder.json and the report are written to `OUTPUT/NAME`. Default: `runs` beside
    the recipe."""
    launch: Ref | None = None
    """The Accelerate config file with which `align run` starts the recipe, for example a file in `accelerate_configs/`.
    Not needed if you start the recipe with `accelerate launch`."""
    model: BaseModelSettings
    """The base model."""
    sources: list[str | dict[str, Any]] = Field(default_factory=list)
    """Repositories for all build stages whose builder reads repositories, unless the stage's settings name
    repositories."""
    stages: list[AnyStage] = Field(min_length=1)
    """The stages, in the order in which they run."""
    evaluate: list[BenchmarkSettings] = Field(default_factory=list)
    """Benchmarks on which the base model and the model of every training stage are measured. The metrics make up the
    ladder, the table of metrics after each stage."""
    evaluation_engine: Literal["auto", "transformers", "vllm"] = "auto"
    """The engine that generates the completions of `evaluate:`. `auto` is vLLM if it is installed and there is a GPU, else
    transformers."""
    decontaminate: list[Ref] = Field(default_factory=list)
    """Files and folders whose texts must not be in training data, in addition to the recipe's benchmarks. A training
    row is removed and counted if it shares 10 consecutive words with such a text, or contains a shorter text
    exactly."""
    sandbox: Annotated[SandboxSettings, BeforeValidator(_as_sandbox, json_schema_input_type=SandboxSettings | str)] = (
        SandboxSettings()
    )
    """Settings of the sandbox in which programs from models and repositories run. A single address, as in
    `sandbox: http://host:8711`, names a grading service (`align sandbox serve`)."""
    tracking: Tracking = Tracking()
    """Settings of Weights & Biases. Default: runs are kept on this machine."""
    contract: Contract = Contract()
    """Conditions that every trained model must fulfil."""

    @property
    def folder(self) -> Path:
        """The folder of the recipe's results."""
        return self.output.path() / self.name

    def stage(self, name: str) -> AnyStage:
        """Return the stage with this name. Raise StopIteration if no stage has this name."""
        return next(stage for stage in self.stages if stage.name == name)
