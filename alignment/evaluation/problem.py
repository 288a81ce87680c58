"""The protocol of benchmarks: problems, prompts, and functions that turn completions into scores.

A benchmark is a function or class that takes a `BenchmarkRequest` and returns a `Benchmark`. For every problem and
sample, `alignment.evaluation.runner`

1. encodes `problem.prompt` and generates a completion with the benchmark's sampling settings,
2. calls `assemble(problem, completion)`, which returns the program to run or the answer to compare,
3. if the problem has a `task`, runs the program against the task's tests in the sandbox; the score `pass` is 1 or 0,
4. if the benchmark has a `score`, adds the scores of `score(problem, answer)`. `answer` is the whole completion if the
   problem has a task, else the result of `assemble`.

Metrics are means over tasks in percent; the score `pass` becomes pass@k. `assemble`, `score` and `retry` run in the
evaluating process, outside the sandbox: they must treat a completion as text and never execute it. A completion is
executed only through a `task`.

Benchmarks in the user's code follow the same protocol; see `alignment.evaluation.user_benchmark` and
`examples/benchmark.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from alignment.evaluation.store import digest
from alignment.models import formats

if TYPE_CHECKING:
    from alignment.environments.rollout_environment import EnvironmentFactory
    from alignment.grading import Grader, RemoteGrader

Row = dict[str, Any]


class Prompt(Protocol):
    """Interface of a prompt, whose text may depend on the model's tokenizer."""

    def text(self, tokenizer: Any) -> str:
        """Return the prompt as text, with special tokens."""
        ...

    def encode(self, tokenizer: Any) -> list[int]:
        """Return the token ids that the model gets."""
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
    """A conversation, rendered with the chat template of the checkpoint."""

    messages: tuple[dict[str, Any], ...]
    """The messages, each `{"role": ..., "content": ...}`."""
    prefill: str = ""
    """The beginning of the model's answer. The completion continues this text and does not repeat it."""
    tools: tuple[dict[str, Any], ...] = ()
    """Descriptions of the tools that the model may call."""

    def text(self, tokenizer: Any) -> str:
        settings = {"tools": list(self.tools)} if self.tools else {}
        opened = tokenizer.apply_chat_template(
            list(self.messages), tokenize=False, add_generation_prompt=True, **settings
        )
        return opened + self.prefill

    def encode(self, tokenizer: Any) -> list[int]:
        return tokenizer.encode(self.text(tokenizer), add_special_tokens=False)


@dataclass(frozen=True)
class FimPrompt:
    """A fill-in-the-middle prompt in prefix-suffix-middle order.

    Written-out special tokens are encoded as plain text.
    """

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
    """Id of the problem, unique in the benchmark."""
    prompt: Prompt
    task: Row | None = None
    """Task row that grades the program, with `language`, `kind`, `tests` and `entry_point` (see `alignment.grading`).

    None if answers are compared as text.
    """
    reference: str | None = None
    """The correct answer as text, for `score`."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion of this problem, besides the benchmark's `stop`."""
    row: Row = field(default_factory=dict, repr=False)
    """The benchmark's row for this problem, for `assemble` and `score`. Decontamination compares training data with the
    texts in this row."""
    cluster: str = ""
    """Id of the task to which the problem belongs. Problems with the same id count as samples of one task, so that
    intervals and paired tests resample whole clusters. Default: every problem is a separate task."""
    part: int = 0
    """Index of the problem in its cluster."""

    @cached_property
    def task_digest(self) -> str:
        """Hash of the task. The hash is cached: it is needed for every completion, and the tests can have megabytes."""
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
    """Create a task row for `Problem.task`. `alignment.grading.task` documents `kind` and `tests`."""
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
    """Return the completion unchanged. This is the default of `Benchmark.assemble`."""
    return completion


@dataclass(frozen=True)
class TurnPlan:
    """How a benchmark with several turns runs: its environment and the number of turns.

    The prompts of such a benchmark are `ChatPrompt`s with the tools of the environment. The task of a problem has the
    hidden tests, and `Problem.row` has the columns with which the environment begins.
    """

    environment: Callable[[Grader | RemoteGrader], EnvironmentFactory]
    """Returns the environment as a class without arguments. The argument runs programs."""
    turns: int
    """Maximum number of answers in one trajectory."""
    version: str
    """Settings of the environment as text. Trajectories that were made with another version are not reused."""


@dataclass(frozen=True)
class Benchmark:
    """Problems of a benchmark, and the settings with which its published scores were measured."""

    name: str
    problems: list[Problem]
    max_new_tokens: int
    assemble: Assemble = unchanged
    """Function that takes (problem, completion) and returns the program to run, or the answer to compare."""
    score: Score | None = None
    """Function that takes (problem, answer) and returns scores by name, each from 0 to 1.

    Required for problems without a task.
    """
    stop_rate: bool = False
    """Whether to report the score `stop_rate`: the share of completions that end by themselves, not at a limit."""
    mode: Literal["base", "chat"] = "base"
    """Whether the prompts are for a base model or for a chat model."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion. The text of the completion is cut before the first of them."""
    stop_tokens: tuple[str, ...] = ()
    """Special tokens that end a completion, besides the checkpoint's stop tokens."""
    n: int = 1
    """Number of completions that are sampled for each task."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy decoding."""
    top_p: float = 1.0
    top_k: int = 0
    """Number of most likely tokens from which is drawn; 0 is all. `GenerationJob` defines this and the next two fields."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    least_limits: Mapping[str, float] = field(default_factory=dict)
    """Field of `alignment.grading.Limits` -> least value that the benchmark's programs need. Lower limits in a recipe
    are raised to these values."""
    hidden: tuple[str, ...] = ()
    """Files of this machine that are hidden from programs, because the published scores were measured without them."""
    needs: tuple[str, str] | None = None
    """A program that tests whether the tasks' language works, and a text that says what to install if it fails."""
    size: int | None = None
    """Number of tasks of the whole benchmark, if `problems` holds only a part of them."""
    retry: Retry | None = None
    """Function that takes (problem, completion, failures) and returns the problem for a second try, or None."""
    plan: TurnPlan | None = None
    """For a benchmark with several turns: its environment and the number of turns. None for all other benchmarks."""
    source_digest: str = ""
    """SHA-256 of the user's file that defines the benchmark; empty for a built-in benchmark.

    Completions that were stored with another version of the file are not reused.
    """
