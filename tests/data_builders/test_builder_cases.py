"""Given files, notebooks, commits and repositories: each gives the builders' right result."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import MakeRepository, commit, git, run_builder

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
