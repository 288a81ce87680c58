"""The rewards by name, and `build_rewards`, which makes the reward functions that a GRPO stage asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from alignment.extensions import Extension
from alignment.grading import Grader, RemoteGrader
from alignment.rewards.combination import RewardPart, combined
from alignment.rewards.execution import Verdicts, tests_fraction, tests_passed
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
    "parses": lambda settings, verdicts: parses,
    "fenced": lambda settings, verdicts: fenced,
    "length_penalty": _length_penalty,
}
"""Name -> factory. A new built-in reward is one line here, and its name in the recipe's schema."""

REQUIRED = ("tests_passed", "tests_fraction")
"""Rewards without which a completion has no reward; see `RewardPart.required`."""


def build_rewards(
    settings: Sequence[RewardSettings], grader: Grader | RemoteGrader, end_ids: Sequence[int] = ()
) -> list[RewardFunction]:
    """Make the reward functions of a GRPO stage, ready for TRL's `reward_funcs`.

    Args:
        settings: the stage's `rewards:`.
        grader: runs the programs; it must stay open while the functions are used.
        end_ids: ids of the tokens that end an answer. A completion without any of them was cut off and fails its tests.

    Returns:
        One function in a list: the weighted sum of all rewards.

    Raises:
        ValueError: there are no rewards, or a name, weight or limit is wrong.
        ExtensionError: a reward of the user's own cannot be loaded.
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
    """The name of a user's function; with its file or module before it if another reward has that name."""
    taken = {part.name for part in parts} | set(BUILT_IN)
    if extension.name not in taken:
        return extension.name
    module = extension.path.stem if extension.path is not None else extension.module
    return f"{module}.{extension.name}"
