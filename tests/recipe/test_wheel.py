"""The wheel outside of a checkout: shipped recipes are found from any folder, and results stay out of the
installation.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, names.split("\0")):
        if not name.startswith(("tests/", "docs/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
    ]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def align(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-P", "-m", "alignment.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_shipped_recipe_is_found_and_its_results_go_to_the_current_folder(installed, tmp_path):
    done = align(installed, tmp_path, "plan", "recipes/quickstart.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == str(tmp_path / "runs" / "quickstart")
    done = align(installed, tmp_path, "plan", "recipes/quickstart.yaml", "--json", "--set", "output=/elsewhere")
    assert json.loads(done.stdout)["folder"] == "/elsewhere/quickstart"


@pytest.mark.slow
def test_the_wheel_has_everything_that_a_run_reads(installed, tmp_path):
    share = installed / "alignment" / "share"
    assert (share / "recipes" / "run.py").is_file() and (share / "accelerate_configs" / "zero3.yaml").is_file()
    done = subprocess.run(
        [sys.executable, "-P", str(share / "recipes" / "run.py"), "nothing.yaml"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and "nothing.yaml" in done.stderr
    for recipe in sorted((ROOT / "recipes").rglob("*b.yaml")):
        name = str(recipe.relative_to(ROOT))
        assert align(installed, tmp_path, "check", "--fast", name).returncode == 0, name


@pytest.mark.slow
def test_a_run_outside_of_a_checkout_starts_its_stages(installed, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"name: mine\nlaunch: {installed}/alignment/share/accelerate_configs/cpu.yaml\n"
        "model: {init: {hidden_size: 32, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, "
        "num_key_value_heads: 1}, tokenizer: data/tokenizer}\n"
        "stages:\n  - {name: data, kind: build, builder: synthetic, settings: {modules: 20, repositories: 0, standard_library: 20000, "
        "history: 0, conversations: 10, file_conversations: 0, long_conversations: 5, rl_tasks: 5, heldout_tasks: 5}}\n"
    )
    done = align(installed, tmp_path, "run", "mine.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "mine" / "data" / "artifact.json").is_file()


def test_a_wrong_python_is_named_before_anything_is_created(tmp_path):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    fake.chmod(0o755)
    done = subprocess.run(["make", "setup", f"PYTHON={fake}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "is not Python 3.11 (Python 3.9.2)" in done.stderr
    assert not (tmp_path / ".venv").exists()
