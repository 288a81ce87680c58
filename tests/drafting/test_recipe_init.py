"""`align init` on small generated repositories: what is in the recipe, what is left out and why, and that it is
valid.
"""

import json
import math
import subprocess
from pathlib import Path

import pytest
import yaml

from alignment.cli import main
from alignment.drafting import hardware
from alignment.installation import shipped
from alignment.models.shapes import SHAPES
from alignment.planning import presentation
from alignment.recipe import launch_file, load

SUBJECTS = [
    "Read the settings from one place only", "Return the sum without rounding it", "Write the header before the rows",
    "Show the path in the message", "Keep the order of the keys", "Use the clock of the machine", "Check the length of a name",
]  # fmt: skip


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@firm.example", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


def function(name: str, language: str) -> str:
    steps = [f"{name}_{word}" for word in ("first", "second", "third", "fourth", "fifth", "sixth")]
    if language == "python":
        body = "\n".join(f"    {step} = {name}_input + {number}" for number, step in enumerate(steps))
        return f'def compute_{name}({name}_input):\n    """Add what {name} needs."""\n{body}\n    return {steps[-1]}\n'
    body = "\n".join(f"\t{step} := {name}Input + {number}" for number, step in enumerate(steps))
    return f"package shop\n\nfunc Compute{name}({name}Input int) int {{\n{body}\n\treturn {steps[-1]}\n}}\n"


def repository(folder: Path, language: str, *, tests: str = "", commits: int = 30) -> Path:
    """A git repository that gets one module per commit, and a test of it that begins with `tests`."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    suffix = "py" if language == "python" else "go"
    for number in range(commits):
        name = f"part{number}"
        (folder / f"{name}.{suffix}").write_text(function(name, language))
        if tests:
            (folder / f"test_{name}.py").write_text(
                f"{tests}\nfrom {name} import compute_{name}\n\ndef test_{name}():\n    assert compute_{name}(0) == 5\n"
            )
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", SUBJECTS[number % len(SUBJECTS)])
    return folder


def init(tmp_path: Path, *arguments: str) -> tuple[dict, str]:
    """Run `align init`; returns the recipe as plain values, and its text. The recipe is loaded, which checks it."""
    out = tmp_path / "recipe.yaml"
    assert main(["init", "--out", str(out), *arguments]) == 0
    load(out)
    return yaml.safe_load(out.read_text()), out.read_text()


def stages(recipe: dict) -> list[str]:
    return [stage["name"] for stage in recipe["stages"]]


ON_GPU = ["--model", "Qwen/Qwen2.5-Coder-1.5B", "--hardware", "1x24GB"]


@pytest.fixture(scope="module")
def tested(tmp_path_factory) -> Path:
    return repository(tmp_path_factory.mktemp("python") / "shop", "python", tests="import json")


@pytest.fixture(scope="module")
def untested_go(tmp_path_factory) -> Path:
    return repository(tmp_path_factory.mktemp("go") / "shop", "go")


def test_a_tested_python_repository_gets_every_stage(tmp_path, tested):
    recipe, text = init(tmp_path, "--repository", str(tested), *ON_GPU)
    assert stages(recipe) == [
        "benchmark", "corpus", "tasks", "instructions", "pretrain", "sft", "preferences", "dpo", "grpo", "export",
    ]  # fmt: skip
    assert recipe["sources"] == [{"path": str(tested), "license": "owned", "held_out": 0.4}]
    assert "python 100%" in text and "Left out" not in text


def test_packages_that_the_tests_import_and_the_interpreter_lacks_are_named(tmp_path):
    folder = repository(tmp_path / "shop", "python", tests="import package_of_the_firm")
    recipe, text = init(tmp_path, "--repository", str(folder), *ON_GPU)
    assert "tasks" not in stages(recipe) and "grpo" not in stages(recipe)
    assert "package_of_the_firm" in text and "--interpreter" in text
    assert recipe["stages"][0]["settings"] == {"executable": False}


def test_a_package_that_only_an_imported_module_needs_is_missed_too(tmp_path):
    folder = repository(tmp_path / "shop", "python", tests="import helper", commits=30)
    (folder / "helper.py").write_text("import package_of_the_firm\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Add a helper for the tests")
    _, text = init(tmp_path, "--repository", str(folder), *ON_GPU)
    assert "package_of_the_firm" in text


def test_a_language_without_runnable_tests_gets_no_stage_that_executes(tmp_path, untested_go):
    recipe, text = init(tmp_path, "--repository", str(untested_go), *ON_GPU)
    assert stages(recipe) == ["benchmark", "corpus", "commits", "pretrain", "sft", "export"]
    assert [item["benchmark"] for item in recipe["evaluate"]] == ["fim"]
    assert "go 100%" in text and "has no tests" in text


def test_a_plain_folder_gets_no_benchmark_and_the_reason(tmp_path, untested_go):
    folder = tmp_path / "plain"
    folder.mkdir()
    for file in untested_go.glob("*.go"):
        (folder / file.name).write_text(file.read_text())
    recipe, text = init(tmp_path, "--repository", str(folder), *ON_GPU)
    assert stages(recipe) == ["corpus", "pretrain", "export"]
    assert "evaluate" not in recipe and "without a git history" in text


def test_of_several_repositories_each_builder_reads_those_that_it_can_use(tmp_path, tested, untested_go):
    recipe, _ = init(tmp_path, "--repository", str(untested_go), "--repository", str(tested), *ON_GPU)
    settings = {stage["name"]: stage.get("settings", {}) for stage in recipe["stages"]}
    assert [source["path"] for source in settings["tasks"]["sources"]] == [str(tested)]
    assert [source["path"] for source in settings["instructions"]["sources"]] == [str(tested)]
    assert [source["path"] for source in settings["commits"]["sources"]] == [str(untested_go)], (
        "the other changes two files"
    )
    assert "sources" not in settings["corpus"]


def test_helper_scripts_with_tests_do_not_make_a_python_repository(tmp_path):
    folder = repository(tmp_path / "shop", "go")
    (folder / "scripts").mkdir()
    (folder / "large.go").write_text("package shop\n" + "".join(function(f"large{n}", "go") for n in range(40)))
    (folder / "scripts" / "release.py").write_text(function("release", "python"))
    (folder / "scripts" / "test_release.py").write_text(
        "from release import compute_release\n\ndef test_release():\n    assert compute_release(0) == 5\n"
    )
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Add a script for releases")
    recipe, text = init(tmp_path, "--repository", str(folder), *ON_GPU)
    assert "tasks" not in stages(recipe) and recipe["stages"][0]["settings"] == {"executable": False}
    assert "less than 5% of the repository's code is python" in text


def test_a_cpu_gets_the_measured_pretraining_and_no_sampling(tmp_path, tested, untested_go):
    recipe, text = init(
        tmp_path, "--repository", str(tested), "--model", "Qwen/Qwen2.5-Coder-0.5B", "--hardware", "cpu"
    )
    training = {stage["name"]: stage for stage in recipe["stages"] if "train" in stage}
    assert list(training) == ["pretrain", "sft"]
    assert all(stage["train"]["max_steps"] for stage in training.values())
    assert "hours on a CPU" in text
    measured = yaml.safe_load((shipped() / "recipes/qwen2.5-coder/0.5b-cpu.yaml").read_text())
    pretrain = next(stage for stage in measured["stages"] if stage["name"] == "pretrain")
    assert training["pretrain"]["fim"] == pretrain["fim"] and training["pretrain"]["peft"] == pretrain["peft"]
    same = ("max_length", "max_steps", "learning_rate", "lr_scheduler_type")
    assert {key: training["pretrain"]["train"][key] for key in same} == {key: pretrain["train"][key] for key in same}
    tokens = ("max_length", "per_device_train_batch_size", "gradient_accumulation_steps")
    assert math.prod(training["pretrain"]["train"][key] for key in tokens) == 2048


def test_an_instruct_model_on_a_cpu_is_pretrained_only(tmp_path, tested):
    recipe, text = init(
        tmp_path, "--repository", str(tested), "--model", "Qwen/Qwen2.5-Coder-0.5B-Instruct", "--hardware", "cpu"
    )
    assert stages(recipe) == ["benchmark", "corpus", "pretrain", "export"] and "left out" in text.lower()
    assert recipe["stages"][-1]["formats"] == ["q8_0"], "4 bits change a model of this size too much"
    assert recipe["stages"][0]["settings"]["settings"] == {"answer": "fim"}


@pytest.mark.parametrize("text", ["1x24GB", "1x80GB", "8x80GB", "3x48GB"])
@pytest.mark.parametrize("size", ["0.5b", "7b"])
def test_the_plan_says_that_every_stage_fits_the_named_hardware(tmp_path, tested, text, size):
    init(tmp_path, "--repository", str(tested), "--model", f"Qwen/Qwen2.5-Coder-{size.upper()}", "--hardware", text)
    recipe = load(tmp_path / "recipe.yaml")
    devices = hardware.parse(text)
    assert launch_file.layout_of(recipe.launch.path()).devices == devices.devices
    plan = presentation.recipe_needs(recipe, devices.card_gb * 1e9 / 2**30)
    assert [stage["fits"] for stage in plan["needs"]] == [True] * 4
    assert recipe.stage("export").formats == (["q8_0"] if size == "0.5b" else ["q8_0", "q4_K_M"])
    grpo = recipe.stage("grpo").train
    assert grpo["per_device_train_batch_size"] * grpo["gradient_accumulation_steps"] * devices.devices % 8 == 0


def test_rows_go_to_the_stage_that_learns_from_their_kind(tmp_path):
    chats, documents = tmp_path / "chats.jsonl", tmp_path / "documents.jsonl"
    turns = [{"role": "user", "content": "Add."}, {"role": "assistant", "content": "a + b"}]
    chats.write_text(json.dumps({"messages": turns}) + "\n")
    documents.write_text(json.dumps({"text": "x = 1"}) + "\n")
    recipe, text = init(tmp_path, "--rows", str(chats), "--rows", str(documents), *ON_GPU)
    data = {stage["name"]: stage["data"] for stage in recipe["stages"]}
    assert data["pretrain"] == [{"data": str(documents)}] and data["sft"] == [{"data": str(chats)}]
    assert "no benchmark" in text


def test_existing_files_are_never_overwritten(tmp_path, untested_go, capsys):
    for name in ("recipe.yaml", "recipe-accelerate.yaml"):
        (tmp_path / name).write_text("mine")
        assert main(["init", "--out", str(tmp_path / "recipe.yaml"), "--repository", str(untested_go), *ON_GPU]) == 1
        assert "not overwritten" in capsys.readouterr().err
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--repository PATH or --rows FILE"),
        (["--repository", "nowhere", *ON_GPU], "does not exist"),
        (["--repository", "{go}"], "--model"),
        (["--repository", "{go}", "--model", "no.gguf", "--hardware", "cpu"], "there is no model no.gguf"),
        (
            ["--repository", "{go}", "--model", "Qwen/Qwen2.5-Coder-32B", "--hardware", "1x24GB"],
            "does not fit on 1x24GB",
        ),
        (["--repository", "{go}", "--model", "Qwen/Qwen2.5-Coder-7B", "--hardware", "24 furlongs"], "is no hardware"),
    ],
)
def test_a_mistake_on_the_command_line_is_explained_and_nothing_is_written(
    tmp_path, untested_go, capsys, arguments, words
):
    arguments = [item.format(go=untested_go) for item in arguments]
    assert main(["init", "--out", str(tmp_path / "recipe.yaml"), *arguments]) == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("*.yaml"))


def test_questions_are_asked_on_a_terminal(tmp_path, untested_go, monkeypatch):
    answers = iter([str(untested_go), "Qwen/Qwen2.5-Coder-1.5B", "2xH100"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    _, text = init(tmp_path)
    assert "for 2x80GB" in text


def test_without_a_known_shape_batches_have_one_row():
    fit = hardware.choose_training(None, hardware.parse("1x24GB"), ["pretrain", "sft"])
    assert {item.rows for item in fit.stages.values()} == {1}


@pytest.mark.parametrize(
    ("text", "devices", "size"),
    [("cpu", 1, None), ("1x24GB", 1, 24), ("8 x 80 GB", 8, 80), ("8xH100", 8, 80), ("4090", 1, 24), ("2xA100", 2, 80)],
)
def test_hardware_is_read_as_people_write_it(text, devices, size):
    assert hardware.parse(text) == hardware.Hardware(devices, size)


def test_a_larger_card_never_gives_smaller_batches():
    rows = [
        hardware.choose_training(SHAPES["3b"], hardware.Hardware(1, size), ["sft"]).stages["sft"].rows
        for size in (24, 40, 80, 141)
    ]
    assert rows == sorted(rows)
