"""The benchmark protocol: a benchmark as data, with its problems, prompts, and rules that turn completions into scores.

A benchmark is a function or class that takes a `BenchmarkRequest` and returns a `Benchmark`. For every problem and
sample, `alignment.evaluation.runner`

1. encodes `problem.prompt` and generates a completion with the benchmark's sampling settings,
2. calls `assemble(problem, completion)`: the result is the program to run, or the answer to compare,
3. if the problem has a `task`, runs the program against its tests in the sandbox: the score `pass` is 1 or 0,
4. if the benchmark has a `score`, adds `score(problem, answer)`, where `answer` is what `assemble` returned, or the
   whole completion if the problem has a task.

Figures are means over tasks in percent; the score `pass` becomes pass@k. `assemble`, `score` and `retry` run in the
evaluating process: they must treat a completion as text and never execute it. Executing is what tasks are for.

Benchmarks of the user's own code follow the same protocol; see `alignment.evaluation.user_benchmark` and
`examples/benchmark.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from alignment.evaluation.store import digest
from alignment.models import formats

Row = dict[str, Any]


class Prompt(Protocol):
    """A prompt that depends on the model's tokenizer."""

    def text(self, tokenizer: Any) -> str:
        """The prompt as text, special tokens included."""
        ...

    def encode(self, tokenizer: Any) -> list[int]:
        """The token ids that the model gets."""
        ...


@dataclass(frozen=True)
class TextPrompt:
    """Plain text that a base model continues."""

    content: str

    def text(self, tokenizer: Any) -> str:
        return self.content

    def encode(self, tokenizer: Any) -> list[int]:
        return tokenizer(self.content)["input_ids"]


@dataclass(frozen=True)
class ChatPrompt:
    """A conversation in the chat template of the checkpoint."""

    messages: tuple[dict[str, str], ...]
    """`{"role": ..., "content": ...}` each."""
    prefill: str = ""
    """The beginning of the model's answer. The completion continues it and does not repeat it."""

    def text(self, tokenizer: Any) -> str:
        opened = tokenizer.apply_chat_template(list(self.messages), tokenize=False, add_generation_prompt=True)
        return opened + self.prefill

    def encode(self, tokenizer: Any) -> list[int]:
        return tokenizer.encode(self.text(tokenizer), add_special_tokens=False)


@dataclass(frozen=True)
class FimPrompt:
    """Fill in the middle in PSM order. Text that spells a special token is encoded as text."""

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
    """Unique in the benchmark."""
    prompt: Prompt
    task: Row | None = None
    """What the program is graded with: `language`, `kind`, `tests` and `entry_point` of a task row (see
    `alignment.grading`). None if answers are compared as text."""
    reference: str | None = None
    """The correct text, for `score`."""
    stop: tuple[str, ...] = ()
    """Stop strings of this problem, besides those of the benchmark."""
    row: Row = field(default_factory=dict, repr=False)
    """The benchmark's own row, for `assemble` and `score`. Decontamination compares training data with its texts."""

    @cached_property
    def task_digest(self) -> str:
        """A hash of the task. Computed once: the tests of a task can be megabytes, and its completions many."""
        return digest(self.task)


def task_row(
    task_id: str,
    kind: str,
    tests: str | Mapping[str, Any],
    *,
    source: str,
    language: str = "python",
    entry_point: str | None = None,
    prompt: str = "",
) -> Row:
    """Return a task row for `Problem.task`; `alignment.grading.task` documents kinds and tests."""
    return {
        "id": task_id,
        "prompt": prompt,
        "language": language,
        "kind": kind,
        "tests": tests if isinstance(tests, str) else json.dumps(tests),
        "entry_point": entry_point,
        "source": source,
        "split": "test",
    }


Assemble = Callable[[Problem, str], str]
Score = Callable[[Problem, str], dict[str, float]]
Retry = Callable[[Problem, str, str], Problem]


def unchanged(problem: Problem, completion: str) -> str:
    """Return the completion itself; the default of `Benchmark.assemble`."""
    return completion


@dataclass(frozen=True)
class Benchmark:
    """Problems, and the settings that their published scores were measured with."""

    name: str
    problems: list[Problem]
    max_new_tokens: int
    assemble: Assemble = unchanged
    """(problem, completion) -> the program to run, or the answer to compare."""
    score: Score | None = None
    """(problem, answer) -> scores by name, each from 0 to 1. Required for problems without a task."""
    mode: Literal["base", "chat"] = "base"
    """Whether the prompts are for a base or for a chat model."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion, and are not part of it."""
    stop_tokens: tuple[str, ...] = ()
    """Special tokens that end a completion, besides those of the checkpoint."""
    n: int = 1
    """Samples per task."""
    temperature: float = 0.0
    """0 is greedy decoding."""
    top_p: float = 1.0
    least_limits: Mapping[str, float] = field(default_factory=dict)
    """Limits that its programs need, by fields of `alignment.grading.Limits`; lower limits of a recipe are raised to
    these."""
    hidden: tuple[str, ...] = ()
    """Files of this machine that its programs must not see, because the published harness did not have them."""
    needs: tuple[str, str] | None = None
    """A program in the language of the tasks that must run in the sandbox, and what to install if it does not."""
    size: int | None = None
    """Number of tasks of the whole benchmark, if `problems` holds a part of them."""
    retry: Retry | None = None
    """(problem, completion, failures) -> the problem asked again; for benchmarks with a second try."""
    source_digest: str = ""
    """SHA-256 of the user's file that defines the benchmark, empty for a built-in one. Stored completions of another
    version are not reused."""
