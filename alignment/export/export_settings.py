"""Settings of exports in recipes and in `align export`: calibration, quantization, comparison, upload."""

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
    """A source of calibration rows."""

    data: Ref
    """A JSONL or Parquet file, a folder of such files, or `stage/file` of an earlier build stage."""
    rows: Positive = 10_000
    """Use only the first rows, at most this many."""


class Calibration(Settings):
    """Calibration data for importance matrices, GPTQ and AWQ. The rows should resemble the training rows."""

    data: list[CalibrationSource] = Field(min_length=1)
    """Documents, conversations and preferences. The rows of all sources are shuffled together."""
    tokens: Positive = CALIBRATION_TOKENS
    """Largest number of tokens in total."""
    sequence_length: Positive = CALIBRATION_SEQUENCE_LENGTH
    """Number of tokens in one calibration sample of GPTQ and AWQ."""
    fim: Share = CALIBRATION_FIM
    """Share of the documents that become fill-in-the-middle with a random gap. Conversations use the chat format."""


class Quantize(Settings):
    """Settings of quantization by GPTQ and AWQ. The number of bits is part of the format's name."""

    engine: Literal["llm-compressor", "gptqmodel"] = "llm-compressor"
    """llm-compressor writes compressed-tensors, gptqmodel writes the older layouts `gptq` and `awq`; vLLM loads all of
    them. Each engine is installed into a separate virtual environment on first use."""
    group_size: Literal[-1, 16, 32, 64, 128, 256] = 128
    """Number of weights that share a scale; -1 uses one scale per row."""
    act_order: Literal["none", "static", "group"] = "static"
    """GPTQ only: quantize columns in the order of their activations. `static` costs nothing at run time. `group`
    (desc_act, gptqmodel only) also reorders the groups, which is slower in some runtimes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to quantize on: cpu (for small models), cuda, or auto (cuda if there is a GPU, else cpu)."""

    def contradiction(self) -> str:
        """Return a message if the engine does not support these settings, else ""."""
        if self.act_order == "group" and self.engine == "llm-compressor":
            return "llm-compressor supports `static` and `none` only: for `group`, set `engine: gptqmodel`"
        return ""


class LevelLimits(Settings):
    """Limits for the export to one format. A limit that is not set has the format's default."""

    max_perplexity_increase: NotNegative | None = None
    """Percent by which perplexity may exceed the original's. A lower perplexity always passes."""
    min_top1_agreement: Percent | None = None
    """Percent of positions at which export and original must have the same most probable token."""
    max_kl_divergence: NotNegative | None = None
    """Mean KL divergence from the original's distribution, in nats per position."""
    min_greedy_agreement: Percent | None = None
    """Percent of greedily generated tokens that must be equal before the first difference. Default 0, since two almost
    equally probable tokens can cause an early difference."""
    max_pass_at_1_drop: NotNegative | None = None
    """Percentage points by which pass@1 on the `benchmark` may fall below the original's."""


class Comparison(Settings):
    """Settings of the comparison of exports with the original."""

    context: Annotated[int, Field(ge=2)] = 512
    """Number of tokens in one window. Perplexity is measured over windows of this length."""
    positions: Positive = 2048
    """Approximate number of scored positions in total. During the comparison, the original's log-probabilities take
    positions x vocabulary x 4 bytes of disk."""
    greedy_prompts: Annotated[int, Field(ge=0)] = 4
    """Number of prompts that are continued greedily. Each prompt is the first half of a window."""
    greedy_tokens: Positive = 32
    """Number of tokens in each continuation."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type in which transformers runs the original."""
    device: Annotated[str, Field(pattern=r"^(auto|(cpu|cuda|mps|xpu|npu)(:[0-9]+)?)$")] = "cpu"
    """Device on which transformers runs the original and exported folders, as in `device_map`: cpu, cuda, auto."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of each runtime. 0 uses all cores, or one thread if more threads are slower for a small model."""
    thresholds: dict[str, LevelLimits] = Field(default_factory=dict)
    """Limits of formats that differ from the defaults, for example `{q4_K_M: {max_perplexity_increase: 3}}`."""


class Push(Settings):
    """Repository to which exports are uploaded if all of them passed. Without this setting nothing is uploaded."""

    repository: Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$")]
    """`owner/name` on the Hugging Face Hub."""
    visibility: Literal["private", "public"]
    """Visibility of the repository. There is no default, so that nothing becomes public by accident."""
