"""Lists the built-in rewards, and creates the reward functions of a GRPO stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from alignment.extensions import Extension
from alignment.grading import Grader, RemoteGrader
from alignment.rewards.combination import RewardPart, combined, environment_score
from alignment.rewards.execution import Verdicts, hidden_fraction, tests_fraction, tests_passed
from alignment.rewards.isolation import IsolatedReward
from alignment.rewards.reward_protocol import RewardFunction, RewardSettings
from alignment.rewards.text import fenced, length_penalty, parses
from alignment.rewards.user_code import load_reward
from alignment.wording import did_you_mean

RewardFactory = Callable[[RewardSettings, Verdicts], RewardFunction]


def _length_penalty(settings: RewardSettings, verdicts: Verdicts) -> RewardFunction:
    if settings.soft is None or settings.hard is None:
        raise ValueError("length_penalty needs `soft` and `hard`, its limits in tokens")
    return length_penalty(settings.soft, settings.hard)


BUILT_IN: Mapping[str, RewardFactory] = {
    "tests_passed": lambda settings, verdicts: tests_passed(verdicts),
    "tests_fraction": lambda settings, verdicts: tests_fraction(verdicts),
    "hidden_fraction": lambda settings, verdicts: hidden_fraction(verdicts),
    "parses": lambda settings, verdicts: parses,
    "fenced": lambda settings, verdicts: fenced,
    "length_penalty": _length_penalty,
    "environment": lambda settings, verdicts: environment_score,
}
"""Name of a built-in reward -> its factory. A new reward needs a line here and its name in the recipe's schema."""

GRADING = ("tests_passed", "tests_fraction", "hidden_fraction")
"""Names of the built-in rewards that grade the tests of a task."""

REQUIRED = (*GRADING, "environment")
"""Names of the built-in rewards for which `RewardPart.required` is set."""


def build_rewards(
    settings: Sequence[RewardSettings], grader: Grader | RemoteGrader, end_ids: Sequence[int] = ()
) -> list[RewardFunction]:
    """Create the reward functions of a GRPO stage, in the form of TRL's argument `reward_funcs`.

    Args:
        settings: the entries of `rewards:` of the stage.
        grader: runs the programs. The grader must stay open while the functions are used.
        end_ids: ids of the tokens that end an answer. A completion without an end token was cut off and fails.

    Returns:
        A list with one function, which computes the weighted sum of all rewards.

    Raises:
        ValueError: `settings` is empty, or a name, weight or limit is wrong.
        ExtensionError: a user's reward cannot be loaded.
    """
    verdicts = Verdicts(grader, end_ids)
    parts: list[RewardPart] = []
    for entry in settings:
        if entry.path is not None:
            extension = entry.path.extension()
            reward = _user_reward(extension, entry)
            parts.append(RewardPart(_label(extension, parts), reward, entry.weight))
        elif entry.name is not None and entry.name in BUILT_IN:
            reward = BUILT_IN[entry.name](entry, verdicts)
            parts.append(RewardPart(entry.name, reward, entry.weight, required=entry.name in REQUIRED))
        else:
            hint = did_you_mean(str(entry.name), BUILT_IN)
            raise ValueError(f"unknown reward {entry.name!r}: choose one of {', '.join(BUILT_IN)}.{hint}")
    return [combined(parts)]


def _user_reward(extension: Extension, settings: RewardSettings) -> RewardFunction:
    if settings.isolated:
        return IsolatedReward(extension, settings.timeout_seconds)
    return load_reward(extension)


def _label(extension: Extension, parts: Sequence[RewardPart]) -> str:
    """Return the name of a user's function, with its file or module as prefix if another reward has the same name."""
    taken = {part.name for part in parts} | set(BUILT_IN)
    if extension.name not in taken:
        return extension.name
    module = extension.path.stem if extension.path is not None else extension.module
    return f"{module}.{extension.name}"
