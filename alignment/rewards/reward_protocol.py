"""The reward protocols: arguments and return values of reward functions.

Both protocols have the signature of a TRL reward function, `reward(prompts, completions, **columns)`, and return one
score per completion. A score is a finite number, or None if the completion cannot be scored: the tests could not be
run, or the reward does not apply to its language. None is never counted as 0.

TRL's `GRPOTrainer` calls a `RewardFunction`. You write a `UserRewardFunction`: a plain function, which a recipe names
as `path: my_rewards.py:style`. `examples/reward.py` is a complete example, and `docs/rewards.md` describes both.
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
    """A reward function for the trainer. It is asynchronous: all rewards of a batch are computed at the same time."""

    async def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any) -> Scores:
        """Score the completions of one batch.

        Args:
            prompts: one prompt for each completion. The completions of one group have equal prompts.
            completions: texts, or conversations whose last message is the answer.
            columns: the columns of the dataset and `completion_ids`, each a sequence with one value per completion.
                TRL adds `trainer_state`, `log_metric(name, value)` and `log_extra(column, values)`.

        Returns:
            One score per completion, in order. The score is None if the completion cannot be scored.
        """


class UserRewardFunction(Protocol):
    """A reward function that a user writes. It can be synchronous or asynchronous."""

    def __call__(
        self, prompts: list[str], completions: list[str], **columns: Any
    ) -> Sequence[float | None] | Awaitable[Sequence[float | None]]:
        """Score the completions of one batch.

        Args:
            prompts: the text of the last message of each prompt, one per completion.
            completions: the unchanged text of each answer, without the end token. Answers of a chat model contain
                Markdown; `alignment.evaluation.extraction.extract_code` extracts the code.
            columns: lists with one value per completion: `completion_ids` (token ids) and the columns of the task rows
                (`id`, `language`, `kind`, `tests`, `entry_point`, `source`), and `tier`: `B` if a program can forge its
                verdict on the task, otherwise `A`. Unless the reward is isolated, also TRL's `trainer_state`,
                `log_metric(name, value)` and `log_extra(column, values)`. New entries may be added: end the signature
                with `**columns`.

        Returns:
            One finite number per completion, in order, or None for a completion that cannot be scored. A different
            length, other types, NaN, infinity and exceptions end the training with an error that names file, line and
            function.
        """


class RewardSettings(Protocol):
    """One entry of `rewards:` in a GRPO stage. The recipe's schema implements this protocol."""

    @property
    def name(self) -> str | None:
        """Name of a built-in reward. Exactly one of `name` and `path` is set."""

    @property
    def path(self) -> ExtensionReference | None:
        """Reference to a reward function in user code."""

    @property
    def weight(self) -> float:
        """The factor of this reward in the sum."""

    @property
    def soft(self) -> int | None:
        """For `length_penalty`: length in tokens up to which the penalty is 0."""

    @property
    def hard(self) -> int | None:
        """For `length_penalty`: length in tokens from which the penalty is -1."""

    @property
    def isolated(self) -> bool:
        """For `path`: whether to run the function in a separate process."""

    @property
    def timeout_seconds(self) -> float | None:
        """For `isolated`: time limit for one batch in seconds. By default `isolation.TIMEOUT_SECONDS`."""
