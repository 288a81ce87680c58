"""Settings that stages and recipes are made of: the base model, data sources, benchmarks, gates, rewards, tracking."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alignment.extensions import ExtensionReference, NameOrExtension
from alignment.models.source import AttentionKernel, DType, RandomInit
from alignment.settings import Name, Positive, Ref, Settings, Share


class BaseModelSettings(Settings):
    """The model that the chain starts from: a checkpoint (`path`) or random weights (`init`)."""

    path: Ref | None = None
    """Folder of a checkpoint, relative to the recipe, or the name of a model on the Hugging Face hub."""
    revision: Annotated[str, Field(min_length=1)] | None = None
    """Commit, tag or branch of a model on the hub. Give a commit to make runs repeatable. Default: the main branch."""
    init: RandomInit | None = None
    """Random weights of this shape instead of a checkpoint, for tests and small experiments. Needs `tokenizer`."""
    tokenizer: Ref | None = None
    """Folder or hub name of the tokenizer; may be an output of a build stage. Default: the one in `path`."""
    dtype: DType = "bfloat16"
    """Type in which weights are loaded and saved. `auto` takes what the hardware computes fastest: bfloat16 on
    accelerators and on CPUs with AMX or AVX512-BF16, float32 on others. A stage that trains all weights then keeps them in
    float32, so that small updates are not rounded away, and computes in bfloat16."""
    attn_implementation: AttentionKernel | None = None
    """Attention kernel, by its name in transformers. Default: the fastest that is installed and supported by the GPU."""
    use_kernels: bool = False
    """Train with fused kernels (RMSNorm, MLP) from the Hugging Face hub. Needs an accelerator and the package `kernels`."""


class DataSource(Settings):
    """Rows to train on."""

    data: Ref
    """A JSONL or Parquet file, a folder of such files, or `stage/file` of an earlier stage."""
    share: Share | None = None
    """Share of this source in the stage's training tokens (pretrain and sft). Give it for all sources of a stage or for
    none; shares add up to 1. The scarcest source decides the total. Default: all rows of every source."""
    rows: Positive | None = None
    """Use at most this many rows, from the start of the source. Default: all."""


class Fim(Settings):
    """Fill-in-the-middle (FIM), applied to whole documents before they are packed."""

    rate: Share = 0.5
    """Share of documents that become FIM documents. DeepSeek-Coder uses 0.5; Qwen2.5-Coder's report gives no number."""
    spm_rate: Share = 0.0
    """Share of FIM documents in suffix-prefix-middle (SPM) order; the others are prefix-suffix-middle (PSM)."""
    spans: Literal["lines", "characters", "syntax"] = "characters"
    """Where a middle may start and end: at whole lines, at any character, or, for half of the middles, at nodes of the
    syntax tree (`syntax`; needs the extra [syntax])."""


class Gate(Settings):
    """Stop the chain if a stage made the model worse than allowed. Needs `max_drop`, `min_value` or both."""

    metric: str
    """The metric to compare, as `benchmark.metric` in ladder.json, for example `humaneval.pass@1`."""
    max_drop: Annotated[float, Field(ge=0)] | None = None
    """Allowed loss against the model that the stage started from, in percentage points."""
    min_value: float | None = None
    """Smallest allowed value, in percent."""


class BenchmarkSettings(Settings):
    """One benchmark to measure a model on. What is left out of the sampling settings is greedy, one sample per task."""

    name: Name
    """Name of the benchmark in ladder.json, reports and gates. Unique within its list."""
    benchmark: NameOrExtension
    """A built-in benchmark (`align evaluate --list` lists them), or one of your own: `path/to/file.py:name`, relative to
    the recipe, or `package.module:name`. `alignment.evaluation.user_benchmark` describes what it must return."""
    data: Ref | None = None
    """Its rows: a file, a folder, or `stage/file`. Required for benchmarks on your own rows; for the others it replaces
    the published rows."""
    mode: Literal["base", "chat"] | None = None
    """Plain prompts for base models, or ChatML. Default: what the benchmark was published with."""
    n: Positive = 1
    """Samples per task. More than 1 needs a `temperature` above 0, and gives pass@k for each k up to n."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: sample from the most probable tokens with this total probability."""
    max_new_tokens: Positive | None = None
    """Largest number of tokens in one sample. Default: the benchmark's own limit."""
    limit: Positive | None = None
    """Measure only this many tasks, the first ones. For quick trials: figures of fewer tasks have wider intervals."""
    batch_size: Positive | None = None
    """Sequences that are generated at the same time. Default: as many as fit into memory."""
    allow_overlap: Annotated[str, Field(min_length=10, max_length=300)] | None = None
    """The reason why training rows may share text with this benchmark, in 10 to 300 characters. Without it, such rows are
    removed from the data of every training stage."""


class Contract(Settings):
    """What every model that a stage saves must fulfil; `alignment.models.contract` has the whole list."""

    must_stop: bool = True
    """From SFT on, greedy answers must end by themselves. Set it to false only for trials too short to learn that."""


class Tracking(Settings):
    """Weights & Biases. Nothing leaves the machine unless `wandb` is `online`."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    """`offline` writes runs into the artifacts, to be uploaded by `wandb sync`; `online` uploads while training."""
    project: Annotated[str, Field(pattern=r"^[^/\\#?%:\s]{1,128}$")] = "code-alignment"
    """Project of the runs. All stages of a recipe are one group in it."""
    entity: Annotated[str, Field(min_length=1)] | None = None
    """User or team that owns the project. Default: the one you are logged in as."""


class Reward(Settings):
    """One part of the GRPO reward: a built-in one (`name`) or one of your own (`path`)."""

    name: Literal["tests_passed", "tests_fraction", "parses", "fenced", "length_penalty"] | None = None
    """A built-in reward. `tests_passed` is 1 if all tests of the task pass, `tests_fraction` the share that passes,
    `parses` 1 for valid Python, `fenced` 1 for an answer with exactly one fenced code block, `length_penalty` 0 to -1 by
    the answer's length (`soft`, `hard`). Give either this or `path`."""
    path: ExtensionReference | None = None
    """Your own reward function: `path/to/file.py:name`, relative to the recipe, or `package.module:name`.
    `alignment.rewards.reward_protocol` describes how it is called and what it returns."""
    weight: float = 1.0
    """Factor of this reward in the sum over all rewards. May be negative."""
    soft: Annotated[int, Field(ge=0)] | None = None
    """length_penalty: length in tokens up to which there is no penalty."""
    hard: Positive | None = None
    """length_penalty: length in tokens from which the penalty is -1; it grows linearly between `soft` and `hard`."""
    isolated: bool = False
    """path: run the function in a process of its own. Needed if it executes or imports what the model wrote, or may
    block or crash. This is no security boundary: only the sandbox contains hostile programs."""
    timeout_seconds: Annotated[float, Field(gt=0)] | None = None
    """isolated: seconds that one batch may take; default 60. After that the batch has no score from this reward."""
