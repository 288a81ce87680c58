"""Commands on a recipe: exit codes, one JSON document, no traceback, no heavy imports."""

import json
import subprocess
import sys

import pytest

from alignment import __version__
from alignment.cli import main


@pytest.fixture
def recipe(write, small):
    return str(write(recipe=small))


def test_check_plan_and_status_of_a_valid_recipe_exit_with_0(recipe, capsys):
    assert main(["check", "--fast", recipe]) == 0
    assert "no mistakes found; 11 stages" in capsys.readouterr().out
    assert main(["plan", recipe]) == 0
    steps, needs = capsys.readouterr().out.split("\n\n")
    lines = steps.splitlines()
    assert needs.startswith("Predicted peak") and "Disk:" in needs
    assert lines[0].split()[:4] == ["to", "do", "data", "build"] and len(lines) == 11 + 5
    assert main(["status", recipe]) == 0
    assert "no evaluation is done yet" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["check", "--fast"], ["plan"], ["status"]])
def test_json_is_one_document_for_valid_and_invalid_recipes(recipe, capsys, command):
    for arguments, code in ([recipe], 0), ([recipe, "--set", "sede=1"], 1), (["none.yaml"], 1):
        assert main([*command, "--json", *arguments]) == code
        printed = capsys.readouterr()
        document = json.loads(printed.out)
        assert printed.err == "" and document.get("ok", True) is (code == 0)
        for problem in document.get("problems", []):
            assert set(problem) == {"file", "line", "key", "message"}


def test_json_is_one_document_when_an_artifact_is_damaged(recipe, capsys):
    main(["plan", "--json", recipe])
    step = json.loads(capsys.readouterr().out)["steps"][0]
    from pathlib import Path

    folder = Path(step["folder"])
    folder.mkdir(parents=True)
    (folder / "artifact.json").write_text("{")
    assert main(["status", "--json", recipe]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False and "delete the folder" in document["problems"][0]["message"]


def test_run_of_a_finished_recipe_starts_no_launcher_and_reports_each_step(recipe, capsys, monkeypatch):
    figure = {"benchmark": "instruct", "metric": "pass@1", "value": 5.0, "n": 9, "low": 0.0, "high": 9.0, "seed": 3}
    monkeypatch.setattr("alignment.chain.plan.Step.artifact", lambda step: {"seconds": 1, "figures": [figure]})
    assert main(["run", recipe]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("already done") == 11 + 5 and printed.out.splitlines()[-1].startswith("report: ")


def test_run_of_an_unfinished_recipe_needs_a_launch_file(recipe, capsys):
    assert main(["run", recipe]) == 1
    assert "names no `launch:` file" in capsys.readouterr().err


def test_mistakes_go_to_stderr_with_exit_code_1(recipe, capsys):
    assert main(["check", "--fast", recipe, "--set", "stages.dpo.train.betta=1"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "Did you mean 'beta'?" in printed.err and "Traceback" not in printed.err


def test_a_wrong_command_line_exits_with_2(capsys):
    for arguments in (["chekc"], [], ["check"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


def test_the_schema_has_every_kind_of_stage(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    kinds = schema["properties"]["stages"]["items"]["discriminator"]["mapping"]
    assert set(kinds) == {"build", "pretrain", "sft", "dpo", "kto", "grpo", "evaluate", "merge", "export", "custom"}


def test_check_and_plan_import_no_torch_and_no_trainers(recipe):
    code = (
        "import sys\nfrom alignment.cli import main\n"
        f"assert main(['check', '--fast', {recipe!r}]) == 0 and main(['plan', {recipe!r}]) == 0\n"
        "print([name for name in ('torch', 'transformers', 'trl', 'peft', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_parser_needs_only_the_standard_library():
    code = (
        "import sys\nfrom alignment.cli import parser\nparser()\n"
        "print([name for name in ('pydantic', 'yaml', 'numpy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_version_names_the_commit_of_a_checkout_only(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("alignment.chain.artifacts.git_commit", lambda folder: "abc123")
    for root, expected in ((None, "(commit abc123)\n"), (tmp_path, f"align {__version__}\n")):
        if root is not None:
            monkeypatch.setattr("alignment.cli.ROOT", root)
        with pytest.raises(SystemExit) as caught:
            main(["--version"])
        assert caught.value.code == 0 and capsys.readouterr().out.endswith(expected)


@pytest.mark.slow
def test_the_full_check_prints_one_json_document_too(recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    command = [sys.executable, "-m", "alignment.cli", "check", "--json", recipe]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and json.loads(done.stdout)["ok"] is True


def test_settings_that_were_accepted_before_are_not_built_again(recipe, monkeypatch, tmp_path, capsys):
    from alignment.stages import accepted_settings
    from alignment.stages.config_trial import Refusal

    built, refused = [], []

    class ChildInPlace:
        """Stands for the child process that builds the config objects."""

        def __init__(self, module, log, environment):
            pass

        def send(self, request):
            built.extend(stage.name for stage in request.stages)
            request.out.write_text(json.dumps(refused))

        def wait(self):
            pass

        def stop(self, patience):
            pass

    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(accepted_settings, "Child", ChildInPlace)
    assert main(["check", recipe]) == main(["check", recipe]) == 0
    assert built == ["pretrain", "sft", "dpo", "grpo", "kto"]
    assert main(["check", recipe, "--set", "stages.dpo.train.beta=0.3"]) == 0
    assert built[5:] == ["dpo"]
    refused.append(Refusal("dpo", ("train",), "refused"))
    for _ in range(2):  # what is refused is checked again
        assert main(["check", recipe, "--set", "stages.dpo.train.beta=0.4"]) == 1
        assert "refused" in capsys.readouterr().err
    assert built[6:] == ["dpo", "dpo"]


@pytest.mark.slow
def test_the_full_check_reports_what_only_the_config_class_refuses(recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    command = [sys.executable, "-m", "alignment.cli", "check", "--json", recipe]
    command += ["--set", "stages.sft.train.lr_scheduler_kwargs={zzz: 1}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (problem,) = json.loads(done.stdout)["problems"]
    assert (
        done.returncode == 1
        and problem["key"] == "stages.sft.train.lr_scheduler_kwargs"
        and "zzz" in problem["message"]
    )
