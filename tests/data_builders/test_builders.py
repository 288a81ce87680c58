"""Builders by name: in a recipe, and with `align build` and `align show`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import MakeRepository, code, commit, git, run_builder, write_files

from alignment import cli
from alignment.chain import plan
from alignment.recipe import RecipeError, load
from alignment.rows import reading as row_files
from alignment.settings_help import describe_settings
from data_builders.builder_registry import BUILDERS, find_builder

RECIPE = """name: r
model: {path: Qwen/Qwen2.5-Coder-0.5B}
stages:
  - name: corpus
    kind: build
    builder: corpus
    settings: {sources: [project, {path: "more/*", license: MIT}], filters: {max_line_length: 500}}
  - {name: whole, kind: build, builder: repo_level, settings: {inputs: [corpus], max_length: 500}}
  - name: mix
    kind: build
    builder: mixture
    settings: {parts: {code: {path: corpus, share: 0.7}, rest: {path: [whole/data], share: 0.3}}, tolerance: 0.5}
  - {name: pretrain, kind: pretrain, data: [{data: mix}]}
"""


@pytest.fixture
def recipe(repository: MakeRepository, tmp_path: Path) -> Path:
    repository({f"m{number}.py": code(f"one{number}") for number in range(4)})
    repository({"b.py": code("beta")}, name="other")
    write_files(tmp_path / "more" / "lib", {"c.py": code("gamma")})
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def mistakes(path: Path, old: str, new: str) -> list[str]:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RecipeError) as caught:
        load(path)
    return [str(problem) for problem in caught.value.problems]


def test_paths_of_sources_parts_and_inputs_are_relative_to_the_recipe(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    steps = {step.name: getattr(step.request.stage, "settings", None) for step in plan.plan(load(recipe))}
    assert steps["corpus"]["sources"] == [
        str(tmp_path / "project"), {"path": str(tmp_path / "more" / "*"), "license": "MIT"}
    ]  # fmt: skip
    corpus = steps["mix"]["parts"]["code"]["path"]
    assert Path(corpus).parent == tmp_path / "runs" / "r" / "artifacts" and steps["whole"]["inputs"] == [corpus]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("filters:", "filter:", "recipe.yaml:7: stages.corpus.settings.filter: no such setting. "
         "Did you mean 'filters'?"),
        ("max_line_length", "max_line_lenght", "stages.corpus.settings.filters.max_line_lenght: no such setting. "
         "Did you mean 'max_line_length'?"),
        ("max_line_length: 500", "max_line_length: long", "filters.max_line_length: must be a whole number, not 'long'"),
        ("[project,", "[projct,", "stages.corpus.settings.sources.0: source"),
        ("more/*", "none/*", "no folder matches"),
        ("license: MIT", "licence: MIT", "Did you mean 'license'?"),
        ("license: MIT", "commit: v1", "it has no commit 'v1'"),
        ("inputs: [corpus]", "inputs: corpus", "settings.inputs: must be a list"),
        ("share: 0.7", "share: most", "settings.parts.code.share: must be a number"),
        ("share: 0.7", "share: -1", "settings.parts.code.share: must be greater than 0, not -1"),
        ("path: corpus, share", "pth: corpus, share", "Did you mean 'path'?"),
        ("inputs: [corpus]", "inputs: [corpse]", "no earlier stage of that name. Did you mean 'corpus'?"),
        ("[whole/data]", "[whole/dat]", "stage 'whole' makes no 'dat'; it makes data. Did you mean 'data'?"),
        ("builder: repo_level", "builder: repo_levl", "Did you mean 'repo_level'?"),
        ("kind: pretrain", "kind: dpo", "a dpo stage trains on preference rows; mix has document rows"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_at_its_place_before_anything_runs(
    recipe: Path, old: str, new: str, expected: str
) -> None:
    assert any(expected in message for message in mistakes(recipe, old, new))


def test_a_missing_commit_is_a_mistake_of_the_recipe(recipe: Path) -> None:
    (message,) = mistakes(recipe, "[project,", "[{path: project, commit: v9},")
    assert "stages.corpus.settings.sources.0: " in message and "has no commit 'v9'" in message


def fingerprints(recipe: Path) -> dict[str, str]:
    return {step.name: step.fingerprint for step in plan.plan(load(recipe))}


def test_a_new_commit_makes_the_corpus_and_what_follows_stale_and_a_dirty_checkout_does_not(
    recipe: Path, tmp_path: Path
) -> None:
    before = fingerprints(recipe)
    write_files(tmp_path / "project", {"draft.py": "x = 1\n"})
    assert fingerprints(recipe) == before
    commit(tmp_path / "project", "Add one more module to it", {"d.py": code("delta")})
    after = fingerprints(recipe)
    assert all(after[name] != before[name] for name in before)


def test_a_changed_file_of_a_plain_folder_makes_the_corpus_stale(recipe: Path, tmp_path: Path) -> None:
    before = fingerprints(recipe)
    write_files(tmp_path / "more" / "lib", {"c.py": code("gamma", 14)})
    assert fingerprints(recipe)["corpus"] != before["corpus"]


def test_a_url_is_stale_after_a_new_commit_unless_its_commit_is_pinned(recipe: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    first = git(other, "rev-parse", "HEAD")
    text = recipe.read_text()
    moving = text.replace("[project,", f"['file://{other}',")
    pinned = text.replace("[project,", f"[{{path: 'file://{other}', commit: {first}}},")
    unchanged = []
    for version in (moving, pinned):
        recipe.write_text(version)
        before = fingerprints(recipe)["corpus"]
        commit(other, "Change something in the other one", {"b.py": code("beta", 15 + len(unchanged))})
        unchanged.append(fingerprints(recipe)["corpus"] == before)
    assert unchanged == [False, True]


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    status = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_align_build_and_show_work_on_paths(
    repository: MakeRepository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = repository({"a.py": code("alpha"), "b.go": 'package main\n\nfunc main() { println("beta") }\n'})
    out = tmp_path / "out"
    status, output, error = run(capsys, "build", "corpus", folder, "--out", out, "--set", "languages=[python, go]", "--workers", 1)  # fmt: skip
    assert status == 0 and "rows: 2" in output, error
    status, output, _ = run(capsys, "show", out, "-n", 1, "--language", "go")
    assert "path: b.go" in output and "func main" in output and "a.py" not in output
    status, _, error = run(capsys, "show", out, "--kind", "notebook")
    assert status == 1 and "no row of kind 'notebook'; it has code" in error
    status, output, _ = run(capsys, "build", "math", out, "--out", tmp_path / "math", "--json", "--workers", 1)
    assert status == 0 and json.loads(output)["title"] == "Mathematics"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("corpus", "nowhere", "--out", "out"), "sources.0: source"),
        (("corpus", "--out", "out"), "sources is missing"),
        (("corpus", ".", "--out", "out", "--set", "lanuages=[go]"), "Did you mean 'languages'?"),
        (("korpus", ".", "--out", "out"), "Did you mean 'corpus'?"),
        (("general", "nowhere", "--out", "out"), "inputs.0: there is no file or folder"),
        (("mixture", "a", "--out", "out"), "takes no list of paths"),
        (("preferences", ".", "--out", "out"), "takes no list of paths"),
        (("corpus", "."), "--out"),
        ((), "--list"),
    ],
)
def test_a_wrong_command_line_is_an_error_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, error = run(capsys, "build", *arguments)
    assert status == 1 and message in error


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_and_each_of_its_settings_is_documented(name: str) -> None:
    builder = find_builder(name)
    assert builder.function.__doc__ and builder.settings_class is not None
    lines = list(describe_settings(builder.settings_class))
    assert [line for line in lines if not re.search(r", (required|default .+)\. [A-Z`]", line)] == []


def test_rendered_documents_of_other_trainers_are_refused_by_the_stages(
    repository: MakeRepository, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    from types import SimpleNamespace

    from alignment.tokenization.prepare import write_training_rows
    from alignment.tokenization.segments import TokenizationRules

    folder = repository({f"m{number}.py": code(f"one{number}") for number in range(4)})
    run_builder("corpus", tmp_path / "corpus", sources=[folder])
    run_builder("fim", tmp_path / "fim", inputs=[tmp_path / "corpus"], fim={"rate": 1.0})
    assert all(row["format"].startswith("fim") for row in row_files.read(tmp_path / "fim"))
    rules = TokenizationRules(512, "split", 0.5, 0.0, "characters", None)
    source = SimpleNamespace(data=str(tmp_path / "fim"), share=None, rows=None, format=None)
    with pytest.raises(ValueError, match="for another trainer"):
        write_training_rows([source], tiny_tokenizer, rules, 0, tmp_path)


@pytest.mark.parametrize("name", BUILDERS)
def test_help_has_a_line_for_every_setting(name, capsys):
    assert cli.main(["build", name, "--settings"]) == 0
    shown = capsys.readouterr().out
    settings_class = find_builder(name).settings_class
    assert [setting for setting in settings_class.model_fields if f"\n  {setting}: " not in shown] == []


def test_help_lists_the_fields_of_nested_settings(capsys):
    cli.main(["build", "corpus", "--settings"])
    lines = capsys.readouterr().out.splitlines()
    assert "      max_bytes: int, default 1048576. Maximum size of a file in bytes. Larger files are not read." in lines
    assert lines.index(
        "  filters: FilterSettings, default as below. Limits that decide which files are dropped."
    ) < lines.index(
        "      max_line_length: int, default 1000. Maximum length of the longest line. Not applied to prose and markup."
    )
