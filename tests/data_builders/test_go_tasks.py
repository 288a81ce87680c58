"""Tasks from the tests of a Go module: which functions become tasks, and that answers which cheat fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import run_builder, write_files
from go_shop import CHEATING_FILES, CHEATS, FILES, GOOD_ANSWERS, SHOP

from alignment.evaluation.answer_forms import program_of_answer, reference_answer
from alignment.grading import Grader, Limits
from alignment.grading.task import tier_of
from alignment.sandbox.toolchains import NoToolchain, toolchain
from data_builders.tasks.validation import TaskSettings

pytestmark = pytest.mark.slow
pytest.importorskip("tree_sitter_language_pack", reason="needs the extra [syntax]")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        toolchain("go")
    except NoToolchain as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("sources") / "shop"
    write_files(folder, FILES)
    return folder


def built_tasks(folder: Path, out: Path, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (rows by name, account) of the module."""
    run_builder("tasks", out, sources=[folder], settings=TaskSettings(forgeable_share=1.0, mutants=3, **settings))
    rows = [json.loads(line) for line in (out / "tasks.jsonl").read_text().splitlines()]
    account = json.loads((out / "account.json").read_text())[f"{folder.name} (go)"]
    return {row["id"].rpartition(":")[2]: row for row in rows}, account


@pytest.fixture(scope="module")
def built(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGN_SUITES", str(tmp_path_factory.mktemp("suites")))
        yield built_tasks(shop, tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def go_grader(built: Any) -> Iterator[Grader]:
    with Grader(1, Limits(cpu_seconds=4, wall_seconds=4)) as grader:
        yield grader


def verdict(grader: Grader, row: dict[str, Any], program: str) -> Any:
    return grader.grade_many([(row, program)])[0]


def test_functions_with_two_tests_become_tasks(built: Any) -> None:
    rows, account = built
    assert set(rows) == {"Basket.Add", "Basket.Total", "New", "Slug"}
    assert account["outcomes"] == {"failed": 1, "passed": 8}
    assert account["dropped"]["not_covered"] == 1 and account["covered_by_two"] == 5
    assert {tier_of(row) for row in rows.values()} == {"A"}
    row = rows["Basket.Total"]
    tests = json.loads(row["tests"])
    assert row["kind"] == "project" and row["language"] == "go" and row["entry_point"] == "Total"
    assert {*tests["visible"], *tests["hidden"]} == {
        f"shop_test.go::{name}" for name in ("TestTotal", "TestTotalOfNothing", "TestFull")
    }
    assert "```go" in row["prompt"] and "sum*percent" not in row["prompt"] and "func Test" in row["prompt"]


def test_the_same_module_gives_the_same_tasks(built: Any, shop: Path, tmp_path: Path) -> None:
    rows, account = built_tasks(shop, tmp_path)
    assert rows == built[0]
    assert account | {"median_cpu_ms": 0} == built[1] | {"median_cpu_ms": 0}


def test_references_pass_through_the_answer_of_a_chat(built: Any, go_grader: Grader) -> None:
    for row in built[0].values():
        answer = f"Here it is:\n\n{reference_answer(row)}\n"
        assert verdict(go_grader, row, program_of_answer(row, answer)).status == "passed"


def test_right_answers_of_every_form_pass(built: Any, go_grader: Grader) -> None:
    for name, answer in GOOD_ANSWERS.items():
        result = verdict(go_grader, built[0]["Basket.Total"], answer)
        assert result.status == "passed", (name, result)


def test_no_cheat_passes(built: Any, go_grader: Grader) -> None:
    row = built[0]["Basket.Total"]
    for name, answer in {**CHEATS, **CHEATING_FILES}.items():
        result = verdict(go_grader, row, answer)
        assert result.status == "failed", (name, result)
        assert result.fraction < 1


def test_each_test_has_a_result_of_its_own(built: Any, go_grader: Grader) -> None:
    row = built[0]["Basket.Total"]
    names = [*json.loads(row["tests"])["visible"], *json.loads(row["tests"])["hidden"]]
    result = verdict(go_grader, row, "if len(b.names) == 0 {\n\t\treturn 0, ErrEmpty\n\t}\n\tpanic(1)")
    passed = {name for name, test in zip(names, result.tests, strict=True) if test.passed}
    assert passed == {"shop_test.go::TestTotalOfNothing"}
    # A panic ends a test; in a subtest, Go reports the test as failed.
    assert sorted(test.reason for test in result.tests) == ["died", "passed", "wrong_answer"]


def test_a_message_of_the_compiler_reaches_the_verdict(built: Any, go_grader: Grader) -> None:
    result = verdict(go_grader, built[0]["Slug"], "return strings.Title(missing)")
    assert result.reason == "compile" and "undefined: missing" in result.detail


def test_a_missing_or_other_toolchain_is_an_error_and_not_a_failure(
    built: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, program = built[0]["Slug"], SHOP
    from alignment.grading.projects import project

    def missing(name: str) -> Any:
        raise NoToolchain("go is not installed; install it with: apt-get install golang-go")

    monkeypatch.setattr(project, "toolchain", missing)
    with Grader(1) as grader:
        result = verdict(grader, row, program)
    assert (result.status, result.reason) == ("error", "toolchain") and "golang-go" in result.detail


def test_answers_are_continued_in_the_text_forms(shop: Path, built: Any, tmp_path: Path) -> None:
    rows, _ = built_tasks(shop, tmp_path, answer="fim")
    row = rows["Slug"]
    assert row["prefix"].endswith("func Slug(name string) string {\n") and row["suffix"].startswith("\n}")
    assert (
        program_of_answer(row, f"{row['reference_body']}\n}}\n\nfunc other() {{}}").strip()
        == row["reference_body"].strip()
    )
