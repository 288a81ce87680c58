"""The environment of one rollout, in the form of TRL's `environment_factory`: every public method is a tool.

`environment_class` wraps a class, so that calls are checked, limited and counted. After a wrong call, the model
gets a text that says what is wrong. An exception in a tool is a fault of the environment: the rollout then has no
reward (None, never 0).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import threading
import time
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from alignment.logs import get_logger
from alignment.models.formats import escape_special_text

logger = get_logger(__name__)

TASK_COLUMN = "environment"
"""Name of the column of task rows that holds data for the environment: an object, or its JSON."""
RESERVED = ("reset", "get_reward")
"""Names of public methods that are not tools."""
_NO_TIME = "error: the time for tools is used up; answer without a call"
_CUT = "\n... ({} characters are left out) ...\n"


COUNTS = ("calls", "wrong_calls", "cut_results", "result_characters", "out_of_time", "seconds")
"""Names of the counts of a rollout: tool calls, wrong tool calls, shortened results, characters of all results,
calls that were refused because no time was left, and seconds spent in tools."""


class ToolError(ValueError):
    """Raised by a tool if the model calls the tool in a wrong way.

    The model gets the message, and the rollout continues.
    """


class _OutOfTime(Exception):
    """Raised when a tool call takes longer than the time that is left for its rollout."""


@dataclass(frozen=True)
class EnvironmentLimits:
    """Limits of one rollout. The number of tokens is limited by `train.max_completion_length`."""

    seconds: float
    """Largest number of seconds that all tool calls of a rollout may take together."""
    output_characters: int
    """Largest number of characters of one result. A longer result is cut in the middle."""


@dataclass
class RolloutOutcome:
    """Result of one rollout: the submitted program, the error of the environment, and counts."""

    submission: str | None = None
    """The program to grade, or None if the program is in the model's answer."""
    problem: str | None = None
    """Why the environment failed, or None if it did not fail."""
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    """Values of the counts that `COUNTS` names."""


class RolloutEnvironment:
    """Wraps an object with tools, and runs rollouts with the object, one after the other.

    `environment_class` makes subclasses that have each tool of the object as a method. If a class sets
    `waits_for_sandbox` to True, its tools do little more than wait for the sandbox and change nothing after that: a call
    that takes too long is then a fault of the model, not of the environment.
    """

    def __init__(self, wrapped: Any, limits: EnvironmentLimits) -> None:
        self._wrapped = wrapped
        self._limits = limits
        self._outcome = RolloutOutcome()

    def reset(self, **columns: Any) -> str | None:
        """Begin a rollout.

        Args:
            columns: the columns of the task's row. The wrapped `reset` gets the columns that it has parameters for.

        Returns:
            Text that is appended to the prompt, or None.
        """
        self._outcome = RolloutOutcome()
        if isinstance(columns.get(TASK_COLUMN), str):
            columns[TASK_COLUMN] = json.loads(columns[TASK_COLUMN])
        accepted = _accepted(self._wrapped.reset, columns)
        observation = self._guarded("reset", functools.partial(self._wrapped.reset, **accepted))
        return None if observation is None else self._shown(observation)

    @property
    def outcome(self) -> RolloutOutcome:
        """The outcome of the rollout so far."""
        submission = getattr(self._wrapped, "submission", None)
        if submission is not None and not isinstance(submission, str):
            self._fail(f"`submission` is a {type(submission).__name__}, not text")
            submission = None
        self._outcome.submission = submission
        return self._outcome

    @property
    def score(self) -> float | None:
        """The reward that the wrapped class's `get_reward` returns. None without `get_reward`, or after a failure."""
        if self._outcome.problem is not None or not hasattr(self._wrapped, "get_reward"):
            return None
        score = self._guarded("get_reward", self._wrapped.get_reward)
        if score is not None and not isinstance(score, int | float):
            self._fail(f"get_reward returned a {type(score).__name__}, not a number or None")
            return None
        return score if self._outcome.problem is None else None

    def _fail(self, problem: str) -> None:
        self._outcome.problem = problem
        logger.warning("an environment failed, and its rollout has no reward: %s", problem)

    def _guarded(self, name: str, call: Callable[[], Any]) -> Any:
        """Make a call and return its result. If the call raises or takes too long, set `problem` and return None."""
        counts = self._outcome.counts
        begun = time.monotonic()
        try:
            return _within(self._limits.seconds - counts["seconds"], call)
        except ToolError:
            raise
        except _OutOfTime:
            if getattr(self._wrapped, "waits_for_sandbox", False):
                counts["out_of_time"] += 1
                return _NO_TIME
            self._fail(f"{type(self._wrapped).__name__}.{name} took longer than the {self._limits.seconds:g} seconds")
        except Exception as error:
            self._fail(f"{type(self._wrapped).__name__}.{name} raised {type(error).__name__}: {error}")
        finally:
            counts["seconds"] += time.monotonic() - begun
        return None

    def _answer_call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call a tool with the model's arguments, and return the text that the model gets as the result."""
        counts = self._outcome.counts
        counts["calls"] += 1
        if self._outcome.problem is not None:
            return "error: the environment has failed"
        if counts["seconds"] >= self._limits.seconds:
            counts["out_of_time"] += 1
            return _NO_TIME
        method = getattr(self._wrapped, name)
        if problem := argument_problem(method, arguments):
            counts["wrong_calls"] += 1
            return self._shown(f"error: {problem}")
        try:
            result = self._guarded(name, functools.partial(method, **arguments))
        except ToolError as error:
            counts["wrong_calls"] += 1
            return self._shown(f"error: {error}")
        if self._outcome.problem is not None:
            return "error: the environment has failed"
        return self._shown(result)

    def _shown(self, result: Any) -> str:
        """Format a result as text without special tokens, and cut the text to `output_characters`."""
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
        limit = self._limits.output_characters
        if len(text) > limit:
            self._outcome.counts["cut_results"] += 1
            text = text[: limit // 2] + _CUT.format(len(text) - limit) + text[len(text) - (limit - limit // 2) :]
        # TRL encodes results with special tokens: a written `<|im_end|>` would end the turn.
        text = escape_special_text(text.encode("utf-8", "replace").decode("utf-8"))
        self._outcome.counts["result_characters"] += len(text)
        return text


EnvironmentFactory = Callable[[], RolloutEnvironment]
"""Type of TRL's argument `environment_factory`: an environment class whose constructor takes no arguments."""


def environment_class(name: str, make: Callable[[], Any], limits: EnvironmentLimits) -> EnvironmentFactory:
    """Return a class that wraps the objects that `make` returns, and has their tools as documented methods.

    Args:
        name: name of the environment, for errors.
        make: makes an object with `reset` and at least one tool: a public method with annotated parameters and a
            docstring that describes them.
        limits: limits of time and output for each rollout.

    Raises:
        ValueError: the object has no `reset` or no tool, or a tool is not documented.
    """
    wrapped_class = type(make())
    methods = {
        key: method
        for key, method in inspect.getmembers(wrapped_class, predicate=inspect.isfunction)
        if not key.startswith("_") and key not in RESERVED
    }
    if not callable(getattr(wrapped_class, "reset", None)):
        raise ValueError(f"{name}: an environment needs a method `reset(self, **columns)`, which begins a rollout")
    if not methods:
        raise ValueError(f"{name}: an environment needs at least one tool: a public method")
    for key, method in methods.items():
        _check_documented(f"{name}.{key}", method)

    class Environment(RolloutEnvironment):
        def __init__(self) -> None:
            super().__init__(make(), limits)

    for key, method in methods.items():
        setattr(Environment, key, _tool(key, method))
    Environment.__name__ = Environment.__qualname__ = wrapped_class.__name__
    return Environment


def tool_schemas(environment: EnvironmentFactory) -> list[dict[str, Any]]:
    """Return the descriptions of an environment's tools, as the prompt lists them."""
    from transformers.utils import get_json_schema

    instance = environment()
    names = [key for key, _ in inspect.getmembers(type(instance), inspect.isfunction) if not key.startswith("_")]
    return [get_json_schema(getattr(instance, key)) for key in names if key not in RESERVED]


def _tool(name: str, method: Callable[..., Any]) -> Callable[..., str]:
    @functools.wraps(method)
    def call(self: RolloutEnvironment, *positional: Any, **arguments: Any) -> str:
        if positional:
            return "error: arguments are given by name"
        return self._answer_call(name, arguments)

    return call


def _check_documented(place: str, method: Callable[..., Any]) -> None:
    """Raise ValueError if transformers can't describe a tool to the model."""
    from transformers.utils import get_json_schema
    from transformers.utils.chat_template_utils import DocstringParsingException, TypeHintParsingException

    try:
        get_json_schema(_without_self(method))
    except (DocstringParsingException, TypeHintParsingException, TypeError, NameError) as error:
        raise ValueError(
            f"{place}: a tool needs a docstring with `Args:` for every parameter, and annotated parameters: {error}"
        ) from None


def _without_self(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that has a method's documentation and parameters, but no parameter `self`."""

    @functools.wraps(method)
    def function() -> None: ...

    signature = inspect.signature(method)
    function.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return function


def argument_problem(method: Callable[..., Any], arguments: Mapping[str, Any]) -> str | None:
    """Return a message if arguments of a call have wrong names or JSON types, or are missing. Otherwise return None."""
    try:
        inspect.signature(method).bind(**arguments)
    except TypeError as error:
        return str(error)
    hints = typing.get_type_hints(method)
    for name, value in arguments.items():
        if name not in hints:
            continue
        try:
            TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError:
            expected = getattr(hints[name], "__name__", str(hints[name]))
            return f"the argument {name!r} must be {expected}, not {type(value).__name__}"
    return None


def _accepted(function: Callable[..., Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return dict(columns)
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in columns.items() if name in names}


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Make a call in a thread and return its result. After `seconds`, leave the thread and raise _OutOfTime."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result = call()
            results.append(asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="environment")
    thread.start()
    thread.join(max(seconds, 0.001))
    if errors:
        raise errors[0]
    if not results:
        raise _OutOfTime
    return results[0]


async def _awaited(result: Any) -> Any:
    return await result
