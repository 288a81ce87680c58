"""Recipes with one mistake each, and the controls among them: every one gives its right result, with file, line and
key.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from alignment.recipe import RecipeError, TrainingStage, load, locate
from alignment.recipe.environment_checks import check_environment
from alignment.stages.config_trial import refusals

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT.parent / "shared" / "cases" / "train"


def checked(path):
    """The mistakes that `align check` reports, except for rows, as one text."""
    try:
        recipe = load(path)
    except RecipeError as error:
        return "\n".join(map(str, error.problems))
    stages = [stage for stage in recipe.stages if isinstance(stage, TrainingStage)]
    names = [stage.name for stage in recipe.stages]
    mistakes = [*check_environment(recipe)]
    mistakes += [(("stages", names.index(item.stage), *item.place), item.message) for item in refusals(stages)]
    return "\n".join(map(str, locate(path, (), mistakes)))


def test_every_known_recipe_gives_its_right_result(tmp_path):
    file = CASES / "recipe.jsonl"
    if not file.is_file():
        pytest.skip("the file of cases is not here")
    for name in ("recipes", "accelerate_configs", "README.md"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, tmp_path / name)
    (tmp_path / ".gitignore").write_text("case.yaml\nlaunch.yaml\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"], ["commit", "-qm", "two", "--allow-empty"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=tmp_path, check=True)
    wrong = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        given, right = case["input"], case["right"]
        text = given.get("recipe") or (CASES / given["recipe_file"]).read_text()
        path = tmp_path / "case.yaml"
        path.write_text(text.replace("@", str(tmp_path)))
        for name, content in given.get("files", {}).items():
            (tmp_path / name).write_text(content)
        try:
            problems = checked(path)
        except Exception as error:
            wrong[given["id"]] = f"{type(error).__name__}: {error}"
            continue
        if right["check"] == "accept":
            if problems:
                wrong[given["id"]] = problems
        elif not problems or not all(re.search(name, problems) for name in right["names"]):
            wrong[given["id"]] = problems or "accepted"
        elif not re.search(r"\.yaml:\d+: ", problems):
            wrong[given["id"]] = f"no line: {problems}"
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())
