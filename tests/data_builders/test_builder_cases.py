"""Given files, notebooks, commits and repositories: each gives the builders' right result."""

from __future__ import annotations

import ast
import builtins
import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import MakeRepository, commit, git, run_builder, write_files

from alignment.rows import reading as row_files
from data_builders.cleaning.filters import FilterSettings, drop_by_path, drop_by_text
from data_builders.parsing.languages import detect
from data_builders.parsing.notebooks import convert
from data_builders.parsing.python_functions import parse

CASES = Path(os.environ.get("ALIGN_CASES_DIR", Path(__file__).resolve().parents[3] / "shared" / "cases")) / "data"


def cases(name: str) -> list[Any]:
    path = CASES / f"{name}.jsonl"
    if not path.exists():
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"{path} is not on this machine"))]
    return [pytest.param(row, id=row["id"]) for row in map(json.loads, path.read_text().splitlines())]


def faults(text: str, check: Mapping[str, Any]) -> list[str]:
    """Return how a text differs from what a check demands."""
    return [
        *(f"lacks {item!r}" for item in check.get("contains", []) if item not in text),
        *(f"has {item!r}" for item in check.get("lacks", []) if item in text),
        *(f"has no match of {item!r}" for item in check.get("matches", []) if not re.search(item, text, re.MULTILINE)),
        *(["does not parse"] if check.get("parses") and parse(text) is None else []),
    ]


@pytest.mark.parametrize("case", cases("commits"))
def test_a_given_commit_has_its_right_result(case: dict[str, Any], repository: MakeRepository, tmp_path: Path) -> None:
    check = case["check"]
    versions: dict[str, dict[str, str | bytes]] = {"before": {}, "after": {}}
    for path, text in case["input"].items():
        if path != "message":
            version, _, name = path.partition("/")
            versions[version][name] = text
    folder = repository(versions["before"])
    if "merge" in check:
        git(folder, "checkout", "-q", "-b", "side")
    commit(folder, case["input"]["message"], versions["after"], author=check.get("author", ""))
    if "merge" in check:
        git(folder, "checkout", "-q", "main")
        git(folder, "merge", "-q", "--no-ff", "-m", check["merge"], "side")
    account = run_builder("commits", tmp_path / "out", sources=[folder])
    rows = list(row_files.read(tmp_path / "out")) if account["rows"] else []
    prompts = [row["messages"][0]["content"] for row in rows]
    if check.get("dropped"):
        assert not prompts
    elif not check.get("may_be_dropped"):
        assert len(prompts) == 1, account["commits_left_out"]
    assert [fault for prompt in prompts for fault in faults(prompt, check["prompt"])] == []


@pytest.mark.parametrize("case", cases("notebooks"))
def test_a_given_notebook_has_its_right_result(case: dict[str, Any]) -> None:
    source = case["input"]
    notebook = convert(source if isinstance(source, str) else json.dumps(source))
    assert notebook is not None
    assert faults(notebook.script, case["check"].get("script", {})) == []
    assert faults(notebook.structured, case["check"].get("structured", {})) == []


@pytest.mark.parametrize("case", cases("file_filters"))
def test_a_given_file_is_kept_or_dropped(case: dict[str, Any]) -> None:
    settings = FilterSettings()
    for path, right in case["check"]["reasons"].items():
        text = case["input"][path]
        reason = drop_by_path(path, settings) or drop_by_text(path, text, detect(path, text), settings)
        assert bool(reason) == (right == "dropped"), reason


INSTRUCTIONS = cases("instructions")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(item.values[0], id=item.id, marks=[*item.marks, pytest.mark.slow])
        if item.values[0].get("check", {}).get("tasks")
        else item
        for item in INSTRUCTIONS
    ],
)
def test_given_code_gives_right_instructions(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = case["check"]
    folder = tmp_path / "project"
    write_files(folder, case["input"])
    settings: dict[str, Any] = {"kinds": check["kinds"]} if "kinds" in check else {}
    if check.get("tasks"):
        monkeypatch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))
        run_builder("tasks", tmp_path / "tasks", sources=[folder], settings={"forgeable_share": 1.0})
        settings["tasks"] = tmp_path / "tasks" / "tasks.jsonl"
    try:
        run_builder("instructions", tmp_path / "out", sources=[folder], **settings)
    except ValueError as error:
        assert "no instruction could be made" in str(error) and check.get("may_be_none")
        return
    rows = [json.loads(line) for line in (tmp_path / "out" / "instructions.jsonl").read_text().splitlines()]
    pairs = [tuple(message["content"] for message in row["messages"]) for row in rows]
    about = [word.strip("`") for word in check.get("about", [])]
    chosen = [pair for pair in pairs if all(word in "".join(pair) for word in about)]
    if check.get("rule") == "tests_name_function":  # other rows may show the function among what their answer uses
        chosen = [pair for pair in chosen if check["function"] in re.sub(r"```.*?```", "", pair[0], flags=re.DOTALL)]
    assert chosen or check.get("may_be_none") or check["kind"] == "manual"
    for question, answer in chosen:
        assert faults(question, check.get("prompt", {})) == []
        assert faults(answer, check.get("answer", {})) == []
        rule_faults(check, question, answer)


def code_of(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)


def rule_faults(check: Mapping[str, Any], question: str, answer: str) -> None:
    """Assert what the rule of a check demands of a row."""
    rule, code = check.get("rule"), "\n".join(code_of(answer))
    if rule == "answer_not_in_prompt":
        sentences = [part.strip() for part in re.split(r"(?<=[.!?])\s|\n|: ", answer)]
        assert [part for part in sentences if len(part.split()) > 3 and part in question] == []
    elif rule == "names_defined":
        tree = ast.parse(code)
        bound = {item.id for item in ast.walk(tree) if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)}
        bound |= {item.arg for item in ast.walk(tree) if isinstance(item, ast.arg)} | set(dir(builtins))
        used = {item.id for item in ast.walk(tree) if isinstance(item, ast.Name)} - bound
        assert [name for name in used if not re.search(rf"\b{name}\b", question)] == []
    elif rule == "tests_name_function":
        assert re.search(rf"\b{check['function']}\b", code_of(question)[0])
    elif rule == "same_style":
        broken = next(block for block in code_of(question) if block.startswith(code.split("\n")[0]))
        changed = [line for line in difflib.ndiff(broken.split("\n"), code.split("\n")) if line[:1] in "+-"]
        assert 1 <= len(changed) <= check["most_changed"]
    elif rule == "answer_runs":
        exec(f"{check['before']}\n{code}\n{check['after']}", {})
