"""`python -m benchmarks task-checks` on a repair task: right verdicts, and wrong references that it reports."""

from __future__ import annotations

import json

import pytest
from shop_repository import PRICES, RIGHT, WRONG

from alignment.grading.patches import patch_of
from benchmarks.task_cheats import GO_BODIES, GO_HELPERS, go_cheats
from benchmarks.task_checks import main

REPAIR = patch_of({"shop/prices.py": PRICES.encode()}, {"shop/prices.py": PRICES.replace(WRONG, RIGHT).encode()})


@pytest.mark.slow
def test_a_right_task_passes_all_checks(repository_task, tmp_path, capsys):
    rows = tmp_path / "tasks.jsonl"
    rows.write_text(json.dumps({**repository_task, "reference": REPAIR}) + "\n")
    assert main([str(rows)]) == 0
    printed = capsys.readouterr().out
    assert "reference passes 3/3 on 1, empty answer fails 3/3 on 1" in printed
    assert "20 cheats on 1 tasks: 0 of 20 not failed" in printed


@pytest.mark.slow
def test_a_reference_that_fails_is_reported(repository_task, tmp_path, capsys):
    rows = tmp_path / "tasks.jsonl"
    wrong = REPAIR.replace("(100 - discount)", "(99 - discount)")
    rows.write_text(json.dumps({**repository_task, "reference": wrong}) + "\n")
    assert main([str(rows)]) == 1
    assert "reference passes 3/3 on 0" in capsys.readouterr().out


def test_rows_of_other_kinds_are_an_error(tmp_path, capsys):
    rows = tmp_path / "tasks.jsonl"
    rows.write_text(json.dumps({"id": "a", "kind": "stdio"}) + "\n")
    with pytest.raises(SystemExit):
        main([str(rows)])
    assert "no rows of the kinds" in capsys.readouterr().err


def test_the_cheats_of_a_go_task_keep_the_header_of_the_function():
    body = "\treturn a + 1"
    row = {
        "kind": "project", "language": "go", "answer": "function", "reference": f"func add(a int) int {{\n{body}\n}}",
        "reference_body": body, "tests": json.dumps({"visible": ["a_test.go::TestAdd"], "hidden": []}),
    }  # fmt: skip
    cheats = go_cheats(row)
    assert len(cheats) == len(GO_BODIES) + len(GO_HELPERS) + 3 >= 30
    assert "func add(a int) int {\nos.Exit(0)\npanic(0)\n}" in cheats["exits"]
    assert "func TestAdd(t *testing.T) {}" in cheats["replaces a test"] and "TestAdd(nil)" in cheats["calls a test"]
