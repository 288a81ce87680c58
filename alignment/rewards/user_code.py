"""Loads rewards from user code, calls them, and checks the returned scores."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

from alignment.extensions import Extension, ExtensionError
from alignment.rewards.answers import text_of
from alignment.rewards.reward_protocol import Completion, Prompt, RewardFunction, Scores

CALLING = "the reward"
"""Words by which error messages refer to the user's function."""


def load_function(extension: Extension) -> Callable[..., Any]:
    """Return the user's function.

    Raises:
        ExtensionError: the file cannot be imported, does not define the name, or the name is not a function.
    """
    function: Callable[..., Any] = extension.load()
    if not callable(function):
        raise ExtensionError(f"{extension.file()}: {extension.name} is a {type(function).__name__}, not a function")
    return function


def load_reward(extension: Extension) -> RewardFunction:
    """Return the user's function as a reward that runs in this process.

    A synchronous function runs in a thread, so that programs are graded at the same time.

    Raises:
        ExtensionError: the function cannot be loaded. The returned reward raises ExtensionError if the function fails,
            or does not return one score per completion.
    """
    function = load_function(extension)

    async def reward(prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any) -> Scores:
        count = len(completions)
        call = functools.partial(function, texts(prompts), texts(completions), **columns)
        with extension.errors(CALLING):
            scores = await call() if inspect.iscoroutinefunction(function) else await asyncio.to_thread(call)
            if inspect.isawaitable(scores):  # a callable object with an asynchronous __call__
                scores = await scores
        return checked_scores(scores, count, extension.place(function))

    reward.__name__ = extension.name
    return reward


def texts(messages: Sequence[Prompt] | Sequence[Completion]) -> list[str]:
    """Convert prompts or completions to the texts that a user's function receives."""
    return [text_of(message) for message in messages]


def checked_scores(scores: Any, count: int, place: str) -> Scores:
    """Check scores and convert each score to a float or None.

    Args:
        scores: the return value of a user's function: a list, tuple, array or tensor.
        count: the number of completions.
        place: file, line and name of the user's function, for errors.

    Raises:
        ExtensionError: the length is wrong, or a score is neither None nor a finite number.
    """
    if hasattr(scores, "tolist"):
        scores = scores.tolist()
    if not isinstance(scores, list | tuple):
        raise ExtensionError(
            f"{place} returned {_described(scores)}; a reward returns a list with one number (or None) per completion"
        )
    if len(scores) != count:
        raise ExtensionError(f"{place} returned {len(scores)} scores for {count} completions")
    for number, score in enumerate(scores, 1):
        if score is not None and not (isinstance(score, numbers.Real) and math.isfinite(score)):
            raise ExtensionError(
                f"{place} returned {_described(score)} for completion {number} of {count}; a score is a finite number, "
                "or None if the completion cannot be scored"
            )
    return [None if score is None else float(score) for score in scores]


def _described(value: Any) -> str:
    return repr(value) if isinstance(value, int | float | str) and len(repr(value)) < 60 else type(value).__name__
