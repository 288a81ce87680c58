"""Mistakes in `environment:` and in task rows are found before the stage trains."""

import json

import pytest

from alignment.recipe.problems import RecipeError
from alignment.recipe.recipe_file import load
from alignment.recipe.stage_request import StageRequest
from alignment.stages import grpo

RECIPE = """
name: r
model: {path: ./base}
stages:
  - name: rl
    kind: grpo
    data: [{data: tasks.jsonl}]
    GRPO
"""
TASK = {
    "id": "t", "prompt": "Write f.", "kind": "calls", "entry_point": "f",
    "tests": json.dumps({"cases": [{"args": [n], "expected": n} for n in range(2)]}),
}  # fmt: skip


@pytest.fixture
def mistakes(checkpoint_folder, tmp_path):
    (tmp_path / "tasks.jsonl").write_text(json.dumps(TASK))
    (tmp_path / "mine.py").write_text("class Boxes:\n    pass\n\n\ndef one(x):\n    pass\n")

    def found(*lines):
        (tmp_path / "recipe.yaml").write_text(RECIPE.replace("GRPO", "\n    ".join(lines)))
        try:
            load(tmp_path / "recipe.yaml")
        except RecipeError as error:
            return str(error)
        return ""

    return found


@pytest.mark.parametrize(
    "lines",
    [
        ["environment: python"],
        ["environment: mine.py:Boxes", "rewards: [{name: environment}]"],
        ["environment: {name: tests, turns: 2, seconds: 5, output_characters: 500, visible: 0.3}"],
        ["environment: {name: repository, turns: 12}", "forgeable: allow"],
        ["environment: null"],
    ],
)
def test_right_settings_have_no_mistake(mistakes, lines):
    assert mistakes(*lines) == ""


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["environment: {turns: 2}"], "give either `name`"),
        (["environment: pyhton"], "python"),
        (["environment: mine.py:Boxs"], "Did you mean 'Boxes'"),
        (["environment: mine.py:one"], "can't be called with 0 arguments"),
        (["environment: {name: python, visible: 0.5}"], "`tests` only"),
        (["environment: {name: tests, turns: 0}"], "turns"),
        (["environment: python", "rewards: [{name: environment}]"], "'python' has no reward of its own"),
        (["rewards: [{name: environment}]"], "needs `environment:`"),
        (["environment: repository"], "`forgeable: allow`"),
        (["environment: repository", "forgeable: allow", "rewards: [{name: parses}]"], "the result here is a patch"),
        (["environment: python", "resample: 1"], "can't be used with `environment:`"),
        (["environment: python", "train: {max_tool_calling_iterations: 2}"], "is set by `environment.turns`"),
    ],
)
def test_a_wrong_setting_is_a_mistake(mistakes, lines, message):
    assert message in mistakes(*lines)


def prepared(rows, environment, tokenizer, out, rewards):
    from datasets import load_from_disk

    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = {"name": "rl", "kind": "grpo", "data": [{"data": str(out / "rows.jsonl")}], "environment": environment,
             "rewards": [{"name": name} for name in rewards]}  # fmt: skip
    grpo.prepare_tasks(StageRequest.for_stage(stage, out), tokenizer, out)
    return load_from_disk(str(out / "train"))[0]


def test_visible_tests_are_split_off_and_objects_become_json(tiny_tokenizer, tmp_path):
    row = prepared([TASK], {"name": "tests"}, tiny_tokenizer, tmp_path, ["tests_passed"])
    assert json.loads(row["visible_tests"])["cases"] == [{"args": [0], "expected": 0}]
    assert json.loads(row["tests"])["cases"] == [{"args": [1], "expected": 1}]
    rows = [{"id": "b", "prompt": "Box?", "environment": {"a": {"b": 1}}}]
    row = prepared(rows, {"path": "/mine.py:Boxes"}, tiny_tokenizer, tmp_path, ["environment"])
    assert json.loads(row["environment"]) == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("row", "environment", "rewards", "message"),
    [
        (
            {**TASK, "tests": '{"cases": [{"args": [1], "expected": 1}]}'},
            {"name": "tests"},
            ["tests_passed"],
            "both visible",
        ),
        ({**TASK, "visible_tests": "{}"}, {"name": "tests"}, ["tests_passed"], "the task has no tests"),
        ({**TASK, "visible_tests": "x"}, {"name": "tests"}, ["tests_passed"], "row 1: "),
        ({"prompt": 3, "environment": {}}, {"path": "/m.py:B"}, ["environment"], "`prompt` must be text"),
    ],
)
def test_a_task_that_the_environment_cannot_use_is_refused(
    row, environment, rewards, message, tiny_tokenizer, tmp_path
):
    with pytest.raises(ValueError, match=f"row 1: .*{message}|{message}"):
        prepared([row], environment, tiny_tokenizer, tmp_path, rewards)


@pytest.mark.parametrize(
    ("row", "message"),
    [(TASK, "needs tasks of kind 'repository'"), ({**TASK, "kind": "repository", "tests": "{}"}, "needs `suite`")],
)
def test_the_environment_repository_refuses_other_tasks(row, message, tiny_tokenizer, tmp_path):
    with pytest.raises(ValueError, match=message):
        prepared([row], {"name": "repository"}, tiny_tokenizer, tmp_path, ["tests_passed"])
