"""Rewards for GRPO: built-in rewards, rewards from user code, and the weighted sum of several rewards."""

from alignment.rewards.registry import BUILT_IN, build_rewards
from alignment.rewards.reward_protocol import Completion, Prompt, RewardFunction, RewardSettings, UserRewardFunction

__all__ = [
    "BUILT_IN",
    "Completion",
    "Prompt",
    "RewardFunction",
    "RewardSettings",
    "UserRewardFunction",
    "build_rewards",
]
