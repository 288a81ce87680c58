"""What a recipe may say: one class for each part of it. The docstring under a field is its help, schema and docs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from alignment.export.export_settings import Calibration, Comparison, Push, Quantize
from alignment.extensions import ExtensionReference, NameOrExtension
from alignment.grading.sandbox_settings import SandboxSettings
from alignment.models.source import AttentionKernel, Context, DType, RandomInit
from alignment.settings import Name, Positive, Ref, Reference, Seed, Settings, Share


class BaseModelSettings(Settings):
    """The model that the chain starts from: a checkpoint, or random weights."""

    path: Ref | None = None
    """A local folder, or the name of a model on the Hugging Face hub."""
    revision: Annotated[str, Field(min_length=1)] | None = None
    """Commit, tag or branch on the hub; a commit is what makes a run repeatable."""
    init: RandomInit | None = None
    tokenizer: Ref | None = None
    """Where the tokenizer is, if not with the model."""
    dtype: DType = "bfloat16"
    """The type the weights are loaded and saved in."""
    attn_implementation: AttentionKernel | None = None
    """Attention kernel, as transformers names it; by default the best that is installed and that the card runs."""
    use_kernels: bool = False
    """Fused kernels for training (RMSNorm, MLP) from the Hugging Face hub, on accelerators; needs the package `kernels`."""


class DataSource(Settings):
    """Rows to train on."""

    data: Ref
    """JSONL or Parquet file, a folder of them, or `stage/file` of an earlier build stage."""
    share: Share | None = None
    """Share of the tokens. Give it for all sources of a stage or for none; they add up to 1."""
    rows: Positive | None = None
    """At most this many rows, the first ones."""


class Fim(Settings):
    """Fill-in-the-middle, applied per document before packing."""

    rate: Share = 0.5
    """Share of documents that become FIM documents (DeepSeek-Coder: 0.5; Qwen2.5-Coder does not say)."""
    spm_rate: Share = 0.0
    """Share of FIM documents in suffix-prefix-middle order."""
    spans: Literal["lines", "characters", "syntax"] = "characters"
    """Where the middle may start and end. `syntax`: half of the middles are nodes of the syntax tree (needs [syntax])."""


class Gate(Settings):
    """Stops the chain when a stage made the model worse than allowed."""

    metric: str
    """`benchmark.metric`, as in ladder.json."""
    max_drop: Annotated[float, Field(ge=0)] | None = None
    """Allowed loss against the stage before, in points."""
    min_value: float | None = None
    """The least acceptable value."""


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class Benchmark(Settings):
    """One entry of `evaluate:`; the same tasks after every training stage."""

    name: Name
    benchmark: NameOrExtension
    """A built-in benchmark (`align evaluate --list` names them), or one of your own: `path/to/file.py:name`, relative to
    the recipe, or `package.module:name`; `alignment.evaluation` describes what it must be."""
    data: Ref | None = None
    """Its rows: a file, a folder, or `stage/file`. Required for benchmarks that measure your own rows; elsewhere it
    replaces the published rows."""
    mode: Literal["base", "chat"] | None = None
    """Base prompts or ChatML; by default the benchmark's own choice."""
    n: Positive = 1
    """Samples per task."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Positive | None = None
    limit: Positive | None = None
    """Only this many tasks."""
    batch_size: Positive | None = None
    allow_overlap: Annotated[str, Field(min_length=10, max_length=300)] | None = None
    """Why training rows may share text with this benchmark. Without a reason, rows that do are removed everywhere."""


def _as_sandbox(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


class Contract(Settings):
    """What every saved model must keep; see `alignment.models.contract`."""

    must_stop: bool = True
    """From SFT on, greedy answers must end by themselves. False only for trials too short to learn it."""


class Tracking(Settings):
    """Weights & Biases; nothing leaves the machine unless `wandb` is `online`."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    project: Annotated[str, Field(pattern=r"^[^/\\#?%:\s]{1,128}$")] = "code-alignment"
    entity: Annotated[str, Field(min_length=1)] | None = None


class Reward(Settings):
    """One part of the GRPO reward: a built-in one (`name`) or one of your own (`path`)."""

    name: Literal["tests_passed", "tests_fraction", "parses", "fenced", "length_penalty"] | None = None
    """A built-in reward. Give either this or `path`."""
    path: ExtensionReference | None = None
    """Your own reward function: `path/to/file.py:name`, relative to the recipe, or `package.module:name`;
    `alignment.rewards` describes how it is called."""
    weight: float = 1.0
    """The reward is multiplied by this before the sum over all rewards. May be negative."""
    soft: Annotated[int, Field(ge=0)] | None = None
    """length_penalty: no penalty up to so many tokens."""
    hard: Positive | None = None
    """length_penalty: the whole penalty of -1 from so many tokens on."""
    isolated: bool = False
    """path: run the function in a process of its own. Needed if it executes or imports what the model wrote, or may
    block or crash. This is no security boundary: only the sandbox contains hostile programs."""
    timeout_seconds: Annotated[float, Field(gt=0)] | None = None
    """isolated: the time that one batch may take; 60 seconds by default. After that the batch has no score from this
    reward."""


class Stage(Settings):
    name: Name
    seed: Seed | None = None
    """By default the recipe's seed."""
    gate: Annotated[list[Gate], BeforeValidator(_as_list, json_schema_input_type=Gate | list[Gate])] = Field(
        default_factory=list
    )
    """One gate, or a list of them."""

    @property
    def gates(self) -> list[Gate]:
        return self.gate


class BuildStage(Stage):
    """Makes datasets."""

    kind: Literal["build"]
    builder: NameOrExtension
    """A built-in builder (`align build --list` names them), or one of your own: `path/to/file.py:name`, relative to the
    recipe, or `package.module:name`; `data_builders.builder` describes what it must be."""
    model: str | None = None
    """For builders that sample from a model: `base` or a stage; by default the last trained one. A builder of your own
    gets a model only if this names one."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The builder's settings; `align build BUILDER --settings` lists them."""


class TrainingStage(Stage):
    model: str | None = None
    """`base` or an earlier stage; by default the last stage that made a model."""
    train: dict[str, Any] = Field(default_factory=dict)
    peft: dict[str, Any] | None = None
    """LoRA settings; without them all weights are trained."""
    quantization: Literal["4bit"] | None = None
    """QLoRA: the frozen weights in 4 bits (needs bitsandbytes and a GPU)."""
    context: Context | None = None
    evaluate: bool = True
    """Run the recipe's `evaluate:` set afterwards."""


class PretrainStage(TrainingStage):
    """Continued pretraining on documents."""

    kind: Literal["pretrain"]
    data: list[DataSource] = Field(min_length=1)
    fim: Fim = Fim()


class SftStage(TrainingStage):
    """Supervised fine-tuning on conversations; documents may be mixed in."""

    kind: Literal["sft"]
    data: list[DataSource] = Field(min_length=1)
    fim: Fim = Fim()
    """For documents that are mixed in."""
    overlong: Literal["drop", "error", "split"] = "drop"
    """What happens to a row longer than `max_length`; always counted."""


class DpoStage(TrainingStage):
    """Direct preference optimization."""

    kind: Literal["dpo"]
    data: list[DataSource] = Field(min_length=1)
    overlong: Literal["drop", "error"] = "drop"


class GrpoStage(TrainingStage):
    """GRPO, rewarded by executing code. Ours: Qwen2.5-Coder's report stops at offline DPO."""

    kind: Literal["grpo"]
    data: list[DataSource] = Field(min_length=1)
    rewards: list[Reward] = Field(default=[Reward(name="tests_passed")], min_length=1)
    max_prompt_length: Positive | None = None
    """Longer prompts are dropped and counted; TRL itself never truncates."""
    resample: Annotated[int, Field(ge=0, le=16)] = 0
    """Rounds of other prompts for groups whose answers all scored alike, which teach nothing; they are counted anyway."""


class EvaluateStage(Stage):
    """Runs benchmarks on a model; placed after every training stage by itself when the recipe has `evaluate:`."""

    kind: Literal["evaluate"]
    model: str | None = None
    benchmarks: list[Benchmark] = Field(min_length=1)


class ExportStage(Stage):
    """Quantized and converted models, each compared with the original."""

    kind: Literal["export"]
    model: str | None = None
    formats: list[str] = Field(min_length=1)
    """GGUF levels (`f16`, `q8_0`, `q4_K_M`...), `gptq-int4`, `gptq-int8`, `awq-int4`, `ollama:LEVEL`, `llama.cpp:LEVEL`,
    `huggingface` (or `vllm`), and `adapter` for the LoRA adapter itself."""
    data: Ref | None = None
    """Held-out rows to compare on; by default code of Python's standard library."""
    compare: Comparison = Comparison()
    max_perplexity_change: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Per format, in percent: short for `compare.thresholds.FORMAT.max_perplexity_increase`."""
    benchmark: Benchmark | None = None
    """Measure pass@1 of the original and of every exported model on this benchmark too."""
    calibration: Calibration | None = None
    """The rows that importance matrices, GPTQ and AWQ are made with."""
    imatrix: bool = False
    """Weigh the quantization of GGUF levels by an importance matrix over `calibration`."""
    imatrix_file: Ref | None = None
    """An importance matrix that exists already, in llama.cpp's GGUF form."""
    quantize: Quantize | None = None
    """How GPTQ and AWQ quantize, where the defaults will not do."""
    split_bytes: Annotated[int, Field(ge=1_000_000)] | None = None
    """Write GGUF files in parts of about this size; by default each is one file."""
    license: Annotated[str, Field(min_length=1)] | None = None
    """Licence identifier for metadata and model card, for example apache-2.0."""
    base_model: Annotated[str, Field(min_length=1)] | None = None
    """What the model was fine-tuned from, for metadata and model card: `owner/name`."""
    push: Push | None = None
    """Upload what was made; without this, nothing leaves the machine."""


class CustomStage(Stage):
    """Your own code as a stage: it runs in one process and leaves files in its artifact."""

    kind: Literal["custom"]
    run: ExtensionReference
    """The function to call: `path/to/file.py:name`, relative to the recipe, or `package.module:name`. It is called as
    `function(request)` with a `StageRequest` (`alignment.recipe.stage_request`), writes files into `request.out`, and returns a
    mapping of JSON values that becomes `result` of `artifact.json`. `examples/stage.py` is a complete one."""
    model: str | None = None
    """The model that the function reads: `base` or an earlier stage. By default it reads none."""
    makes_model: bool = False
    """The function leaves a model in the folder `model` of its artifact, and later stages may start from it."""
    inputs: dict[str, Ref] = Field(default_factory=dict)
    """Files and folders that the function reads, each under a name of your choice: `stage/file` of an earlier stage, or a
    path relative to the recipe. The function finds absolute paths in `request.stage.inputs`. Their content is part of
    the stage's fingerprint."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Passed to the function as they are, in `request.stage.settings`. Paths in here are not resolved: use `inputs`."""


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


class Recipe(Settings):
    """A base model, and the stages that turn it into another."""

    name: Name
    seed: Seed = 0
    output: Ref = Reference("runs")
    """Artifacts go to `<output>/<name>/`."""
    launch: Ref | None = None
    """The Accelerate file that `align run` starts the recipe with."""
    model: BaseModelSettings
    sources: list[str | dict[str, Any]] = Field(default_factory=list)
    """Repositories for every build stage that reads some and names none in its own settings."""
    stages: list[AnyStage] = Field(min_length=1)
    evaluate: list[Benchmark] = Field(default_factory=list)
    decontaminate: list[Ref] = Field(default_factory=list)
    """More files and folders of texts that no training row may share, besides the recipe's benchmarks."""
    sandbox: Annotated[SandboxSettings, BeforeValidator(_as_sandbox, json_schema_input_type=SandboxSettings | str)] = (
        SandboxSettings()
    )
    tracking: Tracking = Tracking()
    contract: Contract = Contract()

    @property
    def folder(self) -> Path:
        assert isinstance(self.output, Reference)
        return self.output.path() / self.name

    def stage(self, name: str) -> AnyStage:
        return next(stage for stage in self.stages if stage.name == name)
