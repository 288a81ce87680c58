"""Settings of exports in recipes and `align export`: calibration, quantization, comparison, push."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alignment.settings import Positive, Ref, Settings, Share

Percent = Annotated[float, Field(ge=0, le=100)]
NotNegative = Annotated[float, Field(ge=0)]

CALIBRATION_TOKENS = 65_536
CALIBRATION_SEQUENCE_LENGTH = 512
CALIBRATION_FIM = 0.5


class CalibrationSource(Settings):
    """Rows to calibrate on."""

    data: Ref
    """JSONL or Parquet file, a folder of them, or `stage/file` of an earlier build stage."""
    rows: Positive = 10_000
    """Use at most this many rows, from the start."""


class Calibration(Settings):
    """Data for importance matrices, GPTQ and AWQ: rows like those the model was trained on."""

    data: list[CalibrationSource] = Field(min_length=1)
    """Documents, conversations and preferences. The rows of all sources are shuffled together."""
    tokens: Positive = CALIBRATION_TOKENS
    """Tokens in total, at most."""
    sequence_length: Positive = CALIBRATION_SEQUENCE_LENGTH
    """Tokens of one calibration sample of GPTQ and AWQ."""
    fim: Share = CALIBRATION_FIM
    """Share of the documents that become fill-in-the-middle with a random gap. Conversations are in the chat format."""


class Quantize(Settings):
    """How GPTQ and AWQ quantize. The format's name gives the number of bits."""

    engine: Literal["llm-compressor", "gptqmodel"] = "llm-compressor"
    """llm-compressor writes compressed-tensors, gptqmodel the older layouts `gptq` and `awq`; vLLM loads all of them.
    Each engine is installed on first use, into a virtual environment of its own."""
    group_size: Literal[-1, 16, 32, 64, 128, 256] = 128
    """Number of weights that share a scale; -1 uses one scale per row."""
    act_order: Literal["none", "static", "group"] = "static"
    """GPTQ: quantize columns in the order of their activations. `static` costs nothing at run time; `group` (desc_act,
    gptqmodel only) also reorders the groups, which is slower in some runtimes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to quantize on: cpu (for small models), cuda, or auto for cuda if there is a GPU."""

    def contradiction(self) -> str:
        """What the engine does not support of these settings. Empty if it supports all."""
        if self.act_order == "group" and self.engine == "llm-compressor":
            return "llm-compressor supports `static` and `none` only: for `group`, set `engine: gptqmodel`"
        return ""


class LevelLimits(Settings):
    """Limits for the export to one format. What is left out keeps the format's default."""

    max_perplexity_increase: NotNegative | None = None
    """Percent by which perplexity may exceed the original's. A lower perplexity always passes."""
    min_top1_agreement: Percent | None = None
    """Percent of positions at which the most probable token must be the same."""
    max_kl_divergence: NotNegative | None = None
    """Mean KL divergence from the original's distribution, in nats per position."""
    min_greedy_agreement: Percent | None = None
    """Percent of greedy tokens that must precede the first difference. Default 0, since one near-tie can change it."""
    max_pass_at_1_drop: NotNegative | None = None
    """Percentage points by which pass@1 on the `benchmark` may fall below the original's."""


class Comparison(Settings):
    """How exports are compared with the original."""

    context: Annotated[int, Field(ge=2)] = 512
    """Tokens in one window. Perplexity is measured over windows of this length."""
    positions: Positive = 2048
    """Scored positions in total, about. The reference takes positions x vocabulary x 4 bytes of disk while it is
    needed."""
    greedy_prompts: Annotated[int, Field(ge=0)] = 4
    """Number of prompts to continue greedily. Each is the first half of a window."""
    greedy_tokens: Positive = 32
    """Tokens of each continuation."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type in which transformers runs the original."""
    device: Annotated[str, Field(min_length=1)] = "cpu"
    """Device on which transformers runs the original and exported folders, as in `device_map`: cpu, cuda, auto."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of each runtime. 0 uses all, or one if the model is so small that more threads are slower."""
    thresholds: dict[str, LevelLimits] = Field(default_factory=dict)
    """Limits by format, where they differ from the defaults: `{q4_K_M: {max_perplexity_increase: 3}}`."""


class Push(Settings):
    """Where to upload exports that passed. Without it nothing is uploaded."""

    repository: Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$")]
    """`owner/name` on the Hugging Face Hub."""
    visibility: Literal["private", "public"]
    """Required, so that nothing becomes public by default."""
