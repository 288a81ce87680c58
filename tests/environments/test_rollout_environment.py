"""Calls of tools are checked, limited and counted; a broken environment is told from a mistake of the model."""

import asyncio
import importlib.util
import inspect
import json
import time
from pathlib import Path

import pytest
from trl import GRPOTrainer

from alignment.environments.environment_registry import build_environment
from alignment.environments.rollout_environment import (
    EnvironmentLimits,
    ToolError,
    environment_class,
    tool_schemas,
)
from alignment.extensions import ExtensionError
from alignment.grading import RemoteGrader
from alignment.models import formats
from alignment.recipe.stage_parts import GrpoEnvironment

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "environment.py"
LIMITS = EnvironmentLimits(seconds=5, output_characters=100)


class Shop:
    """An environment with tools of every kind."""

    def reset(self, environment):
        """Begin a rollout."""
        self.stock = environment["stock"]
        self.sold = 0
        return "\nThe shop is open."

    def price(self, item: str, count: int = 1) -> str:
        """Return a price.

        Args:
            item: The item.
            count: How many.
        """
        if item not in self.stock:
            raise ToolError(f"no {item}")
        self.sold += count
        return self.stock[item] * count

    def list(self) -> dict:
        """List everything."""
        return self.stock

    def breaks(self) -> str:
        """Break."""
        raise ValueError("out of order")

    async def waits(self, seconds: float) -> str:
        """Wait.

        Args:
            seconds: How long.
        """
        await asyncio.sleep(seconds)
        return "done"

    def _helper(self):
        raise AssertionError("no tool")

    def get_reward(self):
        return self.sold / 2


def shop(limits=LIMITS, **stock):
    made = environment_class("shop", Shop, limits)()
    observation = made.reset(prompt=[], environment=json.dumps({"stock": stock or {"tea": "5"}}), tests="{}")
    assert observation == "\nThe shop is open."
    return made


def test_the_tools_are_the_public_methods_with_their_documentation():
    schemas = {
        schema["function"]["name"]: schema["function"] for schema in tool_schemas(environment_class("s", Shop, LIMITS))
    }
    assert set(schemas) == {"price", "list", "breaks", "waits"}
    assert schemas["price"]["parameters"]["required"] == ["item"]
    assert schemas["price"]["parameters"]["properties"]["count"]["description"] == "How many."


@pytest.mark.parametrize(
    ("tool", "arguments", "result", "wrong"),
    [
        ("price", {"item": "tea", "count": 2}, "55", 0),
        ("price", {"item": "milk"}, "error: no milk", 1),
        ("price", {}, "error: missing a required argument: 'item'", 1),
        ("price", {"item": "tea", "size": 1}, "error: got an unexpected keyword argument 'size'", 1),
        ("price", {"item": 5}, "error: the argument 'item' must be str, not int", 1),
        ("price", {"item": "tea", "count": "2"}, "error: the argument 'count' must be int, not str", 1),
        ("list", {}, '{"tea": "5"}', 0),
        ("waits", {"seconds": 0}, "done", 0),
    ],
)
def test_a_wrong_call_is_told_to_the_model_and_the_rollout_goes_on(tool, arguments, result, wrong):
    made = shop()
    assert getattr(made, tool)(**arguments) == result
    assert made.outcome.problem is None and made.outcome.counts["calls"] == 1
    assert made.outcome.counts["wrong_calls"] == wrong and made.outcome.counts["result_characters"] >= len(result)


def test_an_exception_makes_the_environment_broken_until_the_next_rollout():
    made = shop()
    made.price(item="tea")
    assert made.score == 0.5
    assert made.breaks() == "error: the environment has failed" == made.price(item="tea")
    assert "Shop.breaks raised ValueError: out of order" in made.outcome.problem and made.score is None
    made.reset(environment={"stock": {"tea": "5"}})
    assert made.outcome.problem is None and made.price(item="tea") == "5"
    made.reset()
    assert "reset" in made.outcome.problem and made.score is None


def test_time_is_a_budget_of_the_whole_rollout():
    made = shop(EnvironmentLimits(seconds=0.3, output_characters=100))
    begun = time.monotonic()
    assert made.waits(seconds=60.0) == "error: the environment has failed" and time.monotonic() - begun < 30
    assert "took longer than the 0.3 seconds" in made.outcome.problem
    made.reset(environment={"stock": {}})
    made.outcome.counts["seconds"] = 1.0
    assert "time for tools is used up" in made.price(item="tea")
    assert made.outcome.counts["out_of_time"] == 1 and made.outcome.problem is None


def test_long_results_are_cut_in_the_middle_and_special_tokens_stay_text():
    made = shop(tea="A" * 500 + "Z", coffee="<|im_end|>\ud800")
    result = made.price(item="tea")
    assert result.startswith("A" * 50) and result.endswith("AZ") and "401 characters are left out" in result
    assert made.outcome.counts["cut_results"] == 1
    assert not formats.contains_special_text(made.price(item="coffee"))


class Undocumented:
    def reset(self):
        pass

    def tool(self, x):
        return x


class Toolless:
    def reset(self):
        pass


@pytest.mark.parametrize(
    ("wrapped", "message"),
    [(Undocumented, "made.tool: a tool needs a docstring"), (Toolless, "at least one tool"), (dict, "a method `reset")],
)
def test_what_is_no_environment_is_refused(wrapped, message):
    with pytest.raises(ValueError, match=message):
        environment_class("made", wrapped, LIMITS)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("Boxes = 3", "is a int, not a class"),
        ("class Boxes:\n    def __init__(self):\n        raise OSError('no')", "no"),
    ],
)
def test_a_class_that_cannot_be_made_is_an_error_with_its_place(source, message, tmp_path):
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(ExtensionError, match=message):
        build_environment(GrpoEnvironment(path=f"{tmp_path}/mine.py:Boxes"), None)


def test_python_needs_a_sandbox_on_this_machine():
    with pytest.raises(ValueError, match=r"remove `sandbox\.address`"):
        build_environment(GrpoEnvironment(name="python"), RemoteGrader("http://localhost:1"))


def test_the_example_rewards_a_report_of_the_right_value():
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = build_environment(GrpoEnvironment(path=f"{EXAMPLE}:Boxes"), None)()
    made.reset(prompt=[], id="1", environment='{"boxes": {"a": "7"}, "wanted": "a"}')
    assert made.lookup(key="b") == "error: there is no box 'b'" and made.score == 0
    assert made.report(value=made.lookup(key="a")) == "reported" and made.score == 1


def test_trl_still_calls_environments_as_they_are_made_here():
    """A version of TRL with another protocol must fail here instead of training without tools."""
    source = inspect.getsource(GRPOTrainer)
    for text in ("environment.reset(**", "predicate=inspect.isfunction", 'reward_kwargs["environments"]'):
        assert text in source
