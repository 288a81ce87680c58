"""The protocol of engines: generation jobs, completions, and the interface that every engine implements.

`selection.open_engine` chooses between the built-in engines. To add an engine, write a class with the attributes of
`Engine` and a method `generate`, and pass an instance to `alignment.evaluation.evaluate`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

Finish = Literal["stop", "length", "prompt_too_long"]
SamplingField = Literal[
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop", "stop_ids", "top_p with min_p"
]
ALL_SAMPLING_FIELDS: frozenset[SamplingField] = frozenset(get_args(SamplingField))


@dataclass(frozen=True)
class GenerationJob:
    """A request for one completion. The prompt is given either as `ids` or as `text`."""

    key: str
    """Name of the job, unique among the jobs of one call."""
    ids: list[int]
    """The prompt as token ids of the engine's tokenizer. Empty if the prompt is given as `text`."""
    max_new_tokens: int
    """Generation ends after this many tokens, or earlier at the model's maximum length."""
    stop: tuple[str, ...] = ()
    """Strings that end the completion. The text of the completion is cut before the first of them."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end the completion, besides the engine's `stop_ids`.

    They are not part of the completion's text.
    """
    temperature: float = 0.0
    """Divides the logits before sampling; 0 is greedy decoding."""
    top_p: float = 1.0
    """Nucleus sampling (Holtzman et al., 2020, arXiv 1904.09751): draw from the smallest set of most likely tokens
    whose probabilities sum to `top_p`. Without effect at temperature 0."""
    top_k: int = 0
    """Draw from this many most likely tokens; 0 is all tokens. Applied before `top_p`, which counts probabilities among
    these tokens. Without effect at temperature 0."""
    min_p: float = 0.0
    """Draw from tokens that are at least this times as likely as the most likely token (arXiv 2407.01082). Applied after
    temperature and `top_p`. Without effect at temperature 0."""
    repetition_penalty: float = 1.0
    """Divides positive logits, and multiplies negative logits, of all tokens of the prompt and the completion so far (CTRL,
    arXiv 1909.05858, section 4.1). Applied before the temperature, also at temperature 0."""
    seed: int = 0
    """Seed of this job's random numbers. Without effect at temperature 0."""
    text: str = ""
    """The whole prompt as text, with the chat template applied. Special tokens in the text are encoded as such.

    No special tokens are added.
    """

    def __post_init__(self) -> None:
        if bool(self.ids) == bool(self.text):
            raise ValueError(f"generation job {self.key!r}: give the prompt either as `ids` or as `text`")

    def sampling_fields(self) -> set[SamplingField]:
        """Return the names of the sampling settings that have an effect on this job."""
        fields: set[SamplingField] = set()
        if self.temperature > 0:
            fields |= {"temperature", "seed"}
            if self.top_p < 1:
                fields.add("top_p")
            if self.top_k > 0:
                fields.add("top_k")
            if self.min_p > 0:
                fields.add("min_p")
            if self.top_p < 1 and self.min_p > 0:
                fields.add("top_p with min_p")
        if self.repetition_penalty != 1:
            fields.add("repetition_penalty")
        if self.stop:
            fields.add("stop")
        if self.stop_ids:
            fields.add("stop_ids")
        return fields

    def tokenized(self, tokenizer: Any) -> GenerationJob:
        """Return the job with its prompt as token ids."""
        if self.ids:
            return self
        return dataclasses.replace(self, ids=tokenizer.encode(self.text, add_special_tokens=False), text="")


@dataclass(frozen=True)
class Completion:
    """A generated text."""

    text: str
    """The text without special tokens and without the stop string."""
    tokens: int
    """Number of generated tokens."""
    finish: Finish
    """Why generation ended: `stop` (a stop id or stop string), `length` (the token limit), or `prompt_too_long` (no
    room for a token after the prompt, so the text is empty)."""


class Engine(Protocol):
    """Interface of an engine, which generates completions for jobs.

    A completion depends only on its job, not on other jobs of the same call, up to rounding in batched arithmetic. An
    engine refuses a job with an unsupported setting (ValueError of `refuse_unsupported`) and never generates the
    completion with another setting instead.
    """

    name: str
    """Name of the engine in messages."""
    tokenizer: Any
    """The Hugging Face tokenizer of the model."""
    stop_ids: tuple[int, ...]
    """Token ids that end every completion."""
    max_length: int
    """Largest number of tokens of a prompt and its completion together."""
    batch_size: int | None
    """Number of sequences that are generated at the same time. None means as many as fit into memory."""
    supported_fields: frozenset[SamplingField]
    """Names of the sampling settings that the engine applies exactly as `GenerationJob` defines them."""

    def generate(self, jobs: Sequence[GenerationJob]) -> Iterator[tuple[GenerationJob, Completion]]:
        """Yield each job with its completion as soon as the completion is ready, in any order."""
        ...


def refuse_unsupported(jobs: Iterable[GenerationJob], name: str, supported: frozenset[SamplingField]) -> None:
    """Raise ValueError if a job uses a sampling setting that an engine does not support.

    Args:
        jobs: the jobs of one call.
        name: the engine's name, for the message.
        supported: the engine's `supported_fields`.
    """
    unsupported = sorted({field for job in jobs for field in job.sampling_fields()} - supported)
    if unsupported:
        raise ValueError(
            f"the engine {name} does not support {', '.join(unsupported)}: remove the setting, or use another engine"
        )
