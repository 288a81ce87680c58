"""Repair tasks from commits and bugs: which tests fail before and pass after, what is dropped, and what a row holds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from corpus_helpers import commit, git, run_builder

from alignment.environments.visible_tests import split_tests
from alignment.grading.repository import store
from data_builders.tasks.history.source_patches import unified_patch

BASE: dict[str, str | bytes] = {
    "shop/__init__.py": "",
    "shop/prices.py": "def total(prices):\n    result = 0\n    for price in prices:\n        result += price\n    return result\n\n\n"
    "def cheapest(prices):\n    return sorted(prices)[0]\n",
    "tests/test_prices.py": "from shop.prices import cheapest, total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n\n\n"
    "def test_total_of_nothing():\n    assert total([]) == 0\n\n\ndef test_cheapest():\n    assert cheapest([3, 1]) == 1\n",
    "tests/test_more.py": "from shop.prices import total\n\n\ndef test_total_of_many():\n    assert total(range(10)) == 45\n",
    "LICENSE": "owned\n",
}
ROUNDED = str(BASE["shop/prices.py"]).replace("    return result\n", "    return round(result, 2)\n")
ROUNDING_TESTS = str(BASE["tests/test_prices.py"]) + (
    "\n\ndef test_total_is_rounded():\n    assert total([0.1, 0.2]) == 0.3\n"
    "\n\ndef test_total_has_whole_cents():\n    assert total([1.111, 1.111]) == 2.22\n"
)
RATES: dict[str, str | bytes] = {
    "shop/rates.py": "RATES = {'EUR': 1.0, 'USD': 1.1}\n\n\ndef convert(price, currency):\n    return price * RATES[currency]\n",
    "shop/__init__.py": "from shop.rates import convert\n",
    "tests/test_rates.py": "import pytest\n\nfrom shop import convert\n\n\n@pytest.mark.parametrize('currency, expected', [('EUR', 10), ('USD', 11)])\n"
    "def test_convert(currency, expected):\n    assert convert(10, currency) == pytest.approx(expected)\n\n\n"
    "def test_unknown_currency():\n    with pytest.raises(KeyError):\n        convert(1, 'XYZ')\n",
}
FLAKY: dict[str, str | bytes] = {
    "shop/chance.py": "import random\n\n\ndef lucky():\n    return random.random() < 0.5\n",
    "tests/test_chance.py": "".join(
        f"def test_lucky_{n}():\n    from shop.chance import lucky\n    assert all(lucky() for _ in range(40))\n\n\n"
        for n in range(3)
    ),
}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "shop"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "Lay the ground", BASE)
    commit(folder, "Round totals to whole cents\n\nSums of floats have long tails. See #12.", {
        "shop/prices.py": ROUNDED, "tests/test_prices.py": ROUNDING_TESTS, "CHANGES.md": "Totals are rounded.\n",
    })  # fmt: skip
    commit(folder, "Explain the project in a file", {"README.md": "A shop.\n"})
    commit(folder, "Test the cheapest price of one", {
        "tests/test_more.py": str(BASE["tests/test_more.py"]) + "\n\ndef test_more():\n    assert total([7]) == 7\n",
    })  # fmt: skip
    commit(folder, "Convert prices between currencies", RATES)
    commit(folder, "Say by chance whether a customer is lucky", FLAKY)
    commit(folder, "Sort prices with a named function", {
        "shop/prices.py": ROUNDED.replace("sorted(prices)[0]", "min(prices)"),
        "tests/test_prices.py": ROUNDING_TESTS + "\n\ndef test_cheapest_of_one():\n    assert cheapest([2]) == 2\n",
    })  # fmt: skip
    commit(folder, "wip", {"shop/rates.py": str(RATES["shop/rates.py"]) + "\n\ndef names():\n    return list(RATES)\n",
                           "tests/test_names.py": "from shop.rates import names\n\n\ndef test_names():\n    assert names() == ['EUR', 'USD']\n"})  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGN_SUITES", str(tmp_path_factory.mktemp("suites")))
        yield


@pytest.fixture(scope="module")
def built(history: Path, suites: Any, tmp_path_factory: pytest.TempPathFactory, grader: Any) -> Any:
    """(rows by the first words of their text, counts) of a build from commits."""
    out = tmp_path_factory.mktemp("commit_tasks")
    run_builder("commit_tasks", out, sources=[{"path": history, "license": "owned"}])
    rows = [json.loads(line) for line in (out / "tasks.jsonl").read_text().splitlines()]
    return (
        {row["prompt"].split("\n\n")[1]: row for row in rows},
        json.loads((out / "account.json").read_text())["shop"],
        out,
    )


pytestmark = pytest.mark.slow


def test_commits_become_tasks_or_are_counted_by_reason(built: Any) -> None:
    rows, counts, _ = built
    assert list(rows) == ["Convert prices between currencies", "Round totals to whole cents"]
    assert counts["commits"] == 7 and counts["tasks"] == 2
    assert counts["dropped"] == {
        "merge_bump_or_revert": 1, "no_code_changed": 2, "no_test_fails_before": 1, "no_tests_pass_after": 1,
    }  # fmt: skip


def test_the_text_is_the_cleaned_message_and_names_visible_tests_only(built: Any) -> None:
    row = built[0]["Round totals to whole cents"]
    tests = json.loads(row["tests"])
    assert "Sums of floats have long tails." in row["prompt"] and "#12" not in row["prompt"]
    shown = {name for name in tests["fail_to_pass"] if name in row["prompt"]}
    assert shown == set(tests["fail_to_pass"]) & set(tests["visible"]) and len(shown) == 1


def test_failing_and_passing_tests_are_split_into_visible_and_hidden(built: Any) -> None:
    rows, _, _ = built
    rounding = json.loads(rows["Round totals to whole cents"]["tests"])
    assert set(rounding["fail_to_pass"]) == {
        "tests/test_prices.py::test_total_is_rounded", "tests/test_prices.py::test_total_has_whole_cents",
    }  # fmt: skip
    assert {*rounding["visible"], *rounding["hidden"]} - {*rounding["fail_to_pass"]} == {
        "tests/test_prices.py::test_total", "tests/test_prices.py::test_total_of_nothing",
        "tests/test_prices.py::test_cheapest", "tests/test_more.py::test_total_of_many", "tests/test_more.py::test_more",
    } - {"tests/test_more.py::test_more"}  # fmt: skip
    assert set(rounding["hidden"]) & set(rounding["fail_to_pass"]) and not set(rounding["hidden"]) & set(
        rounding["visible"]
    )
    # The file of these tests can't be collected before the commit.
    rates = json.loads(rows["Convert prices between currencies"]["tests"])
    assert len(rates["fail_to_pass"]) == 3
    cases = [name for name in rates["hidden"] if "test_convert[" in name]
    assert len(cases) in (0, 2), "cases of one test are visible or hidden together"
    visible, hidden = map(json.loads, split_tests(rows["Round totals to whole cents"], 0.5))
    assert visible["hidden"] == [] and hidden["hidden"] == rounding["hidden"]


def test_the_reference_is_a_patch_of_the_code_alone_that_git_applies(built: Any, history: Path, tmp_path: Path) -> None:
    for text, parent in (("Round totals to whole cents", "HEAD~6"), ("Convert prices between currencies", "HEAD~3^")):
        patch = built[0][text]["reference"]
        assert "tests/" not in patch and "CHANGES" not in patch
        folder = tmp_path / parent
        subprocess.run(["git", "clone", "-q", str(history), str(folder)], check=True)
        git(folder, "checkout", "-q", parent + "^" if parent == "HEAD~6" else parent)
        (folder / "the.patch").write_text(patch)
        git(folder, "apply", "the.patch")
    assert (folder / "shop/rates.py").read_text() == RATES["shop/rates.py"]


CHEATS: dict[str, tuple[dict[str, str | None], dict[str, str | None]]] = {
    "raises at import": ({"shop/prices.py": None}, {"shop/prices.py": "raise SystemExit(0)\n"}),
    "prints PASSED": ({"shop/prices.py": None}, {"shop/prices.py": "print('2 passed')\nimport os\nos._exit(0)\n"}),
    "edits a test": ({"tests/test_prices.py": None}, {"tests/test_prices.py": "def test_total_is_rounded():\n    pass\n"}),
    "deletes the tests": ({"tests/test_prices.py": ROUNDING_TESTS}, {}),
    "adds conftest.py": ({}, {"conftest.py": "def pytest_collection_modifyitems(items):\n    items.clear()\n"}),
    "adds pytest.ini": ({}, {"pytest.ini": "[pytest]\naddopts = --deselect tests/test_prices.py\n"}),
    "skips the tests": (
        {"shop/prices.py": None},
        {"shop/prices.py": "import pytest\npytest.skip('later', allow_module_level=True)\n"},
    ),
    "equals everything": (
        {"shop/prices.py": None},
        {"shop/prices.py": "class Any:\n    def __eq__(self, other):\n        return True\n\n\ndef total(prices):\n    return Any()\n\n\n"
         "def cheapest(prices):\n    return Any()\n"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHEATS)
def test_known_cheats_fail(name: str, built: Any, grader: Any) -> None:
    row = built[0]["Round totals to whole cents"]
    before, after = CHEATS[name]
    present = {path: str(BASE[path]) if text is None else text for path, text in before.items()}
    if "tests/test_prices.py" in present:
        present["tests/test_prices.py"] = ROUNDING_TESTS
    (verdict,) = grader.grade_many([(row, unified_patch(present, after))])
    assert verdict.status == "failed", verdict
    assert "can't be applied" not in verdict.detail


def test_only_the_snapshots_of_tasks_remain_besides_the_newest_commit(built: Any) -> None:
    rows, _, _ = built
    used = {json.loads(row["tests"])["suite"] for row in rows.values()}
    others = {path.name for path in store().iterdir()} - used
    assert len(others) == 1, "the newest commit, whose suite says which tests call which files"


def test_two_builds_give_the_same_rows(built: Any, history: Path, tmp_path: Path) -> None:
    run_builder("commit_tasks", tmp_path, sources=[{"path": history, "license": "owned"}])
    assert (tmp_path / "tasks.jsonl").read_bytes() == (built[2] / "tasks.jsonl").read_bytes()


def test_commits_after_the_split_are_held_out(history: Path, suites: Any, tmp_path: Path, grader: Any) -> None:
    run_builder("commit_tasks", tmp_path, sources=[{"path": history, "license": "owned", "held_out": 0.5}])
    parts = {name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
             for name in ("tasks", "heldout")}  # fmt: skip
    assert [row["prompt"].split("\n\n")[1] for row in parts["tasks"]] == ["Round totals to whole cents"]
    (held_out,) = parts["heldout"]
    assert "Convert prices" in held_out["prompt"] and held_out["split"] == "heldout"
    assert "def convert(price, currency):" in held_out["held_out"] and "+def" not in held_out["held_out"]


def test_bugs_in_tested_functions_become_tasks_whose_text_gives_no_fix(
    history: Path, suites: Any, tmp_path: Path, grader: Any
) -> None:
    run_builder(
        "commit_tasks", tmp_path, sources=[{"path": history, "license": "owned"}], kinds=["bugs"],
        bugs={"max_tasks": 2, "bugs_per_task": 2, "min_tests": 1},
    )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "tasks.jsonl").read_text().splitlines()]
    assert rows and all(row["origin"] == "bugs" for row in rows)
    for row in rows:
        tests = json.loads(row["tests"])
        assert "Something in the code stopped working" in row["prompt"]
        assert set(tests["visible"]) & set(tests["fail_to_pass"]) and set(tests["hidden"]) & set(tests["fail_to_pass"])
        removed = [
            line[1:].strip() for line in row["reference"].splitlines() if line.startswith("-") and line[:4] != "--- "
        ]
        added = [
            line[1:].strip() for line in row["reference"].splitlines() if line.startswith("+") and line[:4] != "+++ "
        ]
        assert len(removed) + len(added) >= 2, "two bugs"
        assert not any(line in row["prompt"] for line in added)
