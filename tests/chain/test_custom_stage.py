"""A stage from the user's own code: the example runs in a chain, and errors in the code are reported by place."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import tiny

from alignment.chain import conductor
from alignment.recipe import load

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "stage.py"
RECIPE = """name: own
output: runs
model: {path: base}
stages:
  - {name: count, kind: custom, run: "stage.py:FUNCTION", model: base, settings: {most: 1000}}
"""


@pytest.fixture
def folder(tmp_path, checkpoint_folder):
    """A folder with the example and a base model of 6 x 4 parameters."""
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros((6, 4), dtype=np.float32)}, checkpoint_folder / "model.safetensors")
    shutil.copy(EXAMPLE, tmp_path / "stage.py")
    return tmp_path


def run(folder, function="count_parameters", **replacements):
    text = RECIPE.replace("FUNCTION", function)
    for old, new in replacements.items():
        text = text.replace(f"{old}: ", new)
    (folder / "recipe.yaml").write_text(text)
    recipe = load(folder / "recipe.yaml")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path))}
    return conductor.run(recipe, environment)[0]


def test_the_example_counts_the_parameters_of_a_model(folder):
    step = run(folder)
    assert step.artifact()["result"] == {"parameters": 24, "tensors": 1}
    assert json.loads((step.folder / "parameters.json").read_text()) == {"weight": 24}


def test_the_stage_runs_again_only_when_its_code_or_settings_change(folder):
    first = run(folder)
    again = run(folder)
    assert again.artifact() == first.artifact()
    (folder / "stage.py").write_text(f"{EXAMPLE.read_text()}\n# edited\n")
    assert run(folder).folder != first.folder


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "def f(request):\n    return 1 / 0",
            r"stage\.py:2: f: the function raised ZeroDivisionError: division by zero",
        ),
        (
            "import nothing_here\ndef f(request): ...",
            r"stage\.py:1: <module>: importing the file raised ModuleNotFound",
        ),
        ("def f(request): ...", r"stage\.py:1: f returned None: return a mapping of JSON values"),
        ("def f(request): return [1]", r"f returned list: return a mapping"),
        ("def f(request): return {1: 2}", r"returned a mapping with the key 1, which is not a string"),
        ("def f(request): return {'loss': float('nan')}", r"f returned a value that JSON cannot hold"),
        ("def f(request): return {'out': request.out}", r"f returned a value that JSON cannot hold"),
        (
            "def f(request):\n    (request.out / 'start').mkdir()\n    return {}",
            r"start, which the chain would delete: rename",
        ),
        (
            "def f(request):\n    (request.out / 'model').mkdir()\n    return {}",
            r"set `makes_model: true` if later stages",
        ),
    ],
)
def test_code_that_fails_stops_the_chain_with_file_and_function(folder, code, expected):
    (folder / "stage.py").write_text(f"{code}\n")
    with pytest.raises(conductor.ChainStopped) as stopped:
        run(folder, "f")
    assert re.search(expected, str(stopped.value)), str(stopped.value)


def test_a_stage_that_promises_a_model_must_leave_one(folder):
    (folder / "stage.py").write_text("def f(request): return {}\n")
    with pytest.raises(conductor.ChainStopped, match="left no model: `makes_model: true` needs a checkpoint"):
        run(folder, "f", settings="makes_model: true, settings: ")


@pytest.mark.slow
def test_the_example_counts_a_model_that_the_chain_trained(make_workshop):
    folder = make_workshop()
    shutil.copy(EXAMPLE, folder / "stage.py")
    stages = {
        "sft": tiny.stages()["sft"],
        "count": {"kind": "custom", "run": "stage.py:count_parameters", "model": "sft"},
    }
    stages["sft"]["train"]["max_steps"] = 1
    done = tiny.launch(tiny.write_recipe(folder, stages))
    assert done.returncode == 0, tiny.output(done)
    artifact = json.loads((folder / "runs/tiny/count/artifact.json").read_text())
    assert artifact["result"]["parameters"] > 50_000 and artifact["settings"]["model"] == "sft"
