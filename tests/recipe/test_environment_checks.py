"""What this machine lacks for a recipe is known before the first stage: sandbox, compilers, interpreters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.chain.plan import plan
from alignment.recipe import environment_checks, load, locate
from alignment.recipe.environment_checks import check_environment, missing_tools
from alignment.sandbox import SandboxUnavailable
from alignment.tokenization.row_checks import check_rows

MODEL = "model: {path: base}"


@pytest.fixture
def recipe(tmp_path, monkeypatch, checkpoint_folder):
    """A function that writes a recipe with these stages and returns its path."""
    monkeypatch.chdir(tmp_path)

    def write(stages, more=""):
        path = Path("recipe.yaml")
        path.write_text(f"name: here\n{MODEL}\n{more}\nstages:\n{stages}")
        return path

    return write


@pytest.fixture
def refused_sandbox(monkeypatch):
    class Refused:
        def __init__(self, settings):
            pass

        def start(self):
            raise SandboxUnavailable("the kernel refuses namespaces")

        def close(self):
            pass

    monkeypatch.setattr(environment_checks, "Slot", Refused)


GRPO = "  - {name: grpo, kind: grpo, data: [{data: tasks.jsonl}]}\n"
TASK = {
    "id": "a", "prompt": "a", "language": "python", "kind": "stdio", "tests": json.dumps({"cases": [{"stdout": "1"}]}),
}  # fmt: skip


def write_tasks(*languages):
    Path("tasks.jsonl").write_text("".join(json.dumps({**TASK, "language": name}) + "\n" for name in languages))


@pytest.mark.parametrize(
    ("stages", "more", "refused"),
    [
        (GRPO, "", True),
        (GRPO, "sandbox: http://host:8711", False),
        ("  - {name: e, kind: evaluate, benchmarks: [{name: h, benchmark: humaneval}]}\n", "", True),
        ("  - {name: e, kind: evaluate, benchmarks: [{name: g, benchmark: gsm8k}]}\n", "", False),
    ],
)
def test_a_sandbox_that_the_kernel_refuses_is_a_mistake_of_recipes_that_need_it(
    recipe, refused_sandbox, stages, more, refused
):
    path = recipe(stages, more)
    write_tasks("python")
    mistakes = list(check_environment(load(path)))
    assert bool(mistakes) == refused
    if refused:
        (problem,) = locate(path, (), mistakes)
        assert problem.line and "the kernel refuses namespaces" in problem.message


def test_a_missing_compiler_is_named_with_the_file_that_needs_it(recipe, monkeypatch):
    path = recipe(GRPO)
    write_tasks("python", "go", "rust")
    monkeypatch.setattr(environment_checks.shutil, "which", lambda tool: None if tool == "go" else f"/usr/bin/{tool}")
    mistakes, _ = check_rows(load(path))
    assert [place for place, _ in mistakes] == [("stages", 0, "data", 0, "data")]
    assert "tasks.jsonl" in mistakes[0][1] and "apt-get install" in mistakes[0][1] and "go" in mistakes[0][1]
    assert list(missing_tools(["python", "rust", "klingon"])) == []


def test_a_missing_compiler_of_a_benchmark_is_named(recipe, monkeypatch):
    path = recipe("  - {name: e, kind: evaluate, benchmarks: [{name: r, benchmark: multipl-e-rs}]}\n")
    monkeypatch.setattr(environment_checks.shutil, "which", lambda tool: None)
    monkeypatch.setattr(environment_checks, "sandbox_refusal", lambda allow_weaker: "")
    ((place, message),) = check_environment(load(path))
    assert place == ("stages", 0, "benchmarks", 0, "benchmark") and "rust" in message


@pytest.mark.parametrize(("interpreter", "message"), [
    ("/nowhere/python", "can't be started"), ("environment/bin/python", "/environment/bin/python can't be started"),
])  # fmt: skip
def test_an_interpreter_that_can_not_be_started_is_a_mistake_at_its_source(recipe, monkeypatch, interpreter, message):
    for command in (["init", "-q"], ["commit", "-qm", "one", "--allow-empty"]):
        subprocess.run(["git", "-C", ".", "-c", "user.name=a", "-c", "user.email=a@b", *command], check=True)
    stages = "  - {name: tasks, kind: build, builder: tasks, settings: {settings: {}}}\n"
    path = recipe(stages, f"sources: [{{path: ., interpreter: {interpreter}}}]")
    monkeypatch.setattr(environment_checks, "sandbox_refusal", lambda allow_weaker: "")
    mistakes = list(check_environment(load(path)))
    (problem,) = locate(path, (), mistakes)
    assert problem.key == "sources.0.interpreter" and problem.line == 3 and message in problem.message


def test_a_relative_interpreter_starts_at_the_folder_of_the_recipe(recipe, monkeypatch, tmp_path):
    for command in (["init", "-q"], ["commit", "-qm", "one", "--allow-empty"]):
        subprocess.run(["git", "-C", ".", "-c", "user.name=a", "-c", "user.email=a@b", *command], check=True)
    path = recipe(
        "  - {name: tasks, kind: build, builder: tasks, settings: {tests: {interpreter: ./python}}}\n",
        "sources: [{path: ., interpreter: environment/python}]",
    )
    for folder in ("environment", "elsewhere"):
        Path(folder).mkdir()
    for link in ("python", "environment/python"):
        Path(link).symlink_to(sys.executable)
    loaded = load(path)
    monkeypatch.chdir("elsewhere")
    monkeypatch.setattr(environment_checks, "sandbox_refusal", lambda allow_weaker: "")
    assert list(check_environment(loaded)) == []
    settings = plan(loaded)[0].request.stage.settings
    assert settings["tests"]["interpreter"] == str(tmp_path / "python")
    assert settings["sources"][0]["interpreter"] == str(tmp_path / "environment" / "python")


def test_an_empty_interpreter_is_a_mistake_at_its_line(recipe):
    path = recipe("  - {name: tasks, kind: build, builder: tasks}\n", "sources: [{path: ., interpreter: ''}]")
    with pytest.raises(ValueError, match=r"recipe\.yaml:3: sources\.0\.interpreter: .*empty"):
        load(path)
