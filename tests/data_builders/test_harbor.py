"""Harbor task folders: what is written, that it is read back as the same task, and what is refused with a reason."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import write_files

from data_builders.repositories.sources import resolve
from data_builders.tasks.build_tasks import write_rows
from data_builders.tasks.harbor.harbor_export import export_tasks, folder_name
from data_builders.tasks.harbor.harbor_files import NotConvertible
from data_builders.tasks.harbor.harbor_import import Container, import_tasks, instructions
from data_builders.tasks.history.source_patches import unified_patch
from data_builders.tasks.python.python_suite import prepare_suite

WRONG = "def total(prices):\n    return sum(prices) + 1\n"
RIGHT = "def total(prices):\n    return sum(prices)\n"
TESTS = (
    "from shop.prices import total\n\n\ndef test_total():\n    assert total([1]) == 1\n\n\ndef test_secret():\n    assert total([2]) == 2\n"
    "\n\ndef test_kind():\n    assert total([0.5]) > 0\n"
)
NAMES = [f"tests/test_prices.py::{name}" for name in ("test_total", "test_secret", "test_kind")]
TOML = 'version = "1.0"\n[metadata]\nlicense = "MIT"\n'
DOCKERFILE = "FROM python:3.11-slim\nWORKDIR /app\nCOPY code/ /app\n"


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one repair task."""
    monkeypatch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))
    write_files(tmp_path / "shop", {"shop/__init__.py": "", "shop/prices.py": WRONG, "tests/test_prices.py": TESTS})
    (repository,) = resolve([tmp_path / "shop"])
    tests = {
        "suite": prepare_suite(repository).id,
        "visible": NAMES[:1],
        "hidden": NAMES[1:],
        "fail_to_pass": NAMES[:2],
    }
    row = {
        "id": "Shop@1/bug-0", "prompt": "Totals are too large.", "language": "python", "kind": "repository",
        "tests": json.dumps(tests), "source": "shop@1", "license": "owned", "split": "train",
        "reference": unified_patch({"shop/prices.py": WRONG}, {"shop/prices.py": RIGHT}),
    }  # fmt: skip
    write_rows(tmp_path / "tasks.jsonl", [row])
    return tmp_path / "tasks.jsonl"


@pytest.mark.slow
def test_a_folder_hides_the_hidden_tests_and_is_read_back_as_the_same_task(
    rows: Path, tmp_path: Path, grader: Any
) -> None:
    assert export_tasks(rows, tmp_path / "harbor") == (1, {})
    folder = tmp_path / "harbor" / "shop-1-bug-0"
    settings = tomllib.loads((folder / "task.toml").read_text())
    assert settings["version"] == "1.0" and settings["metadata"]["license"] == "owned"
    assert (folder / "instruction.md").read_text().startswith("Totals are too large.")
    shown = (folder / "environment/repository/tests/test_prices.py").read_text()
    assert "test_total" in shown and "test_secret" not in shown
    assert "test_secret" in (folder / "tests/files/tests/test_prices.py").read_text()
    config = json.loads((folder / "tests/config.json").read_text())
    assert (config["FAIL_TO_PASS"], config["PASS_TO_PASS"]) == (NAMES[:2], NAMES[2:])
    assert (folder / "tests/test.sh").stat().st_mode & 0o111 and "reward.txt" in (folder / "tests/test.sh").read_text()
    count, refused = import_tasks(tmp_path / "harbor", tmp_path / "back.jsonl")
    assert (count, refused) == (1, {})
    row = json.loads((tmp_path / "back.jsonl").read_text())
    before, after = (json.loads(item["tests"]) for item in (json.loads(rows.read_text()), row))
    assert {key: after[key] for key in ("visible", "hidden", "fail_to_pass")} == {
        key: before[key] for key in ("visible", "hidden", "fail_to_pass")
    }  # fmt: skip
    verdicts = grader.grade_many([(row, row["reference"]), (row, "")])
    assert [verdict.status for verdict in verdicts] == ["passed", "failed"]


def foreign(folder: Path, **changed: str | None) -> Path:
    """A task folder by another program, as SWE-bench's tests are written there, with some files changed or left out."""
    files: dict[str, str | None] = {
        "task.toml": TOML, "instruction.md": "Correct the totals.\n", "environment/Dockerfile": DOCKERFILE,
        "environment/code/shop/__init__.py": "", "environment/code/shop/prices.py": WRONG,
        "environment/code/tests/test_prices.py": TESTS,
        "tests/config.json": json.dumps({"FAIL_TO_PASS": json.dumps(NAMES[:2]), "PASS_TO_PASS": json.dumps(NAMES[2:])}),
        "solution/solve.sh": "#!/bin/bash\ncd /app\ngit apply <<'EOF'\n"
        + unified_patch({"shop/prices.py": WRONG}, {"shop/prices.py": RIGHT}) + "EOF\n",
    } | {name.replace("__", "/").replace("_json", ".json").replace("_toml", ".toml"): text for name, text in changed.items()}  # fmt: skip
    write_files(folder, {path: text for path, text in files.items() if text is not None})
    return folder


@pytest.mark.slow
def test_a_foreign_task_of_named_tests_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grader: Any) -> None:
    monkeypatch.setenv("ALIGN_SUITES", str(tmp_path / "suites"))
    import_tasks(foreign(tmp_path / "totals"), tmp_path / "rows.jsonl")
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    tests = json.loads(row["tests"])
    assert row["id"] == "totals" and {*tests["visible"], *tests["hidden"]} == set(NAMES)
    assert set(tests["hidden"]) & set(NAMES[:2]), "at least one failing test is hidden"
    assert [verdict.status for verdict in grader.grade_many([(row, row["reference"]), (row, "")])] == [
        "passed",
        "failed",
    ]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"task_toml": TOML + '[environment]\ndocker_image = "team/img:1"\n'}, "needs the image team/img:1"),
        ({"task_toml": "version = "}, "task.toml is not valid"),
        ({"environment__Dockerfile": "FROM ubuntu:24.04\n"}, "needs the image ubuntu:24.04"),
        ({"environment__Dockerfile": DOCKERFILE + "RUN pip install -q numpy && make all\n"}, "runs `make all`"),
        ({"environment__Dockerfile": DOCKERFILE + "USER agent\n"}, "has USER"),
        ({"environment__Dockerfile": "FROM python:3.11\nWORKDIR /app\n"}, "the repository is in an image"),
        ({"environment__Dockerfile": "FROM python:3.11\nWORKDIR /app\nCOPY ../../ /app\n"}, "leads out of its folder"),
        ({"environment__docker-compose.yaml": "services: {}\n"}, "several containers"),
        ({"tests__config_json": None}, "FAIL_TO_PASS is missing"),
        ({"tests__config_json": '{"FAIL_TO_PASS": "test_total"}'}, "must be a list of pytest's names"),
        ({"tests__config_json": '{"FAIL_TO_PASS": ["tests/test_no.py::test_a"]}'}, "no test file tests/test_no.py"),
        ({"instruction.md": None}, "instruction.md is missing"),
    ],
)
def test_tasks_that_cannot_be_read_are_refused_with_a_reason(
    changed: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    foreign(tmp_path / "tasks" / "one", **changed)
    with pytest.raises(ValueError, match=f"no task can be read: one: .*{reason}"):
        import_tasks(tmp_path / "tasks", tmp_path / "rows.jsonl")


def test_folders_without_tasks_and_rows_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no Harbor task"):
        import_tasks(tmp_path, tmp_path / "rows.jsonl")
    write_rows(tmp_path / "tasks.jsonl", [{"id": "f", "prompt": "Write f.", "kind": "calls", "tests": "{}"}])
    count, refused = export_tasks(tmp_path / "tasks.jsonl", tmp_path / "out")
    assert count == 0 and "only `repository` can be exported" in refused["f"]


def test_dockerfiles_are_read_with_continued_lines_and_variables(tmp_path: Path) -> None:
    text = "# base\nFROM python:3.11-slim\nENV A=1 B='2 3'\nENV C 4\nRUN apt-get update && \\\n    apt-get install -y git\nWORKDIR /w\nCOPY --chown=a:b code .\n"
    assert [keyword for keyword, _ in instructions(text)] == ["FROM", "ENV", "ENV", "RUN", "WORKDIR", "COPY"]
    write_files(tmp_path, {"environment/Dockerfile": text, "environment/code/a.py": ""})
    container = Container.of(tmp_path, {})
    assert container.environment == {"A": "1", "B": "2 3", "C": "4"}
    assert container.repository == tmp_path / "environment" / "code"
    with pytest.raises(NotConvertible, match="environment/Dockerfile is missing"):
        Container.of(tmp_path / "environment", {})


@pytest.mark.parametrize(
    ("identifier", "name"), [("Shop@1f/bug-0", "shop-1f-bug-0"), ("a.b", "a.b"), ("../..", "task"), ("é", "task")]
)
def test_folder_names_are_plain(identifier: str, name: str) -> None:
    assert folder_name(identifier) == name
