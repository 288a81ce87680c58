"""A benchmark as data: its problems, how a model is asked, and how what it says becomes a program.

A benchmark module builds a `Benchmark`; `run.py` generates and judges it. No benchmark grades anything by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from alignment.models import formats

Row = dict[str, Any]


class Prompt(Protocol):
    """What a model is asked. `text` is what a person would read; `encode` gives the ids that the model sees."""

    def text(self, tokenizer: Any) -> str: ...

    def encode(self, tokenizer: Any) -> list[int]: ...


@dataclass(frozen=True)
class Text:
    """Plain text that a base model continues."""

    content: str

    def text(self, tokenizer: Any) -> str:
        return self.content

    def encode(self, tokenizer: Any) -> list[int]:
        return tokenizer(self.content)["input_ids"]


@dataclass(frozen=True)
class Chat:
    """A conversation in the checkpoint's own template; `prefill` is how its answer already begins."""

    messages: tuple[dict[str, str], ...]
    prefill: str = ""

    def text(self, tokenizer: Any) -> str:
        opened = tokenizer.apply_chat_template(list(self.messages), tokenize=False, add_generation_prompt=True)
        return opened + self.prefill

    def encode(self, tokenizer: Any) -> list[int]:
        return tokenizer.encode(self.text(tokenizer), add_special_tokens=False)


@dataclass(frozen=True)
class Fim:
    """Fill in the middle (PSM); text that spells a special token stays text."""

    prefix: str
    suffix: str

    def text(self, tokenizer: Any) -> str:
        return formats.fim_prompt(self.prefix, self.suffix)

    def encode(self, tokenizer: Any) -> list[int]:
        return formats.encode_segments(tokenizer, formats.fim_segments(self.prefix, None, self.suffix))


@dataclass(frozen=True)
class Problem:
    """One question of a benchmark."""

    id: str
    prompt: Prompt
    task: Row | None = None
    """What `alignment.grading` grades the program with; None where text is compared."""
    reference: str | None = None
    """The right text, where text is compared."""
    stop: tuple[str, ...] = ()
    """Stop strings of this problem, besides those of its benchmark."""
    row: Row = field(default_factory=dict, repr=False)
    """The benchmark's own row, for `assemble`."""


Assemble = Callable[[Problem, str], str]
Score = Callable[[Problem, str], dict[str, float]]
Retry = Callable[[Problem, str, str], Problem]


def keep(problem: Problem, completion: str) -> str:
    """The completion as it is."""
    return completion


@dataclass(frozen=True)
class Benchmark:
    """Problems with the settings that their published scores were measured with."""

    name: str
    problems: list[Problem]
    max_new_tokens: int
    assemble: Assemble = keep
    """(problem, completion) -> the program to run, or the answer to compare."""
    score: Score | None = None
    """(problem, answer) -> scores by text; beside the verdict where problems have tasks."""
    mode: Literal["base", "chat"] = "base"
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[str, ...] = ()
    """Special tokens that end a completion, besides the checkpoint's own."""
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    least_limits: Mapping[str, float] = field(default_factory=dict)
    """What its programs need of the sandbox, by names of `alignment.grading.Limits`; never less than this."""
    hidden: tuple[str, ...] = ()
    """Files that its programs must not see, because the harness did not have them."""
    needs: tuple[str, str] | None = None
    """A program in the tasks' language that must run where they do, and what to install where it does not."""
    size: int | None = None
    """How many tasks there are, where `problems` holds only those that were asked for."""
    retry: Retry | None = None
    """(problem, completion, what failed) -> the same problem asked again; for benchmarks with two tries."""
