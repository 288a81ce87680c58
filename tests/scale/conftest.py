"""A recipe with one SFT stage, for tests of launch files and plans."""

import textwrap
from pathlib import Path

import pytest

from alignment.recipe import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe_with(tmp_path):
    """Function that writes and loads a recipe, given the name of an Accelerate file and more YAML for the recipe."""

    def make(
        config: str | None = "zero3", train: str = "{max_steps: 2}", more: str = "", path="Qwen/Qwen2.5-Coder-1.5B"
    ):
        launch = f"launch: {ROOT}/accelerate_configs/{config}.yaml" if config else ""
        file = tmp_path / "recipe.yaml"
        (tmp_path / "rows.jsonl").write_text('{"text": "x = 1"}\n')
        file.write_text(
            textwrap.dedent(f"""\
            name: Some.Model_1
            {launch}
            model: {{path: {path}}}
            stages:
              - {{name: sft, kind: sft, data: [{{data: rows.jsonl}}], train: {train}}}
            """).replace("Some.Model_1", "some.model_1")
            + textwrap.dedent(more)
        )
        return load(file), file

    return make
