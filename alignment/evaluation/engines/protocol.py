"""The engine protocol: generation jobs, completions, and what every engine does with them.

A new engine is a class with the attributes of `Engine` and a `generate` method; `selection.open_engine` chooses between
the built-in ones, and `alignment.evaluation.evaluate` takes an instance of any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Finish = Literal["stop", "length", "prompt_too_long"]
SamplingField = Literal["temperature", "top_p", "seed", "stop", "stop_ids"]
ALL_SAMPLING_FIELDS: frozenset[SamplingField] = frozenset(("temperature", "top_p", "seed", "stop", "stop_ids"))


@dataclass(frozen=True)
class GenerationJob:
    """One completion to generate. The prompt is given either as `ids` or as `text`."""

    key: str
    """Identifies the job among those of one call."""
    ids: list[int]
    """The prompt as token ids of the engine's tokenizer; empty if it is given as `text`."""
    max_new_tokens: int
    """Generation ends after this many tokens, or earlier where the model's maximum length is reached."""
    stop: tuple[str, ...] = ()
    """Strings that end the completion; the completion ends before the first of them."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end the completion, besides the engine's `stop_ids`. They are not part of its text."""
    temperature: float = 0.0
    """Divides the logits before sampling; 0 is greedy decoding."""
    top_p: float = 1.0
    """Nucleus sampling (Holtzman et al., 2020, arXiv 1904.09751): draw from the smallest set of most likely tokens
    whose probabilities sum to `top_p`. Without effect at temperature 0."""
    seed: int = 0
    """Seed of this job's random numbers. Without effect at temperature 0."""
    text: str = ""
    """The whole prompt as text, chat template applied. Special tokens in it count as such; none is added."""

    def __post_init__(self) -> None:
        if bool(self.ids) == bool(self.text):
            raise ValueError(f"generation job {self.key!r}: give the prompt either as `ids` or as `text`")

    def sampling_fields(self) -> set[SamplingField]:
        """Return the sampling settings that have an effect on this job."""
        fields: set[SamplingField] = set()
        if self.temperature > 0:
            fields |= {"temperature", "seed"}
            if self.top_p < 1:
                fields.add("top_p")
        if self.stop:
            fields.add("stop")
        if self.stop_ids:
            fields.add("stop_ids")
        return fields

    def tokenized(self, tokenizer: Any) -> GenerationJob:
        """Return the same job with the prompt as ids."""
        if self.ids:
            return self
        return dataclasses.replace(self, ids=tokenizer.encode(self.text, add_special_tokens=False), text="")


@dataclass(frozen=True)
class Completion:
    """A generated text."""

    text: str
    """Without special tokens, and without the stop string."""
    tokens: int
    """Generated tokens."""
    finish: Finish
    """`stop`: at a stop id or stop string. `length`: at the token limit. `prompt_too_long`: the prompt leaves no room
    for a token; nothing was generated and the text is empty."""


class Engine(Protocol):
    """Generates completions for jobs.

    A completion depends on its own job alone, not on the others of the same call, up to the rounding of batched
    arithmetic. A job that sets a field which the engine does not support is refused with a ValueError
    (`refuse_unsupported`), never generated with another setting.
    """

    name: str
    """For messages."""
    tokenizer: Any
    """The Hugging Face tokenizer of the model."""
    stop_ids: tuple[int, ...]
    """Token ids that end every completion."""
    max_length: int
    """Most tokens of prompt and completion together."""
    batch_size: int | None
    """Sequences that are generated at the same time; None: as many as fit."""
    supported_fields: frozenset[SamplingField]
    """Sampling settings that the engine follows exactly as `GenerationJob` defines them."""

    def generate(self, jobs: Sequence[GenerationJob]) -> Iterator[tuple[GenerationJob, Completion]]:
        """Yield each job with its completion, in any order, as soon as it is ready."""
        ...


def refuse_unsupported(jobs: Iterable[GenerationJob], name: str, supported: frozenset[SamplingField]) -> None:
    """Raise ValueError if a job uses a sampling setting that an engine does not support.

    Args:
        jobs: the jobs of one call.
        name: the engine's name for the message.
        supported: the engine's `supported_fields`.
    """
    unsupported = sorted({field for job in jobs for field in job.sampling_fields()} - supported)
    if unsupported:
        raise ValueError(
            f"the engine {name} does not support {', '.join(unsupported)}: leave the setting out, or use another engine"
        )
