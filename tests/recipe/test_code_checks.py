"""Checks of the user's own code that a recipe names. The code is parsed, not executed."""

import pytest

CODE = """
import os
from json import dumps
raise SystemExit("this file was executed")
LIMIT = 3
def count(request, most=3): pass
def two(request, most): pass
def none(): pass
def named(request, *, most): pass
def anything(*values): pass
async def later(request): pass
class Tasks: pass
if LIMIT:
    def inner(request): pass
alias = count
"""


@pytest.fixture
def code(tmp_path):
    (tmp_path / "my_code.py").write_text(CODE)
    return tmp_path


@pytest.mark.parametrize("name", ["count", "anything", "Tasks", "inner", "alias", "dumps"])
def test_a_function_or_class_that_takes_the_request_is_accepted(mistakes, code, name):
    assert mistakes(("json:dumps", f"my_code.py:{name}")) == []


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("my_cod.py:count", "there is no file {folder}/my_cod.py. Did you mean 'my_code.py'?"),
        ("my_code.py:cuont", "my_code.py defines no 'cuont'. Did you mean 'count'?"),
        ("my_code.py:LIMIT", "my_code.py: LIMIT is a value, not a function"),
        ("my_code.py:two", "two(request, most) can't be called with 1 argument"),
        ("my_code.py:none", "none() can't be called with 1 argument"),
        ("my_code.py:named", "named(request, *, most) can't be called with 1 argument"),
        ("my_code.py:later", "later is an async function"),
        ("no_module.here:count", "module no_module.here cannot be imported"),
        ("no_module:count", "there is no module no_module on the Python path"),
        ("my_code.py", "must be path/to/file.py:name or package.module:name"),
        ("broken.py:count", "broken.py:2: not valid Python: "),
    ],
)
def test_unusable_code_is_a_mistake_with_the_line_of_the_recipe(mistakes, code, reference, expected):
    (code / "broken.py").write_text("x = 1\ndef count(:\n")
    (problem,) = mistakes(("json:dumps", reference))
    assert problem.startswith("recipe.yaml:48: stages.count.run: ") and expected.format(folder=code) in problem


def test_any_name_is_accepted_from_a_file_with_a_star_import(mistakes, code):
    (code / "my_code.py").write_text("from json import *\n")
    assert mistakes(("json:dumps", "my_code.py:whatever")) == []


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ("{path: my_code.py:count, weight: 0.2}", ""),
        ("{path: my_code.py:cuont}", "stages.grpo.rewards.0.path: my_code.py defines no 'cuont'"),
        (
            "{path: my_code.py:count, name: parses}",
            "stages.grpo.rewards.parses: give either `name` (a built-in reward) or",
        ),
        ("{weight: 1.0}", "stages.grpo.rewards.0: give either `name`"),
        ("{name: parses, isolated: true}", "rewards.parses.isolated: built-in rewards need no isolation"),
        ("{path: my_code.py:count, timeout_seconds: 5}", "rewards.0.timeout_seconds: needs `isolated: true`"),
        ("{path: my_code.py:count}, {path: ./my_code.py:count}", "rewards.1.path: ./my_code.py:count is listed twice"),
        ("{path: my_code.py:count, soft: 3}", "are settings of length_penalty"),
    ],
)
def test_a_reward_is_either_built_in_or_the_users_own(mistakes, code, rewards, expected):
    problems = mistakes(("{name: tests_passed, weight: 1.0}", rewards))
    assert len(problems) == bool(expected) and all(expected in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("benchmark", "expected"),
    [("my_code.py:Tasks", ""), ("my_code.py:Task", "evaluate.instruct.benchmark: my_code.py defines no 'Task'")],
)
def test_a_benchmark_may_be_the_users_own(mistakes, code, benchmark, expected):
    problems = mistakes(("benchmark: tasks, data: data/heldout-short.jsonl", f"benchmark: '{benchmark}'"))
    assert len(problems) == bool(expected) and all(expected in problem for problem in problems), problems


def test_code_is_relative_to_the_recipe_that_names_it(mistakes, code, tmp_path, monkeypatch, small):
    from alignment.recipe import load

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small.replace("json:dumps", "my_code.py:count"))
    monkeypatch.chdir("/")
    assert load(recipe).stage("count").run.resolved() == f"{tmp_path}/my_code.py:count"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    model: dpo\n", "    model: data\n", "stages.count.model: stage 'data' makes no model"),
        ("    model: dpo\n", "    inputs: {rows: nowhere/rows.jsonl}\n", "stages.count.inputs.rows: there is no file"),
        ("    model: dpo\n", "    inputs: {rows: data/rl.jsonl}\n", ""),
        (
            "    kind: export\n",
            "    kind: export\n    model: count\n",
            "stages.export.model: stage 'count' makes no model",
        ),
        ("data: data/heldout-documents.jsonl", "data: count/documents.jsonl", ""),
        ("data: data/heldout-documents.jsonl", "data: count/../x.jsonl", "leads out of stage 'count'"),
    ],
)
def test_what_a_custom_stage_reads_and_makes_is_checked(mistakes, old, new, expected):
    problems = mistakes((old, new))
    assert len(problems) == bool(expected) and all(expected in problem for problem in problems), problems


def test_later_stages_start_from_the_model_of_a_custom_stage_that_makes_one(write, small):
    from alignment.recipe import load, stage_graph

    start, end = small.index("  - name: merged"), small.index("  - name: export")
    recipe = small[:start] + small[end:]
    recipe = load(write(recipe=recipe.replace("    model: dpo\n", "    model: dpo\n    makes_model: true\n")))
    assert stage_graph.resolve(recipe).stages[-1].model == "count"
