"""The reward protocol: what a reward function takes and what it returns.

Both protocols have the signature of a TRL reward function, `reward(prompts, completions, **columns)`, and return one
score per completion. A score is a finite number, or None if the completion cannot be scored: the tests could not be
run, or the reward does not apply to its language. None is never counted as 0.

`RewardFunction` is what TRL's `GRPOTrainer` calls. `UserRewardFunction` is what you write: a plain function, named in a recipe as
`path: my_rewards.py:style`. `examples/reward.py` is a complete one, and `docs/rewards.md` describes both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

from alignment.extensions import ExtensionReference

Message = Mapping[str, Any]
"""One message of a conversation, with `role` and `content`."""
Prompt = str | Sequence[Message]
Completion = str | Sequence[Message]
Scores = list[float | None]


class RewardFunction(Protocol):
    """A reward as the trainer calls it: asynchronous, so that all rewards of a batch are computed at the same time."""

    async def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any) -> Scores:
        """Score the completions of one batch.

        Args:
            prompts: one per completion; the completions of one group have equal prompts.
            completions: text, or conversations whose last message is the answer.
            columns: the columns of the dataset and `completion_ids`, each a sequence with one value per completion;
                and from TRL `trainer_state`, `log_metric(name, value)` and `log_extra(column, values)`.

        Returns:
            One score per completion, in order; None if a completion cannot be scored.
        """


class UserRewardFunction(Protocol):
    """A reward of the user's own: a function that is synchronous or asynchronous."""

    def __call__(
        self, prompts: list[str], completions: list[str], **columns: Any
    ) -> Sequence[float | None] | Awaitable[Sequence[float | None]]:
        """Score the completions of one batch.

        Args:
            prompts: the text of the last message of each prompt, one per completion.
            completions: the text of each answer as the model wrote it, without the token that ends it. Answers of a
                chat model hold Markdown; `alignment.evaluation.extraction.extract_code` takes the code out.
            columns: lists with one value per completion: `completion_ids` (token ids) and the columns of the task rows
                (`id`, `language`, `kind`, `tests`, `entry_point`, `source`). Unless the reward is isolated, also TRL's
                `trainer_state`, `log_metric(name, value)` and `log_extra(column, values)`. New entries may be added:
                end the signature with `**columns`.

        Returns:
            One finite number per completion, in order; None if a completion cannot be scored. Another length, other
            types, NaN, infinity and exceptions end the training with an error that names file, line and function.
        """


class RewardSettings(Protocol):
    """One entry of `rewards:` in a GRPO stage; the recipe's schema implements it."""

    @property
    def name(self) -> str | None:
        """A built-in reward. Exactly one of `name` and `path` is set."""

    @property
    def path(self) -> ExtensionReference | None:
        """A reward from the user's own code."""

    @property
    def weight(self) -> float:
        """The factor of this reward in the sum."""

    @property
    def soft(self) -> int | None:
        """`length_penalty`: the length up to which there is no penalty, in tokens."""

    @property
    def hard(self) -> int | None:
        """`length_penalty`: the length from which the penalty is -1, in tokens."""

    @property
    def isolated(self) -> bool:
        """`path`: run the function in a process of its own."""

    @property
    def timeout_seconds(self) -> float | None:
        """`isolated`: the time that one batch may take; by default `isolation.TIMEOUT_SECONDS`."""
