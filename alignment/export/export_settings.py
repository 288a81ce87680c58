"""The settings of exports, as recipes and `align export` give them: calibration, quantization, comparison, push.

One class each, with its documentation and its defaults; `alignment.export` takes these very objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from alignment.settings import Positive, Ref, Settings, Share

Percent = Annotated[float, Field(ge=0, le=100)]
NotNegative = Annotated[float, Field(ge=0)]
Kind = TypeVar("Kind", bound=BaseModel)


class CalibrationSource(Settings):
    """Rows to calibrate on."""

    data: Ref
    """JSONL or Parquet file, a folder of them, or `stage/file` of an earlier build stage."""
    rows: Positive = 10_000
    """At most this many rows, the first ones."""


class Calibration(Settings):
    """What importance matrices, GPTQ and AWQ see of the model at work: rows like those it was trained on."""

    data: list[CalibrationSource] = Field(min_length=1)
    """Documents, conversations and preferences; the rows of all sources are shuffled together."""
    tokens: Positive = 65_536
    """Tokens in all, at most; as many as the rows give where they give fewer."""
    sequence_length: Positive = 512
    """Tokens of one calibration sample of GPTQ and AWQ."""
    fim: Share = 0.5
    """Share of the documents that come as fill-in-the-middle with a random gap; conversations come in the chat format."""


class Quantize(Settings):
    """How GPTQ and AWQ quantize; the number of bits is in the format's name."""

    engine: Literal["llm-compressor", "gptqmodel"] = "llm-compressor"
    """llm-compressor writes compressed-tensors, gptqmodel the older layouts `gptq` and `awq`; vLLM loads all of them.
    Each lives in an environment of its own, made on demand."""
    group_size: Literal[-1, 16, 32, 64, 128, 256] = 128
    """Weights that share a scale; -1 takes one scale per row."""
    act_order: Literal["none", "static", "group"] = "static"
    """GPTQ: quantize columns in the order of their activations. `static` costs nothing at run time; `group` (known as
    desc_act, gptqmodel only) also reorders the groups: slower in some runtimes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to quantize: cpu (small models), cuda, or auto for cuda where there is one."""

    def contradiction(self) -> str:
        """What the engine can't do of this; empty where it can do all."""
        if self.act_order == "group" and self.engine == "llm-compressor":
            return "llm-compressor orders columns by `static` or `none` only: for `group` set `engine: gptqmodel`"
        return ""


class LevelLimits(Settings):
    """What the export to one format must reach; what is left out keeps the format's default."""

    max_perplexity_increase: NotNegative | None = None
    """Percent by which perplexity may exceed the original's; it may fall by any amount."""
    min_top1_agreement: Percent | None = None
    """Percent of positions at which the most probable token is the same."""
    max_kl_divergence: NotNegative | None = None
    """Mean KL divergence from the original's distribution, in nats."""
    min_greedy_agreement: Percent | None = None
    """Percent of greedy tokens before the first difference; no demand by default, one near-tie can break it."""
    max_pass_at_1_drop: NotNegative | None = None
    """Points by which pass@1 on the `benchmark` may fall below the original's."""


class Comparison(Settings):
    """How exports are compared with the original."""

    context: Annotated[int, Field(ge=2)] = 512
    """Tokens in one window; perplexity is over windows of this length."""
    positions: Positive = 2048
    """Scored positions in all, about. The reference takes positions x vocabulary x 4 bytes of disk meanwhile."""
    greedy_prompts: Annotated[int, Field(ge=0)] = 4
    """Prompts to continue greedily, each the first half of a window."""
    greedy_tokens: Positive = 32
    """Tokens of each continuation."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type in which transformers runs the original."""
    device: Annotated[str, Field(min_length=1)] = "cpu"
    """Where transformers runs the original and the folders, as in `device_map`: cpu, cuda, auto."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of each runtime; 0 takes all, or one for a model so small that threads only wait for each other."""
    thresholds: dict[str, LevelLimits] = Field(default_factory=dict)
    """Per format, what differs from its defaults: `{q4_K_M: {max_perplexity_increase: 3}}`."""


class Push(Settings):
    """Where to send what passed; nothing is sent without this, and nothing becomes public by a slip."""

    repository: Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$")]
    """`owner/name` on the Hugging Face hub."""
    visibility: Literal["private", "public"]
    """There is no default: say which."""


def read_settings(kind: type[Kind], what: str, given: Mapping[str, Any] | Kind | None) -> Kind:
    """Settings of `kind` from plain values; ValueError names the first mistake, with `what` before it."""
    if isinstance(given, kind):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"{what} is a mapping of settings, not {given!r}")
    try:
        return kind.model_validate(dict(given or {}))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ValueError(f"{what} has no setting {place!r}") from None
        raise ValueError(f"{what}: {place} {first['msg']}, not {first.get('input')!r}") from None
