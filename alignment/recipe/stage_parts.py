"""Settings classes that recipes and stages contain: base model, data sources, benchmarks, gates, rewards, tracking."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alignment.extensions import ExtensionReference, NameOrExtension
from alignment.models.source import AttentionKernel, DType, RandomInit
from alignment.rows.conversions import RowFormat
from alignment.settings import Name, Positive, Ref, Settings, Share

Weight = Annotated[float, Field(ge=0)]
FIM_WINDOW = 2048
"""Default of `fim.window`, in tokens. Prompts of llama.vscode and Continue have 1,000 to 3,000 tokens."""


class BaseModelSettings(Settings):
    """The model that the recipe starts from: a checkpoint (`path`) or random weights (`init`)."""

    path: Ref | None = None
    """Folder of a checkpoint, relative to the recipe, or the name of a model on the Hugging Face hub."""
    revision: Annotated[str, Field(min_length=1)] | None = None
    """Commit, tag or branch of a model on the hub. Give a commit to make runs repeatable. Default: the main branch."""
    init: RandomInit | None = None
    """Random weights of this shape instead of a checkpoint, for tests and small experiments. Needs `tokenizer`."""
    tokenizer: Ref | None = None
    """Folder or hub name of the tokenizer, or an output of a build stage. Default: the tokenizer in `path`."""
    dtype: DType = "bfloat16"
    """Type in which weights are loaded and saved. `auto` is the type that the hardware computes fastest: bfloat16 on
    accelerators and on CPUs with AMX or AVX512-BF16, float32 on other CPUs. With `auto`, a stage that trains all
    weights keeps them in float32, so that small updates are not rounded away, and computes in bfloat16."""
    attn_implementation: AttentionKernel | None = None
    """Name of the attention kernel in transformers. Default: the fastest kernel that is installed and that the GPU
    supports."""
    use_kernels: bool = False
    """Whether to train with fused kernels (RMSNorm, MLP) from the Hugging Face hub. Needs an accelerator and the
    package `kernels`."""


class DataSource(Settings):
    """A source of training rows."""

    data: Ref
    """A JSONL or Parquet file, a folder of such files, or `stage/file` of an earlier stage."""
    share: Share | None = None
    """Share of this source in the stage's training tokens (pretrain and sft). Give shares for all sources of a stage or
    for none; they must add up to 1. The total is the largest for which every source has enough tokens. Default: all
    rows of every source."""
    rows: Positive | None = None
    """Use only the first rows, at most this many. Default: all rows."""
    format: RowFormat | None = None
    """Convert rows that were made for another trainer: `sharegpt` (`conversations` of `from` and `value`), `alpaca`
    (`instruction`, `input`, `output`), or `openai` (files for OpenAI's fine-tuning). `docs/rows.md` shows each form.
    Default: rows are documents, conversations, preferences or tasks already."""


class FimMiddles(Settings):
    """Relative weight of each kind of middle. If the drawn kind does not fit the text, another kind is drawn."""

    line: Weight = 0.2
    """The rest of a line, from the start or end of a word."""
    lines: Weight = 0.25
    """One to six whole lines. Fewer lines are more frequent."""
    block: Weight = 0.25
    """A node of the syntax tree, of any size (AST-FIM, arXiv 2506.00204)."""
    body: Weight = 0.2
    """The body of a function."""
    cursor: Weight = 0.05
    """From any character to any other, as if the cursor were in the middle of a line or word."""
    edge: Weight = 0.05
    """The first lines of a file (so the prefix is empty), or the last lines (so the suffix is empty)."""

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("at least one kind of middle needs a weight above 0")
        return self


class Fim(Settings):
    """Fill-in-the-middle (FIM) of documents."""

    level: Literal["context", "document"] = "context"
    """`context`: choose a middle first, then the text around it, so that every sample fits a row whole (context-level
    FIM, arXiv 2207.14255, section 4.4). A long document gives several samples, and every epoch has other middles.
    `document`: cut the whole document once, before it is split into rows; a sample that is longer than a row is
    split into several rows, which teaches the model not to stop. Use it only where documents fit a row."""
    rate: Share = 0.5
    """`context`: share of the documents' tokens that are in FIM samples. `document`: share of documents that become FIM
    documents. DeepSeek-Coder uses 0.5; Qwen2.5-Coder's report gives no number."""
    spm_rate: Share = 0.0
    """Share of FIM samples in suffix-prefix-middle (SPM) order. The other samples are prefix-suffix-middle (PSM)."""
    middles: FimMiddles | None = None
    """For `context`: the mixture of middles. Blocks and bodies are found by the syntax tree where the extra [syntax]
    has a grammar for the language, else by indentation. Default: the default weights of these settings."""
    window: Annotated[int, Field(ge=64)] | None = None
    """For `context`: largest number of tokens in a FIM sample, at most `max_length`. Samples of longer documents are
    limited to a random length from a quarter of `window` to `window`. Default: `max_length`, but at most 2048, which
    is about what editors send."""
    context_files_rate: Share = 0.0
    """For `context`: share of FIM samples that begin with chunks of related files of the same repository and commit:
    files that the sample's file imports, and neighbours in its folder. Half of these samples have the layout of
    Qwen2.5-Coder's repo-level documents, and half have the layout in which llama.cpp's server writes the `input_extra`
    of editors. Needs rows with `files`, or rows with `repository` and `path` in which the rows of a repository are
    adjacent (as the builder `corpus` writes them)."""
    context_tokens: Annotated[int, Field(ge=32)] | None = None
    """With `context_files_rate`: largest number of tokens in the chunks of related files, including the names of the
    files. These tokens count towards `window`. Default: half of `window`."""
    spans: Literal["lines", "characters", "syntax"] | None = None
    """For `document`: where a middle may start and end. `lines`: at line ends. `characters`: at any character.
    `syntax`: half of the middles are nodes of the syntax tree, and the others start and end at any character (needs the
    extra [syntax]). Default: characters."""

    @model_validator(mode="after")
    def _check_level(self) -> Self:
        if self.level == "context" and self.spans is not None:
            raise ValueError(
                "`spans` is for `level: document`: add that, or remove `spans` (`level: context` chooses middles by `middles`)"
            )
        for name in ("middles", "window"):
            if self.level == "document" and getattr(self, name) is not None:
                raise ValueError(f"`{name}` is for `level: context`: remove it, or use that level")
        if self.level == "document" and self.context_files_rate:
            raise ValueError("`context_files_rate` is for `level: context`: remove it, or use that level")
        if self.context_tokens is not None and not self.context_files_rate:
            raise ValueError("`context_tokens` needs a `context_files_rate` above 0")
        return self


class Gate(Settings):
    """Stop the run if a stage made the model worse than allowed. Needs `max_drop`, `min_value` or both."""

    metric: str
    """The metric to compare, as `benchmark.metric` in ladder.json, for example `humaneval.pass@1`."""
    max_drop: Annotated[float, Field(ge=0, le=100)] | None = None
    """Allowed decrease compared with the model that the stage started from, in percentage points."""
    min_value: Annotated[float, Field(le=100)] | None = None
    """Smallest allowed value, in percent."""


class BenchmarkSettings(Settings):
    """One benchmark to measure a model on. By default, decoding is greedy with one sample per task."""

    name: Name
    """Name of the benchmark in ladder.json, reports and gates. Must be unique within the list of benchmarks."""
    benchmark: NameOrExtension
    """A built-in benchmark (`align evaluate --list` lists them), or your own benchmark: `path/to/file.py:name`,
    relative to the recipe, or `package.module:name`. `alignment.evaluation.user_benchmark` describes what the function
    returns."""
    data: Ref | None = None
    """Rows of the benchmark: a file, a folder, or `stage/file`. Required for benchmarks on your own rows. For other
    benchmarks, these rows replace the published rows."""
    mode: Literal["base", "chat"] | None = None
    """`base` for plain prompts, `chat` for ChatML. Default: the mode of the benchmark's published scores."""
    n: Positive = 1
    """Number of samples per task. More than 1 needs a `temperature` above 0; pass@k is then reported for several k up
    to n."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: sample from the most probable tokens with this total probability."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample from this many most probable tokens; 0 means all. Applied before `top_p`."""
    min_p: Share = 0.0
    """Sample from tokens that are at least this times as probable as the most probable token. Applied after `top_p`."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Make tokens of the prompt and of the completion so far less probable, also in greedy decoding; 1 changes nothing."""
    max_new_tokens: Positive | None = None
    """Largest number of tokens in one sample. Default: the benchmark's published limit."""
    limit: Positive | None = None
    """Measure only the first tasks, at most this many, for quick trials. With fewer tasks the intervals are wider."""
    batch_size: Positive | None = None
    """Number of sequences that are generated at the same time. Default: as many as fit into memory."""
    allow_overlap: Annotated[str, Field(min_length=10, max_length=300)] | None = None
    """The reason why training rows may share text with this benchmark, in 10 to 300 characters. Without it, such rows
    are removed from the data of every training stage."""


class Contract(Settings):
    """Conditions that every saved model must fulfil. `alignment.models.contract` makes these and further checks."""

    must_stop: bool = True
    """Whether greedy answers of a chat model (SFT, DPO, GRPO) must end by themselves. Use false only for trials that
    are too short for the model to learn to stop."""


class Tracking(Settings):
    """Settings of experiment trackers. Nothing leaves the machine unless `wandb` is `online` or `mlflow` is the address of
    a server on another machine. Trackers get metrics and settings, and no rows or completions."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    """`offline` writes runs to the artifacts, from where `align track upload runs/NAME` can upload them.
    Each start of a stage is then a separate run. `online` uploads during training, and a resumed stage continues its
    run."""
    project: Annotated[str, Field(pattern=r"^[^/\\#?%:\s]{1,128}$")] = "code-alignment"
    """Project (in MLflow: experiment) of the runs. All stages of a recipe form one group in the project."""
    entity: Annotated[str, Field(min_length=1)] | None = None
    """User or team on Weights & Biases that owns the project. Default: the user who is logged in."""
    mlflow: Annotated[str, Field(pattern=r"^(local|https?://\S+)$")] | None = None
    """Also log to MLflow: the address of a server, or `local` for the folder `mlflow` in the output folder. Needs the extra
    `tracking`. A server that does not answer never delays training."""
    trackio: bool = False
    """Also log to Trackio, in the folder `trackio` in the output folder. Needs the extra `tracking`."""


class GrpoEnvironment(Settings):
    """Tools that the model may call during a GRPO rollout: a built-in environment (`name`) or one of your own
    (`path`).
    """

    name: Literal["python", "tests", "repository"] | None = None
    """A built-in environment. `python` has a tool that runs a program and returns its output. `tests` has a tool that
    submits a solution and returns which visible tests fail; the last solution is graded by the hidden tests.
    `repository` has tools that list, read, search and change the files of a repository and run the visible tests; the
    changes are graded by all tests. Give either this or `path`."""
    path: ExtensionReference | None = None
    """Your own class: `path/to/file.py:Name`, relative to the recipe, or `package.module:Name`. Its public methods are
    the tools. `docs/environments.md` describes the methods `reset` and `get_reward`."""
    turns: Positive = 4
    """Largest number of turns with tool calls in one rollout. After these turns, the model gives its answer."""
    seconds: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that all tool calls of a rollout may take together. After that, calls are refused."""
    output_characters: Annotated[int, Field(ge=100)] = 2000
    """Largest number of characters of one result. A longer result is cut in the middle, and counted."""
    visible: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """For `tests`: share of a task's tests that are visible, if the task's row has no column `visible_tests`."""


class Reward(Settings):
    """One part of the GRPO reward: a built-in reward (`name`) or your own reward function (`path`)."""

    name: (
        Literal[
            "tests_passed", "tests_fraction", "hidden_fraction", "parses", "fenced", "length_penalty", "environment"
        ]
        | None
    ) = None
    """A built-in reward. `tests_passed` is 1 if all tests of the task pass, `tests_fraction` is the share of tests that
    pass, `hidden_fraction` is the share of passed tests among those that the prompt does not show and that no trivial
    body passes, `parses` is 1 for valid Python, `fenced` is 1 for an answer with exactly one fenced code block, and
    `length_penalty` is from 0 to -1, depending on the answer's length (`soft`, `hard`). `environment` is the value that
    `get_reward` of the stage's own environment class returns. Give either `name` or
    `path`."""
    path: ExtensionReference | None = None
    """Your own reward function: `path/to/file.py:name`, relative to the recipe, or `package.module:name`.
    `alignment.rewards.reward_protocol` describes how the function is called and what it returns."""
    weight: float = 1.0
    """Factor of this reward in the sum over all rewards. May be negative."""
    soft: Annotated[int, Field(ge=0)] | None = None
    """For length_penalty: up to this number of tokens there is no penalty."""
    hard: Positive | None = None
    """For length_penalty: from this number of tokens on, the penalty is -1. Between `soft` and `hard` it grows
    linearly."""
    isolated: bool = False
    """For `path`: whether to run the function in a separate process. Needed if the function executes or imports code
    that the model wrote, or may block or crash. A separate process is not a security boundary: only the sandbox
    contains hostile programs."""
    timeout_seconds: Annotated[float, Field(gt=0)] | None = None
    """For `isolated`: largest number of seconds for one batch; default 60. A batch that takes longer gets no score from
    this reward."""
