"""Patches are read by git: changed, new and deleted files, and files without a line end at their end."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_helpers import git

from data_builders.tasks.history.source_patches import changed_lines, unified_patch

CASES: dict[str, tuple[dict[str, str | None], dict[str, str | None]]] = {
    "changed": ({"a.py": "x = 1\ny = 2\n"}, {"a.py": "x = 1\ny = 3\n"}),
    "new": ({}, {"pkg/new.py": "x = 1\n"}),
    "deleted": ({"old.py": "x = 1\n", "a.py": "1\n"}, {"a.py": "1\n"}),
    "no line end": ({"a.py": "x = 1"}, {"a.py": "x = 2"}),
    "line end added": ({"a.py": "x = 1"}, {"a.py": "x = 1\n"}),
    "emptied": ({"a.py": "x = 1\n"}, {"a.py": ""}),
    "empty file": ({}, {"empty.py": ""}),
    "dashes": ({"a.sql": "-- a\n-- b\n"}, {"a.sql": "-- a\n++ c\n"}),
    "form feed": ({"a.py": "a\x0cb\x1cc\u2028d\n1\n"}, {"a.py": "a\x0cb\x1cc\u2028d\n2\n"}),
    "several": ({"a.py": "1\n" * 30, "b.py": "2\n"}, {"a.py": "0\n" + "1\n" * 28 + "3\n", "b.py": "4\n"}),
}


@pytest.mark.parametrize("name", CASES)
def test_git_applies_a_patch(name: str, tmp_path: Path) -> None:
    before, after = CASES[name]
    git(tmp_path, "init", "-q")
    for path, text in before.items():
        (tmp_path / path).write_bytes((text or "").encode())
    patch = unified_patch(before, after)
    (tmp_path / ".git" / "the.patch").write_bytes(patch.encode())
    git(tmp_path, "apply", ".git/the.patch")
    files = {str(path.relative_to(tmp_path)): path.read_bytes().decode()
             for path in tmp_path.rglob("*") if path.is_file() and ".git" not in path.parts}  # fmt: skip
    assert files == after


def test_equal_files_give_no_patch_and_lines_are_counted() -> None:
    assert unified_patch({"a": "1\n"}, {"a": "1\n"}) == ""
    assert changed_lines(unified_patch(*CASES["several"])) == 6
