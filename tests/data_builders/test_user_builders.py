"""Builders from the user's own code: the example by `align build` and in a recipe, and errors with their place."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment import cli
from alignment.chain import conductor, plan
from alignment.extensions import ExtensionError
from alignment.recipe import RecipeError, json_schema, load
from data_builders.builder import BuildContext
from data_builders.builder_registry import BUILDERS, find_builder

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "builder.py"
FAQ = "# FAQ\n\n## Where are the logs?\n\nIn `/var/log/shop`, one file per day.\n\n## Who?\n\nAda.\n\n## When?\n\nEvery night at two.\n"
RECIPE = """name: own
model: {path: Qwen/Qwen2.5-Coder-0.5B}
stages:
  - name: faq
    kind: build
    builder: code/builder.py:build
    settings:
      pages: [faq.md]
      min_words: 3
  - {name: sft, kind: sft, data: [{data: faq/conversations.jsonl}]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe, a page, and the example in a folder beside them."""
    (tmp_path / "faq.md").write_text(FAQ)
    (tmp_path / "code").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "code" / "builder.py")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mistakes(folder: Path, old: str, new: str) -> list[str]:
    assert old in RECIPE
    (folder / "recipe.yaml").write_text(RECIPE.replace(old, new, 1))
    with pytest.raises(RecipeError) as caught:
        load(folder / "recipe.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_align_build_runs_the_example(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    arguments = [str(folder / "faq.md"), "--out", str(out), "--set", "min_words=4", "--json"]
    assert cli.main(["build", f"{EXAMPLE}:build", *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 2, "too_short": 1}
    assert [row["messages"][0]["content"] for row in read(out / "conversations.jsonl")] == [
        "Where are the logs?", "When?"
    ]  # fmt: skip


def test_help_lists_the_settings_of_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["build", f"{EXAMPLE}:build", "--settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Make conversations from FAQ pages in Markdown, one for each heading of the second level."
    assert lines[1].startswith("  pages: list[path or stage/file], required. Markdown files.")
    assert lines[2].startswith("  min_words: int above 0, default 3. Smallest number of words in an answer.")


def test_a_recipe_runs_the_example_as_a_stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (folder / "recipe.yaml").write_text(RECIPE.partition("  - {name: sft")[0])
    recipe = load(folder / "recipe.yaml")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path))}
    (step,) = conductor.run(recipe, environment)
    assert len(read(step.folder / "conversations.jsonl")) == 2
    artifact = step.artifact()
    assert artifact is not None and artifact["summary"] == {"rows": 2, "too_short": 1}


def test_an_edited_builder_or_page_makes_its_stage_and_what_follows_stale(folder: Path) -> None:
    def fingerprints() -> dict[str, str]:
        return {step.name: step.fingerprint for step in plan.plan(load(folder / "recipe.yaml"))}

    before = fingerprints()
    assert fingerprints() == before
    (folder / "code" / "builder.py").write_text(f"{EXAMPLE.read_text()}\n# edited\n")
    edited = fingerprints()
    (folder / "faq.md").write_text(FAQ + "\n## Why?\n\nBecause it is asked often.\n")
    assert len({before["faq"], edited["faq"], fingerprints()["faq"]}) == 3 and before["sft"] != edited["sft"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("min_words: 3", "min_wrods: 3", "recipe.yaml:9: stages.faq.settings.min_wrods: no such setting. "
         "Did you mean 'min_words'?"),
        ("min_words: 3", "min_words: few", "recipe.yaml:9: stages.faq.settings.min_words: must be a whole number"),
        ("min_words: 3", "min_words: 0", "settings.min_words: must be greater than 0, not 0"),
        ("pages: [faq.md]", "pages: [fax.md]", "recipe.yaml:8: stages.faq.settings.pages.0: there is no file or folder"),
        ("      pages: [faq.md]\n", "", "stages.faq.settings.pages: pages is missing"),
        ("builder.py:build", "builder.py:built", "recipe.yaml:6: stages.faq.builder: "),
        ("builder.py:build", "bilder.py:build", "Did you mean 'builder.py'?"),
        ("builder.py:build", "builder.py:questions", "questions(text: str) can't be called with 2 arguments"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_at_their_place_like_those_of_built_in_builders(
    folder: Path, old: str, new: str, expected: str
) -> None:
    assert any(expected in message for message in mistakes(folder, old, new))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def build(settings, context):\n    return 1 / 0", r"b\.py:2: build: the builder raised ZeroDivisionError"),
        ("def build(settings, context): ...", r"b\.py:1: build returned None: return a mapping of JSON values"),
        ("def build(settings, context): return [1]", r"b\.py:1: build returned list: return a mapping"),
        (
            "def build(settings, context): return {'loss': float('nan')}",
            r"build returned a value that JSON cannot hold",
        ),
        ("def build(settings, context): return {1: 2}", r"a mapping with the key 1, which is not a string"),
        ("def build(settings, context): return {'rows': 0}", r"b\.py:1: build wrote no file to context\.out"),
        ("def build(settings): ...", r"b\.py:1: build must be a function of two arguments: \(settings, context\)"),
        ("def build(settings: int, context): ...", r"build: the annotation of 'settings' must be dict, or a class"),
        ("def build(settings: 'Lost', context): ...", r"build: its annotations cannot be read: name 'Lost'"),
        ("import nothing_here\ndef build(settings, context): ...", r"b\.py:1: <module>: importing the file raised"),
        ("build = 3", r"b\.py: build must be a function of two arguments"),
    ],
)
def test_code_that_fails_or_returns_something_else_is_an_error_with_its_place(
    tmp_path: Path, code: str, expected: str
) -> None:
    (tmp_path / "b.py").write_text(f"{code}\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(ExtensionError) as caught:
        builder = find_builder(f"{tmp_path / 'b.py'}:build")
        builder.run(builder.validate({}), BuildContext(tmp_path / "out"))
    assert re.search(expected, str(caught.value)), str(caught.value)


def test_a_builder_with_an_unreadable_signature_is_a_mistake_of_the_recipe(folder: Path) -> None:
    (folder / "code" / "builder.py").write_text("def build(settings: int, context): ...\n")
    (message,) = mistakes(folder, "min_words: 3", "min_words: 3")
    assert "recipe.yaml:6: stages.faq.builder: " in message and "must be dict" in message


def test_a_builder_without_a_settings_class_gets_a_plain_dict(folder: Path) -> None:
    code = (
        "def build(settings: dict, context):\n    (context.out / 'a').write_text('x')\n    return {'got': settings}\n"
    )
    (folder / "b.py").write_text(code)
    (folder / "out").mkdir()
    builder = find_builder(f"{folder / 'b.py'}:build")
    assert builder.run(builder.validate({"anything": [1]}), BuildContext(folder / "out")) == {"got": {"anything": [1]}}


def test_a_builder_of_a_package_is_found_by_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    builder = find_builder("builder:build")
    assert builder.settings_class is not None and "pages" in builder.settings_class.model_fields


def test_the_schema_completes_the_settings_of_each_built_in_builder() -> None:
    schema = json_schema()
    conditions = schema["$defs"]["BuildStage"]["allOf"]
    assert [item["if"]["properties"]["builder"]["const"] for item in conditions] == list(BUILDERS)
    corpus = next(item for item in conditions if item["if"]["properties"]["builder"]["const"] == "corpus")
    settings = schema["$defs"][corpus["then"]["properties"]["settings"]["$ref"].rpartition("/")[2]]
    assert "filters" in settings["properties"] and settings["additionalProperties"] is False
    source = schema["$defs"]["Source"]["anyOf"]
    assert source[0] == {"type": "string"} and "held_out" in source[1]["properties"]
