"""The environments `python` and `tests` run programs in the sandbox, and show visible tests only."""

import asyncio
import json

import pytest

from alignment.environments.environment_registry import build_environment
from alignment.environments.visible_tests import split_tests
from alignment.recipe.stage_parts import GrpoEnvironment, Reward
from alignment.rewards import build_rewards

CALLS = {"cases": [{"args": [n], "expected": n + 1} for n in range(4)], "compare": "equal"}
TASK = {
    "id": "t",
    "prompt": "Write f(x).",
    "language": "python",
    "kind": "calls",
    "entry_point": "f",
    "tests": json.dumps(CALLS),
}
RIGHT, VISIBLE_ONLY = "def f(x): return x + 1", "def f(x): return x + 1 if x < 2 else 0"
END = 7


def rollout(made, task=TASK):
    visible, hidden = split_tests(task, 0.5)
    row = {**task, "visible_tests": visible, "tests": hidden}
    made.reset(**row)
    return row


def rewards_of(rows, environments, completions, grader, ids=None, **logs):
    (reward,) = build_rewards([Reward(name="tests_passed"), Reward(name="parses", weight=0.5)], grader, [END])
    columns = {key: [row.get(key) for row in rows] for key in ("language", "kind", "tests", "entry_point")}
    ids = ids or [[1, END]] * len(rows)
    prompts = [row["prompt"] for row in rows]
    return asyncio.run(reward(prompts, completions, completion_ids=ids, environments=environments, **columns, **logs))


def answer(text, role="assistant"):
    return [{"role": "assistant", "content": "x"}, {"role": role, "content": text}]


def test_python_shows_output_errors_and_limits(grader):
    made = build_environment(GrpoEnvironment(name="python", output_characters=300), grader)()
    made.reset(prompt=[])
    assert made.python(code="print(1 + 1)") == "2\n"
    assert "division by zero" in made.python(code="1 / 0") and "exit code 3" in made.python(
        code="import sys; sys.exit(3)"
    )
    assert made.python(code="x = 1") == "(no output)"
    assert "(stopped: timeout)" in made.python(code="while True: pass")
    flood = made.python(code="while True: print('x' * 1000)")
    assert len(flood) < 400 and "left out" in flood and made.outcome.counts["cut_results"] == 1
    assert made.python(code="```python\nprint(1)\n```").startswith("error: give the source alone")
    assert "trainer-secret" not in made.python(code="import os; print(dict(os.environ))")
    assert made.outcome.problem is None


def test_visible_tests_are_shown_and_hidden_ones_decide(grader):
    made = [build_environment(GrpoEnvironment(name="tests"), grader)() for _ in range(4)]
    rows = [rollout(environment) for environment in made]
    assert made[0].submit(program="def f(x): return 0") == (
        "0 of 2 visible tests pass.\ntest 1: wrong_answer: call 0: expected 1, got 0\n"
        "test 2: wrong_answer: call 1: expected 2, got 0"
    )
    assert made[0].submit(program=RIGHT) == made[1].submit(program=VISIBLE_ONLY) == "2 of 2 visible tests pass."
    for environment in made:
        assert "3" not in str(environment._wrapped._task["tests"]), "a hidden value is in the environment"
    code = f"```python\n{RIGHT}\n```"
    scores = rewards_of(rows, made, [answer("done"), answer(code), answer(code), answer(code, role="tool")], grader)
    # A submission counts before the answer; without one, the answer's code does, but no text of a tool.
    assert scores == [1.5, 0.5, 1.5, 0.0]


def test_a_broken_environment_has_no_reward_and_an_endless_answer_fails(grader):
    environments = [build_environment(GrpoEnvironment(name="tests"), grader)() for _ in range(2)]
    rows = [rollout(environment) for environment in environments]
    environments[0]._wrapped._task = {"kind": "nonsense", "tests": "{}"}
    environments[0].submit(program=RIGHT)
    environments[1].submit(program=RIGHT)
    metrics = {}
    scores = rewards_of(
        rows, environments, [answer("a"), answer("b")], grader, ids=[[1, END], [END, 1]], log_metric=metrics.__setitem__
    )
    assert scores == [None, 0.5], "the program parses, and fails since the answer was cut off"
    assert metrics["environment/failed"] == 0.5 and metrics["environment/calls"] == 1.0
    assert metrics["verdicts/reason/cut_off"] == 0.5 and metrics["verdicts/error"] == 0.5


@pytest.mark.parametrize(
    ("kind", "tests", "visible", "hidden"),
    [
        ("stdio", {"cases": [{"stdout": "1"}, {"stdout": "2"}, {"stdout": "3"}]}, {"stdout": "1"}, {"stdout": "3"}),
        ("asserts", {"code": "import math\nassert f(1) == 1\n\ndef test_b():\n    assert f(2) == 2\n"}, "f(1)", "f(2)"),
        ("pytest", {"suite": "s", "visible": ["a"], "hidden": ["b"]}, '"visible": ["a"]', '"hidden": ["b"]'),
    ],
)
def test_tests_of_every_kind_are_split(kind, tests, visible, hidden):
    first, second = split_tests({"kind": kind, "tests": json.dumps(tests)}, 0.4)
    visible, hidden = (text if isinstance(text, str) else json.dumps(text) for text in (visible, hidden))
    assert visible in first and visible not in second and hidden in second and hidden not in first
    if kind == "asserts":
        assert "import math" in json.loads(first)["code"] and "import math" in json.loads(second)["code"]


def test_a_column_names_the_visible_tests_and_what_cannot_be_split_is_refused():
    assert split_tests({"kind": "program", "tests": "{}", "visible_tests": "[]"}, 0.5) == ("[]", "{}")
    for kind, tests in (
        ("program", {}),
        ("calls", {"cases": [{}]}),
        ("asserts", {"code": "assert f(1)"}),
        ("pytest", {}),
    ):
        with pytest.raises(ValueError, match="`visible_tests`"):
            split_tests({"kind": kind, "tests": json.dumps(tests)}, 0.5)
